"""What Prometheus answers, as arrays and as a table of hours."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.garbage import many_objects
from fastvlm_ops.core.prometheus.asking import HOUR_MS
from fastvlm_ops.core.prometheus.errors import PrometheusAnswerError, PrometheusQueryError
from fastvlm_ops.core.prometheus.series import Series, hour_table, read_result

NAN = float("nan")


def matrix(values: list[list[Any]], **labels: str) -> list[dict[str, Any]]:
    return [{"metric": labels, "values": values}]


def test_what_is_no_finite_number_is_no_value() -> None:
    texts = ["1.5", "NaN", "+Inf", "-Inf", "stale", "1e300"]
    (series,) = read_result([matrix([[1000 + i, text] for i, text in enumerate(texts)], service="a")])
    np.testing.assert_array_equal(series.values, [1.5, NAN, NAN, NAN, NAN, 1e300])
    assert list(series.times_ms) == [1_000_000 + 1000 * i for i in range(6)]


def test_chunks_are_joined_and_repeated_samples_go() -> None:
    first = matrix([[1, "1"], [2, "NaN"], [3, "3"]], service="a")
    second = matrix([[3, "3"], [2, "2"], [4.001, "4"]], service="a")
    (series,) = read_result([first, second])
    assert list(series.times_ms) == [1000, 2000, 3000, 4001]
    assert list(series.values) == [1, 2, 3, 4]


def test_series_are_in_order_whatever_the_server_does() -> None:
    one, other = matrix([[1, "1"]], service="b"), matrix([[1, "2"]], service="a")
    assert [series.labels["service"] for series in read_result([[*one, *other]])] == ["a", "b"]
    assert read_result([[]]) == []


def test_reads_scalars_and_vectors() -> None:
    (scalar,) = read_result([[1767225600, "3"]])
    assert (dict(scalar.labels), list(scalar.values)) == ({}, [3])
    (vector,) = read_result([[{"metric": {"a": "b"}, "value": [1767225600.5, "4"]}]])
    assert (dict(vector.labels), list(vector.times_ms)) == ({"a": "b"}, [1767225600500])


@pytest.mark.parametrize(
    "result",
    [
        [{"metric": {}, "histograms": [[1, {}]]}],
        [{"values": [[1, "1"]]}],
        [{"metric": {}, "values": [["x", "1"]]}],
        [{"metric": {}, "values": [[1]]}],
        [None],
    ],
)
def test_refuses_other_shapes(result: Any) -> None:
    with pytest.raises(PrometheusAnswerError, match="no samples as Prometheus gives them"):
        read_result([result])


def series(values: dict[float, float], **labels: str) -> Series:
    times = np.array([round(hour * HOUR_MS) for hour in values], np.int64)
    return Series(labels, times, np.array(list(values.values()), np.float64))


LAST_MS = 1 - 1 / HOUR_MS


def test_hours() -> None:
    found = hour_table(
        [series({10 + LAST_MS: 1, 12 + LAST_MS: 3, 13 + LAST_MS: 4, 9 + LAST_MS: 0}, service="b")],
        10 * HOUR_MS,
        13 * HOUR_MS,
        "service",
    )
    assert [str(hour) for hour in found.index] == [f"1970-01-01 {hour}:00:00+00:00" for hour in (10, 11, 12)]
    np.testing.assert_array_equal(found["b"], [1, NAN, 3])
    assert (found.index.name, found.columns.name) == ("hour", "service")


def test_a_server_that_moves_times_to_full_hours_shifts_nothing() -> None:
    found = hour_table([series({11: 1, 12: 2}, service="a")], 10 * HOUR_MS, 12 * HOUR_MS, "service")
    assert list(found["a"]) == [1, 2], "what is seen at 11:00 is the hour before"


def test_no_series_is_a_table_without_columns() -> None:
    found = hour_table([], 0, 24 * HOUR_MS, "service")
    assert found.shape == (24, 0)


def test_replicas_fill_each_others_gaps() -> None:
    one = series({0.5: 1, 1.5: NAN}, service="a", replica="0")
    other = series({0.5: 7, 1.5: 2}, service="a", replica="1")
    assert list(hour_table([one, other], 0, 2 * HOUR_MS, "service")["a"]) == [1, 2]


def test_refuses_what_was_not_aggregated() -> None:
    one, other = series({0.5: 1}, service="a", pod="x"), series({0.5: 1}, service="a", pod="y")
    with pytest.raises(PrometheusQueryError, match=r"several series of service 'a', which differ in pod"):
        hour_table([one, other], 0, HOUR_MS, "service")
    with pytest.raises(PrometheusQueryError, match="a series without the label 'service'"):
        hour_table([series({0.5: 1}, job="a")], 0, HOUR_MS, "service")


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_of_garbage_is_as_it_was(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with many_objects():
            assert not gc.isenabled()
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()
