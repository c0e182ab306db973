"""The generated history: the same each time, and with all in it that a forecast has to cope with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fastvlm_ops.local.metrics_history import SERVICES, Service, read_back, write_history

END = datetime(2026, 6, 1, 10, 7, tzinfo=UTC)
DAY = 86_400
LAST = int(END.timestamp()) // 300 * 300


def of(name: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Days before the end, and values."""
    (service,) = (service for service in SERVICES if service.name == name)
    times, values = read_back(service, end=END, days=180, metric=metric)
    return (LAST - times) / DAY, values


def test_the_same_each_time(tmp_path: Path) -> None:
    digests = set()
    for seed in (1, 1, 2):
        write_history(tmp_path / "file", end=END, days=5, seed=seed)
        digests.add(hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest())
    assert len(digests) == 2


def test_is_open_metrics(tmp_path: Path) -> None:
    name = 'a"b\\c\nd'
    samples = write_history(tmp_path / "file", end=END, days=1, services=[Service(name, requests=1)])
    families = list(text_string_to_metric_families((tmp_path / "file").read_text()))
    assert {sample.labels["service"] for family in families for sample in family.samples} == {name}
    assert sum(len(family.samples) for family in families) == samples == 5 * 288
    assert {sample.name for family in families for sample in family.samples} == {
        "fastvlm_cpu_usage_percent",
        "fastvlm_memory_usage_percent",
        "fastvlm_requests_total",
        "fastvlm_request_capacity",
        "fastvlm_replicas",
    }
    times = [float(sample.timestamp) for sample in families[0].samples]
    assert times == [LAST - DAY + 300 * number for number in range(288)]


def test_services_come_and_go() -> None:
    before_end, _ = of("vlm-video", "fastvlm_replicas")
    assert (before_end[0], before_end[-1]) == (3, 300 / DAY)
    before_end, _ = of("vlm-legacy", "fastvlm_replicas")
    assert (before_end[0], round(before_end[-1], 2)) == (180, 20)
    before_end, _ = of("telemetry-gateway", "fastvlm_replicas")
    assert np.diff(before_end).min() == pytest.approx(-3 - 300 / DAY)


def test_use_grows_shifts_and_has_weeks() -> None:
    before_end, cpu = of("vlm-api", "fastvlm_cpu_usage_percent")
    capacity = of("vlm-api", "fastvlm_request_capacity")[1]
    use = cpu * capacity
    assert use[before_end <= 28].mean() > 1.4 * use[before_end > 152].mean()
    weekday = ((LAST - before_end * DAY) // DAY + 3) % 7
    assert cpu[weekday >= 5].mean() < 0.8 * cpu[weekday < 5].mean()
    before_end, cpu = of("vlm-text", "fastvlm_cpu_usage_percent")
    after, before = cpu[before_end <= 35].mean(), cpu[(before_end > 45) & (before_end <= 80)].mean()
    assert after > 1.5 * before


def test_counters_begin_again_and_percents_are_percents() -> None:
    _, total = of("vlm-api", "fastvlm_requests")
    steps = np.diff(total)
    assert (steps < 0).sum() == 8
    assert total.min() > 0
    assert np.array_equal(total, np.round(total))
    for service in SERVICES:
        for metric in ("fastvlm_cpu_usage_percent", "fastvlm_memory_usage_percent"):
            values = of(service.name, metric)[1]
            assert 0 < values.min() < values.max() <= 100


def test_refuses_a_naive_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no time zone"):
        write_history(tmp_path / "file", end=END.replace(tzinfo=None))
