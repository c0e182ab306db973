"""include/capacity.yaml: what it accepts, and what it says to the person who got it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvlm_ops.core.config import RESOURCES, Capacity, DefinitionError, load_capacity

RESOURCES_TEXT = """
version: 1
resources:
  cpu: {average: a, peak: b, capacity: 100}
  memory: {average: c}
  requests: {average: d, capacity: e}
"""


def load(folder: Path, text: str) -> Capacity:
    (folder / "capacity.yaml").write_text(text, encoding="utf-8")
    return load_capacity(folder)


def test_defaults_are_those_of_the_kit(tmp_path: Path) -> None:
    capacity = load(tmp_path, RESOURCES_TEXT)
    assert (capacity.history_days, capacity.horizon_days, capacity.series_per_shard) == (90, 30, 300)
    assert (capacity.replicas.minimum, capacity.replicas.maximum) == (1, 10)
    assert capacity.thresholds.memory.scale_up_above_percent == 80
    assert list(capacity.metrics) == list(RESOURCES)
    assert capacity.metrics["cpu"].capacity == 100.0
    assert capacity.metrics["memory"].capacity is None
    assert capacity.metrics["requests"].capacity == "e"


def test_the_shipped_file_is_good() -> None:
    capacity = load_capacity(Path(__file__).parents[4] / "include")
    assert capacity.chance_of_shortfall == 0.05
    assert capacity.keep_hourly_days == 120
    assert capacity.accuracy.horizons_days == (7, 30)
    assert all("by (service)" in metric.average for metric in capacity.metrics.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("history_days: 0\n", "history_days: 0 is not allowed"),
        ("chance_of_shortfall: 5\n", "chance_of_shortfall: 5 is not allowed"),
        ("replicas: {minimum: 3, maximum: 2}\n", "replicas: minimum 3 is above maximum 2"),
        (
            "thresholds: {cpu: {scale_up_above_percent: 30, scale_down_below_percent: 70}}\n",
            "thresholds.cpu: scale_down_below_percent 70 is not below scale_up_above_percent 30",
        ),
        ("accuracy: {horizons_days: [30, 7]}\n", "accuracy.horizons_days: [30, 7] are not days"),
        ("horizn_days: 3\n", "horizn_days: is not a known key"),
        ("prices: {cpu: -1}\n", "prices.cpu: -1 is not allowed"),
        ("keep_hourly_days: 40\n", "keep_hourly_days 40 is too few: "),
        ("horizon_days: 120\n", "which takes 134 days"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, RESOURCES_TEXT + text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", "True is no capacity"),
        ("0", "0 is no capacity"),
        (".inf", "inf is no capacity"),
        ("[1]", "[1] is no capacity"),
        ("' '", "the query is empty"),
    ],
)
def test_a_capacity_is_a_number_a_query_or_null(tmp_path: Path, value: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, RESOURCES_TEXT.replace("capacity: 100", f"capacity: {value}"))
    assert f"resources.cpu.capacity: {expected}" in str(caught.value)
