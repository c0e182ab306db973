"""Samples that are read as text are those that the general way reads, whatever a server writes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.prometheus.errors import PrometheusAnswerError
from fastvlm_ops.core.prometheus.matrix import read_matrix
from fastvlm_ops.core.prometheus.series import read_result

VALUES = st.floats().map(lambda value: f"{value:.6g}") | st.sampled_from(
    ["NaN", "+Inf", "-Inf", "1e-05", "0", "5e-324", "stale", "", "[", "1,2", '"']
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(repr)


def body_of(samples: list[list[Any]]) -> bytes:
    result = [{"metric": {"service": f"s{n}"}, "values": values} for n, values in enumerate(samples)]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


def assert_read_alike(body: bytes) -> None:
    document = read_matrix(body)
    assert document is not None
    fast = read_result([document["data"]["result"]])
    general = read_result([json.loads(body)["data"]["result"]])
    for one, other in zip(fast, general, strict=True):
        assert one.labels == other.labels
        assert np.array_equal(one.times_ms, other.times_ms)
        assert np.array_equal(one.values, other.values, equal_nan=True)


@given(st.lists(st.lists(st.tuples(st.integers(0, 10**7).map(lambda n: n / 1000), VALUES), max_size=4)))
def test_whatever_the_values_are(samples: list[Any]) -> None:
    assert_read_alike(body_of(samples))


@given(st.lists(st.lists(st.tuples(st.integers(0, 10**7), NUMBERS), min_size=1, max_size=4), min_size=1))
def test_numbers_to_the_last_bit(samples: list[Any]) -> None:
    assert_read_alike(body_of(samples))


def test_white_space_and_order_of_other_servers() -> None:
    text = '{"data": {"result": [ {"values": [ [1, "2"] , [3, "4"] ], "metric": {"a": "[b"}} ],'
    assert_read_alike((text + ' "resultType": "matrix"}, "status": "success"}').encode())


@pytest.mark.parametrize(
    "values", [[[1]], [[1, "2", "3"]], [1, 2], [[[1, "2"]]], "text", {"a": 1}, [[None, "1"]]]
)
def test_what_is_no_list_of_samples(values: Any) -> None:
    document = read_matrix(body_of([[[1, "2"]], values]))
    assert document is not None
    with pytest.raises(PrometheusAnswerError, match="no samples as Prometheus gives them"):
        read_result([document["data"]["result"]])


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b'{"status":"error","data":{}}', b'{"status":"success","data":[]}']
)
def test_other_answers_are_left_to_the_general_way(body: bytes) -> None:
    assert read_matrix(body) is None
