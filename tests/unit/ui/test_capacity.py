"""What the pages of capacity read from the operations database, and draw of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables.capacity import forecasts, recommendations, scores
from fastvlm_ops.ui.capacity.data import (
    OFFERED_HOURS,
    SCORED_HOURS,
    SHOWN_SCORES,
    Days,
    Need,
    read_accuracy,
    read_overview,
    read_scores,
    read_service,
)
from fastvlm_ops.ui.capacity.pictures import accuracy_pictures, forecast_picture

AS_OF = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as store:
        yield store


def forecast(service: str, metric: str = "cpu", as_of: datetime = AS_OF, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"as_of": as_of, "service": service, "metric": metric, "status": "ok", "reason": ""}
    row |= {"model": "m", "horizon_days": 30, "run_key": "capacity_forecast/r", "artefact_uri": "s3://b/k"}
    row |= {"current_usage": 40.0, "forecasted_peak": 50.0, "required_seed": 60.0, "required_risk": 65.0}
    row |= {"capacity": 100.0, "exhaustion_probability": 0.01, "exhaustion_date": None, "monthly_cost": None}
    return row | {"trend_per_day": 0.1, "history_days": 90.0} | changes


def advice(service: str, action: str = "none", as_of: datetime = AS_OF, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"as_of": as_of, "service": service, "action": action, "replicas_now": 2}
    row |= {"replicas_wanted": 2, "replicas_needed": 2, "capped": False, "trigger_metric": "", "reason": "…"}
    return row | {"applied_state": "planned", "run_key": "capacity_forecast/r"} | changes


def scored(as_of: datetime, service: str = "a", days: int = 7, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"as_of": as_of, "service": service, "metric": "cpu", "horizon_days": days}
    row |= {"mase": 1.0, "pinball95": 0.3, "coverage95": 0.95, "shortfall": False, "waste": 0.2}
    return row | {"hours_scored": 168, "scored_at": as_of + 8 * DAY} | changes


def fill(store: Store, table: Any, *rows: dict[str, Any]) -> None:
    with store.write() as connection:
        connection.execute(insert(table), list(rows))


# The list.


def test_what_is_most_urgent_comes_first(store: Store) -> None:
    fill(
        store,
        forecasts,
        *(forecast(name) for name in ("calm", "up", "down", "gone", "capped", "unjudged")),
        forecast("filling", exhaustion_probability=0.7),
    )
    fill(
        store,
        recommendations,
        advice("calm"),
        advice("up", "scale_up"),
        advice("down", "scale_down"),
        advice("gone", "stale"),
        advice("capped", "none", capped=True),
        advice("filling"),
        advice("only-said", "insufficient_data"),
    )
    overview = read_overview(store, None)
    names = [one.service for one in overview.services]
    assert names == ["capped", "up", "filling", "gone", "only-said", "unjudged", "down", "calm"]
    counts = overview.count("scale_up"), overview.capped, overview.exhausting, overview.unknown
    assert counts == (1, 1, 1, 8)  # nobody's memory and requests are known


def test_only_the_chosen_hour_is_shown_and_the_newest_by_itself(store: Store) -> None:
    rows = [forecast("a", as_of=AS_OF - n * DAY, required_risk=float(n)) for n in range(OFFERED_HOURS + 5)]
    fill(store, forecasts, *rows, forecast("gone", as_of=AS_OF - DAY))
    newest, earlier = read_overview(store, None), read_overview(store, AS_OF - DAY)
    assert (newest.as_of, len(newest.hours), [one.service for one in newest.services]) == (
        AS_OF,
        OFFERED_HOURS,
        ["a"],
    )
    assert [one.service for one in earlier.services] == ["a", "gone"]
    assert earlier.services[0].needs["cpu"].required_risk == 1
    nothing = read_overview(store, AS_OF + DAY)
    assert (nothing.services, len(nothing.hours)) == ([], OFFERED_HOURS)
    found, hours = read_service(store, "gone", None)
    assert found is not None
    assert (found.needs["cpu"].as_of, hours) == (AS_OF - DAY, [AS_OF - DAY])
    assert read_service(store, "gone", AS_OF)[0] is None
    assert read_service(store, "never", None) == (None, [])


def test_nothing_at_all(store: Store) -> None:
    overview = read_overview(store, None)
    assert (overview.as_of, overview.hours, overview.services) == (None, [], [])
    assert read_accuracy(store, "cpu", None) == ([], [])


def test_unknown_stays_unknown(store: Store) -> None:
    unknown = {"required_risk": None, "exhaustion_probability": None}
    fill(
        store,
        forecasts,
        forecast("a", monthly_cost=3.0, **unknown),
        forecast("a", "memory", monthly_cost=None),
        forecast("b", monthly_cost=3.0, capacity=None),
        forecast("b", "memory", monthly_cost=4.0, exhaustion_date=date(2026, 12, 9)),
    )
    a, b = read_overview(store, None).services
    assert (a.monthly_cost, b.monthly_cost) == (None, 7.0)
    assert (a.needs["cpu"].of_capacity, a.needs["cpu"].is_short) == (None, None)
    assert (b.needs["cpu"].of_capacity, b.needs["memory"].of_capacity) == (None, 0.65)
    assert (a.exhaustion_probability, a.exhaustion_date) == (0.01, None)
    assert b.exhaustion_date == date(2026, 12, 9)
    assert Need(forecast("c", required_risk=101.0)).is_short is True
    with pytest.raises(AttributeError):
        _ = b.needs["cpu"].no_such_column


# Scores.


def test_scores_are_joined_by_hour(store: Store) -> None:
    fill(
        store,
        scores,
        scored(AS_OF, "a", mase=1.0, coverage95=0.9, shortfall=True, waste=0.0),
        scored(AS_OF, "b", mase=2.0, coverage95=1.0, waste=0.4),
        scored(AS_OF, "c", mase=None, coverage95=None, shortfall=None, waste=None),
        scored(AS_OF - DAY, "a", mase=3.0),
        scored(AS_OF - 2 * DAY, "a", mase=None, coverage95=None, shortfall=None, waste=None),
        scored(AS_OF, "a", days=30),
    )
    joined, horizons = read_accuracy(store, "cpu", None)
    assert horizons == [7, 30]
    assert [one.as_of for one in joined] == [AS_OF - 2 * DAY, AS_OF - DAY, AS_OF]
    nothing, single, several = joined
    assert (nothing.mase, nothing.coverage95, nothing.shortfall, nothing.waste) == (None, None, None, None)
    assert single.mase == (3.0, 3.0, 3.0)
    assert several.mase == (1.25, 1.5, 1.75)
    assert (several.coverage95, several.shortfall, several.waste) == (0.95, 0.5, 0.2)
    assert several.series == 3
    assert [one.series for one in read_accuracy(store, "cpu", 30)[0]] == [1]
    assert read_accuracy(store, "memory", 7) == ([], [7, 30])


def test_only_the_newest_scores_are_read(store: Store) -> None:
    fill(store, scores, *(scored(AS_OF - n * DAY) for n in range(SCORED_HOURS + 3)))
    joined, _ = read_accuracy(store, "cpu", 7)
    assert (len(joined), joined[-1].as_of) == (SCORED_HOURS, AS_OF)
    found = read_scores(store, "a", "cpu")
    assert (len(found), found[0]["as_of"]) == (SHOWN_SCORES, AS_OF)


def test_pictures_of_scores_with_and_without_anything_known(store: Store) -> None:
    empty = {"mase": None, "coverage95": None, "shortfall": None, "waste": None}
    fill(store, scores, scored(AS_OF - DAY, **empty), scored(AS_OF, coverage95=0.5))
    known = accuracy_pictures(read_accuracy(store, "cpu", 7)[0], 0.05)
    assert [picture.name for picture in known] == ["mase", "coverage", "shortfall", "waste"]
    assert known[1].ticks[0].value <= 0.5  # a bound that held little is not cut off
    assert "last 50 %" in known[1].summary
    assert [rule.text for rule in known[2].rules] == ["allowed 5 %"]
    fill(store, scores, scored(AS_OF, "z", days=3, **empty))
    unknown = accuracy_pictures(read_accuracy(store, "cpu", 3)[0], None)
    assert all(picture.summary.endswith("nothing is known.") for picture in unknown)
    assert unknown[2].rules == ()
    assert all(line.path == "" for picture in unknown for line in picture.lines)


# A forecast.


def test_a_picture_of_a_forecast_says_what_is_known(store: Store) -> None:
    history = Days(
        [date(2026, 11, 22), date(2026, 11, 23)], {key: [1.0, None] for key in ("mean", "p95", "max")}
    )
    ahead = Days([date(2026, 11, 24)], {key: [2.0] for key in ("mean", "q0.5", "q0.95", "q0.99", "max")})
    row = forecast("a", capacity=None, required_risk=3.0, exhaustion_date=date(2026, 12, 1))
    picture = forecast_picture(Need(row), history, ahead)
    assert [rule.text for rule in picture.rules] == ["required (rule) 60 % ↑", "required (risk) 3 %"]
    assert [mark.event.title for mark in picture.marks] == ["forecast made", "used up on 01 Dec"]
    assert "capacity unknown" in picture.summary
    assert "forecast until 2026-12-24" in picture.summary


def test_a_series_without_a_forecast_has_a_picture_of_nothing() -> None:
    nothing = {"required_seed": None, "required_risk": None, "capacity": None, "trend_per_day": None}
    empty = {name: [] for name in ("mean", "p95", "max", "q0.5", "q0.95", "q0.99")}
    picture = forecast_picture(Need(forecast("a", **nothing)), Days([], empty), Days([], empty))
    assert picture.rules == ()
    assert all(shape.path == "" for shape in (*picture.areas, *picture.lines))
    assert "required by risk unknown" in picture.summary
