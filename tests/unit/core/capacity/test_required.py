"""What a forecast needs: by the kit's rule, by the chance of falling short, and when the capacity ends."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import expon, norm

from fastvlm_ops.core.capacity.distribution import chances_above, quantile_at
from fastvlm_ops.core.capacity.exhaustion import daily_chances
from fastvlm_ops.core.capacity.levels import LEVELS
from fastvlm_ops.core.capacity.recommending import Recommendation
from fastvlm_ops.core.capacity.required import (
    Required,
    required_capacity,
    requirements,
)
from fastvlm_ops.core.config.capacity import RESOURCES
from tests.unit.core.capacity.made import HOURS, Z, made, unknown

AS_OF = datetime(2026, 11, 24, tzinfo=UTC)
LOW = np.ones(90 * 24)


def required(history: np.ndarray, forecast: Any, resource: Any = "cpu", **options: Any) -> Required:
    return required_capacity(
        history, forecast, resource, **({"chance_of_shortfall": 0.05, "capacity": None} | options)
    )


# The kit's own rule.


@pytest.mark.parametrize(("resource", "factor"), [("cpu", 1.2), ("memory", 1.2), ("requests", 1.5)])
def test_seed_rule_to_the_letter(resource: str, factor: float) -> None:
    mean = np.random.default_rng(1).gamma(4, 10, HOURS)
    need = required(np.arange(2160.0), made(mean), resource)
    peak = mean.max() if resource == "requests" else np.quantile(mean, 0.95)
    assert need.forecasted_peak == pytest.approx(peak, rel=1e-12)
    assert need.required_seed == pytest.approx(peak * factor, rel=1e-12)
    assert need.current_usage == 2159


def test_current_usage_is_the_newest_hour_there_is() -> None:
    assert required(np.array([3.0, 7.0, np.nan, np.nan]), made(5)).current_usage == 7


def test_shape_of_the_seed() -> None:
    needs = {name: required(LOW, made(10), name) for name in RESOURCES}
    decision = Recommendation("kit", AS_OF, "scale_up", 1, 2, "CPU at 80 %", trigger="cpu")
    shape = json.loads(
        json.dumps(requirements(needs, horizon_days=30, recommendations=(decision,)), allow_nan=False)
    )
    assert shape == {
        "forecast_period_days": 30,
        "cpu_requirements": {"current_usage": 1, "forecasted_peak": 10, "recommended_capacity": 12},
        "memory_requirements": {"current_usage": 1, "forecasted_peak": 10, "recommended_capacity": 12},
        "request_requirements": {"current_usage": 1, "forecasted_peak": 10, "recommended_capacity": 15},
        "scaling_recommendations": [
            {
                "service": "kit",
                "action": "scale_up",
                "reasoning": "CPU at 80 %",
                "parameters": {"target_replicas": 2, "trigger_metric": "cpu"},
            }
        ],
    }
    nothing = requirements({}, horizon_days=7)["cpu_requirements"]
    assert set(nothing.values()) == {None}


# The chance of falling short.


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("chance", [0.3, 0.05, 0.01, 0.001])
def test_falls_short_as_often_as_was_set_where_the_forecast_is_right(resource: Any, chance: float) -> None:
    need = required(LOW, made(50.0, spread=4), resource, chance_of_shortfall=chance)
    real = norm.sf((need.required_risk - 50) / 4)  # type: ignore[operator]
    assert 0.5 * chance < real < 1.001 * chance  # beyond the levels it errs on the safe side


def test_requests_go_by_the_maximum_and_the_others_by_the_peak() -> None:
    forecast = replace(made(20.0), maximum=np.asarray(made(20.0).maximum) * 3)
    plain = required(LOW, made(20.0)).required_risk
    assert required(LOW, forecast, "memory").required_risk == plain
    assert required(LOW, forecast, "requests").required_risk == pytest.approx(3 * plain)  # type: ignore[operator]


def test_zero_needs_zero() -> None:
    need = required(np.zeros(2160), made(0.0, spread=0), "requests", capacity=10)
    assert need.required_seed == need.required_risk == need.exhaustion_probability == 0
    assert need.exhaustion_date is None


@pytest.mark.parametrize("history", [np.full(2160, np.nan), np.empty(0)], ids=["gaps", "nothing"])
def test_unknown_is_none_and_never_zero(history: np.ndarray) -> None:
    need = required(history, unknown(), capacity=10, price_per_unit_month=3)
    assert need == Required(None, None, None, None, None, None, None)


def test_a_forecast_that_is_unknown_is_not_made_up_from_history() -> None:
    need = required(np.full(2160, 30.0), unknown(status="failed"), capacity=100)
    assert (need.current_usage, need.required_seed, need.required_risk) == (30, None, None)


def test_cost_where_there_is_a_price() -> None:
    need = required(LOW, made(10.0, spread=0), price_per_unit_month=2.5)
    assert need.monthly_cost == pytest.approx(25)
    assert required(LOW, made(10.0)).monthly_cost is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resource": "disk"}, "disk"),
        ({"chance_of_shortfall": 0}, "chance_of_shortfall"),
        ({"chance_of_shortfall": 1.0}, "chance_of_shortfall"),
        ({"capacity": 5, "as_of": datetime(2026, 1, 1)}, "time zone"),
    ],
)
def test_what_cannot_be_right_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        required(LOW, made(1.0), **options)


@given(
    st.floats(1e-6, 1e10),
    st.sampled_from(RESOURCES),
    st.integers(0, 2**32 - 1),
    st.floats(0.005, 0.5),
)
def test_the_unit_makes_no_difference(factor: float, resource: Any, seed: int, chance: float) -> None:
    generator = np.random.default_rng(seed)
    history, mean = generator.gamma(2, 3, 900), generator.gamma(2, 3, HOURS)
    history[generator.random(900) < 0.3] = np.nan

    def need(by: float) -> Required:
        forecast = made(mean * by, spread=by)
        return required(history * by, forecast, resource, chance_of_shortfall=chance, capacity=12 * by)

    one, other = need(1.0), need(factor)
    for name in ("current_usage", "forecasted_peak", "required_seed", "required_risk"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) * factor, rel=1e-6)
    assert other.exhaustion_probability == pytest.approx(one.exhaustion_probability, abs=1e-6)


@given(st.floats(0.001, 0.9), st.floats(0.001, 0.9), st.integers(0, 2**32 - 1))
def test_a_smaller_chance_needs_no_less(one: float, other: float, seed: int) -> None:
    history = np.random.default_rng(seed).gamma(2, 3, 1500)
    smaller, greater = (
        required(history, made(5.0), chance_of_shortfall=chance).required_risk
        for chance in sorted((one, other))
    )
    assert smaller >= greater  # type: ignore[operator]


# Peaks of history.


# Distributions.


@given(st.floats(0.0001, 0.9999), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_a_quantile_is_exceeded_as_often_as_its_level_says(
    level: float, middle: float, spread: float
) -> None:
    quantiles = middle + spread * Z
    value = quantile_at(quantiles, level)
    assert value is not None
    assert chances_above(quantiles[:, None], value)[0] == pytest.approx(1 - level, abs=1e-6)


def test_beyond_the_levels_the_tail_of_an_exponential_is_exact() -> None:
    quantiles = expon.ppf(LEVELS)
    for level in (0.995, 0.9999):
        assert quantile_at(quantiles, level) == pytest.approx(expon.ppf(level), rel=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=len(LEVELS), max_size=len(LEVELS)))
def test_chances_are_shares_and_fall_with_the_limit(values: list[float]) -> None:
    column = np.array(values)[:, None]
    chances = [chances_above(column, limit)[0] for limit in np.linspace(-2e6, 2e6, 41)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(chances))


@pytest.mark.parametrize("level", [0, 1, -0.1, 95])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        quantile_at(Z, level)


# Exhaustion.


def growing(per_day: float, **options: Any) -> Any:
    line = 50 + per_day * np.arange(HOURS) / 24
    return made(line, spread=3, trend_per_day=per_day, **options)


def test_a_significant_rise_gives_a_date() -> None:
    need = required(LOW, growing(2.0, trend_is_significant=True), capacity=81, as_of=AS_OF)
    assert need.exhaustion_date == date(2026, 11, 24) + timedelta(days=15)
    assert need.exhaustion_probability > 0.99  # type: ignore[operator]


def test_the_date_is_of_utc() -> None:
    forecast = growing(2.0, trend_is_significant=True)
    there = AS_OF.astimezone(timezone(timedelta(hours=-5)))
    assert (
        required(LOW, forecast, capacity=81, as_of=there).exhaustion_date
        == required(LOW, forecast, capacity=81, as_of=AS_OF).exhaustion_date
    )


@pytest.mark.parametrize(
    "forecast",
    [
        growing(2.0, trend_is_significant=False),
        made(np.linspace(200, 10, HOURS), trend_per_day=-6, trend_is_significant=True),
    ],
    ids=["not significant", "falling"],
)
def test_without_a_significant_rise_there_is_a_chance_and_no_date(forecast: Any) -> None:
    need = required(LOW, forecast, capacity=81, as_of=AS_OF)
    assert need.exhaustion_probability > 0.9  # type: ignore[operator]
    assert need.exhaustion_date is None


def test_a_capacity_that_is_far_away_or_unknown() -> None:
    forecast = growing(0.1, trend_is_significant=True)
    far = required(LOW, forecast, capacity=500, as_of=AS_OF)
    assert far.exhaustion_date is None
    assert far.exhaustion_probability < 1e-6  # type: ignore[operator]
    for capacity in (None, math.nan, math.inf):
        need = required(LOW, forecast, capacity=capacity, as_of=AS_OF)
        assert (need.exhaustion_probability, need.exhaustion_date) == (None, None)


def test_chances_of_days_are_those_of_their_peaks() -> None:
    forecast = made(np.repeat([10.0, 20.0], 24), spread=2, hours=48)
    chances = daily_chances(forecast.quantiles, "cpu", 20.0)
    assert chances == pytest.approx([0, 0.5], abs=1e-3)
    with pytest.raises(ValueError, match="shape"):
        daily_chances(forecast.quantiles.T, "cpu", 20.0)
