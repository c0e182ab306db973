"""What is asked of Prometheus: chunks, times, label values."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.prometheus.asking import (
    MAX_POINTS,
    MAX_RANGE_MS,
    chunks,
    label_matcher,
    milliseconds,
    seconds_text,
)
from fastvlm_ops.core.prometheus.errors import PrometheusError, PrometheusQueryError

DAY_MS = 24 * 3_600_000


@given(
    start=st.integers(0, 2_000_000_000_000),
    length=st.integers(0, 400 * DAY_MS),
    step=st.integers(20_000, 3 * DAY_MS),
)
def test_each_point_is_in_exactly_one_chunk(start: int, length: int, step: int) -> None:
    cut = list(chunks(start, start + length, step))
    assert cut[0].start_ms == start
    assert cut[-1].end_ms == start + length - length % step
    for chunk in cut:
        assert (chunk.end_ms - chunk.start_ms) % step == 0
        assert (chunk.end_ms - chunk.start_ms) // step + 1 <= MAX_POINTS
        assert chunk.end_ms - chunk.start_ms <= MAX_RANGE_MS
    for one, other in itertools.pairwise(cut):
        assert other.start_ms == one.end_ms + step


@pytest.mark.parametrize(("end", "step"), [(-1, 1000), (5, 0), (5, -1)])
def test_refuses_ranges_that_are_none(end: int, step: int) -> None:
    with pytest.raises(PrometheusQueryError):
        list(chunks(0, end, step))


def test_times_are_aware_and_exact() -> None:
    with pytest.raises(PrometheusError, match="start is 2026-01-01T00:00:00, which names no time zone"):
        milliseconds("start", datetime(2026, 1, 1))
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    there, here = datetime(2026, 1, 1, 5, 45, tzinfo=kathmandu), datetime(2026, 1, 1, tzinfo=UTC)
    assert milliseconds("start", there) == milliseconds("start", here)
    assert seconds_text(milliseconds("start", here) - 1) == "1767225599.999"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("vlm-api", 's="vlm-api"'),
        ('a"b', r's="a\"b"'),
        ("a\\b", r's="a\\b"'),
        ('\\"', r's="\\\""'),
        ("a\nb", r's="a\nb"'),
        ("größe 模型", 's="größe 模型"'),
        ('"} or vector(1) #', r's="\"} or vector(1) #"'),
    ],
)
def test_label_values_are_escaped(value: str, expected: str) -> None:
    assert label_matcher("s", value) == expected


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("1a", "x"), ('a="', "x"), ("a", "\ud800")])
def test_refuses_labels_that_are_none(name: str, value: str) -> None:
    with pytest.raises(PrometheusQueryError):
        label_matcher(name, value)
