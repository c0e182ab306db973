"""The hook against a real Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from fastvlm_ops.core.prometheus.errors import PrometheusError, PrometheusQueryError
from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.local.metrics_history import read_back
from tests.integration.prometheus.conftest import MINUTES, STRANGE, MakeHook, Rig

pytestmark = pytest.mark.integration

CPU = "avg by (service) (avg_over_time(fastvlm_cpu_usage_percent[1h]))"
REQUESTS = "sum by (service) (rate(fastvlm_requests_total[1h]))"


def expected_hours(rig: Rig, name: str, metric: str) -> pd.Series:
    """The mean of each hour, from what was generated."""
    (service,) = (service for service in rig.services if service.name == name)
    times, values = read_back(service, end=rig.end, days=95, metric=metric)
    samples = pd.Series(values, pd.to_datetime(times, unit="s", utc=True))
    hours = pd.date_range(rig.start, rig.end, freq="h", inclusive="left")
    return samples.groupby(samples.index.floor("h")).mean().reindex(hours)


def test_an_hour_is_what_was_measured_in_it(rig: Rig, hook: PrometheusHook) -> None:
    found = hook.hourly(CPU, rig.start, rig.end)
    assert list(found.columns) == ["vlm-api", "vlm-legacy", "vlm-video"]
    assert found.index.equals(pd.date_range(rig.start, rig.end, freq="h", inclusive="left"))
    for name in found.columns:
        expected = expected_hours(rig, name, "fastvlm_cpu_usage_percent")
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert found["vlm-legacy"].dropna().index[-1] == pd.Timestamp(rig.end - timedelta(days=20, hours=1))
    assert found["vlm-video"].dropna().index[0] == pd.Timestamp(rig.end - timedelta(days=3))


def test_a_counter_that_begins_again_gives_no_negative_rate(rig: Rig, hook: PrometheusHook) -> None:
    found = hook.hourly(REQUESTS, rig.start, rig.end)["vlm-api"]
    (service,) = (service for service in rig.services if service.name == "vlm-api")
    _, total = read_back(service, end=rig.end, days=95, metric="fastvlm_requests")
    assert (np.diff(total) < 0).sum() >= 4
    assert found.notna().all()
    assert found.min() > 0
    assert found.max() < 4 * found.median()


def test_nothing_of_the_end_or_later_is_seen(rig: Rig, hook: PrometheusHook) -> None:
    hour = timedelta(hours=1)
    query = "max by (service) (max_over_time(edge[1h]))"
    assert list(hook.hourly(query, rig.end - hour, rig.end)["a"]) == [1]
    assert list(hook.hourly(query, rig.end - hour, rig.end + hour)["a"]) == [1, 1000]


def test_90_days_by_the_minute(rig: Rig, hook: PrometheusHook) -> None:
    (found,) = hook.query_range("minute", rig.start, rig.end, 60)
    first = int(rig.start.timestamp()) * 1000
    assert len(found.times_ms) == MINUTES + 1 == 129_601
    np.testing.assert_array_equal(found.times_ms, first + 60_000 * np.arange(MINUTES + 1))
    np.testing.assert_array_equal(found.values, np.arange(MINUTES + 1))


def test_times_in_another_zone_are_the_same_times(rig: Rig, hook: PrometheusHook) -> None:
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    start = rig.end - timedelta(days=2)
    here = hook.hourly(CPU, start, rig.end)
    there = hook.hourly(CPU, start.astimezone(kathmandu), rig.end.astimezone(kathmandu))
    pd.testing.assert_frame_equal(here, there)
    assert str(there.index.tz) == "UTC"


def test_days_of_23_and_25_hours(rig: Rig, hook: PrometheusHook) -> None:
    from zoneinfo import ZoneInfo

    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2025, 10, 26, tzinfo=berlin)  # a day of 25 hours, of which there is no data
    found = hook.hourly(CPU, start, datetime(2025, 10, 27, tzinfo=berlin))
    assert len(found) == 25
    assert found.empty


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("start", lambda hook, naive, aware: hook.hourly(CPU, naive, aware)),
        ("end", lambda hook, naive, aware: hook.query_range(CPU, aware, naive, 60)),
        ("at", lambda hook, naive, _: hook.instant("up", naive)),
    ],
)
def test_naive_times_are_refused(
    rig: Rig, hook: PrometheusHook, name: str, ask: Callable[[PrometheusHook, datetime, datetime], object]
) -> None:
    with pytest.raises(PrometheusQueryError, match=rf"{name} is .*, which names no time zone"):
        ask(hook, rig.end.replace(tzinfo=None), rig.end)


def test_hours_begin_on_the_hour(rig: Rig, hook: PrometheusHook) -> None:
    with pytest.raises(PrometheusQueryError, match="end is not on a full hour of UTC"):
        hook.hourly(CPU, rig.start, rig.end + timedelta(minutes=30))
    with pytest.raises(PrometheusQueryError, match="end is not after start"):
        hook.hourly(CPU, rig.end, rig.end)


def test_any_label_value_can_be_asked_for(rig: Rig, hook: PrometheusHook) -> None:
    selector = f"odd{{{hook.label_matcher('service', STRANGE)}}}"
    at = rig.end - timedelta(seconds=300)
    (found,) = hook.instant(selector, at)
    assert (found.labels["service"], list(found.values)) == (STRANGE, [5])
    frame = hook.hourly(f"max by (service) ({selector})", rig.end - timedelta(hours=1), rig.end)
    assert list(frame.columns) == [STRANGE]
    assert hook.instant(f"odd{{{hook.label_matcher('service', 'other')}}}", at) == []


def test_what_is_no_number_is_no_value(rig: Rig, hook: PrometheusHook) -> None:
    (found,) = hook.query_range("odd", rig.end - timedelta(minutes=25), rig.end - timedelta(minutes=5), 300)
    np.testing.assert_array_equal(found.values, [1, np.nan, np.nan, np.nan, 5])


def test_replicas_are_one_service(rig: Rig, hook: PrometheusHook) -> None:
    found = hook.hourly("last_over_time(twin[1h])", rig.end - timedelta(days=1), rig.end)
    assert list(found["a"]) == list(range(24))


def test_what_was_not_aggregated_is_refused(rig: Rig, hook: PrometheusHook) -> None:
    with pytest.raises(PrometheusQueryError, match="without the label 'service'"):
        hook.hourly("minute", rig.start, rig.end)


def test_no_series_is_no_error(rig: Rig, hook: PrometheusHook) -> None:
    assert hook.hourly("absent_metric", rig.start, rig.end).shape == (90 * 24, 0)
    assert hook.query_range("absent_metric", rig.start, rig.end, 3600) == []
    assert hook.instant("absent_metric", rig.end) == []


def test_a_scalar_is_a_series_without_labels(rig: Rig, hook: PrometheusHook) -> None:
    (found,) = hook.instant("scalar(vector(7))", rig.end)
    assert (dict(found.labels), list(found.values)) == ({}, [7])


@pytest.mark.parametrize("query", ["avg by (service", "rate(edge)", ""])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_wrong_query_is_told_at_once(rig: Rig, make_hook: MakeHook, query: str, method: str) -> None:
    hook = make_hook(rig.server.url, extra={"method": method})
    with pytest.raises(PrometheusQueryError) as caught:
        hook.hourly(query, rig.start, rig.end)
    assert "parse error" in str(caught.value) or "the query is empty" in str(caught.value)
    assert caught.value.retryable is False


def test_a_query_may_be_long(rig: Rig, hook: PrometheusHook) -> None:
    query = f'edge{{service!="{"x" * 200_000}"}}'
    (found,) = hook.instant(query, rig.end)
    assert list(found.values) == [1000]


def test_the_test_button(rig: Rig, make_hook: MakeHook) -> None:
    url = rig.server.url
    assert make_hook(url).test_connection() == (True, f"{url} answers queries.")
    good, said = make_hook(f"{url}/wrong/path").test_connection()
    assert not good
    assert "404" in said


def test_asking_again_gives_the_same(rig: Rig, hook: PrometheusHook) -> None:
    frames = [hook.hourly(CPU, rig.start, rig.end) for _ in range(2)]
    pd.testing.assert_frame_equal(*frames)


def test_all_errors_are_one_family() -> None:
    from fastvlm_ops.core.prometheus import errors

    found = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    assert len(found) >= 6
    assert all(issubclass(cls, PrometheusError) for cls in found)


def test_now_is_an_aware_time_too(hook: PrometheusHook) -> None:
    (found,) = hook.instant("vector(1)", datetime.now(UTC))
    assert list(found.values) == [1]
