"""How right a forecast was, and when forecasts have become worse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fastvlm_ops.core.capacity.levels import LEVELS
from fastvlm_ops.core.capacity.scoring import DriftRules, PastScore, drift, score, seasonal_scale

START = pd.Timestamp("2026-11-24", tz="UTC")
AS_OF = datetime(2026, 11, 24, tzinfo=UTC)


def frame(mean: np.ndarray, spread: float = 1.0) -> pd.DataFrame:
    index = pd.date_range(START, periods=len(mean), freq="h")
    columns = {"mean": mean} | {f"q{level:g}": mean + spread * norm.ppf(level) for level in LEVELS}
    return pd.DataFrame(columns, index=index)


def real(values: np.ndarray) -> pd.Series:
    return pd.Series(values, index=pd.date_range(START, periods=len(values), freq="h"))


# Scores.


def test_worked_out_by_hand() -> None:
    forecast = frame(np.array([10.0, 10.0, 10.0, 10.0]), spread=0)
    found = score(forecast, real(np.array([10.0, 12.0, 6.0, 10.0])), 2.0, required=20.0, resource="requests")
    assert found.mase == pytest.approx((0 + 2 + 4 + 0) / 4 / 2)
    assert found.pinball[0.95] == found.pinball95 == pytest.approx((0.95 * 2 + 0.05 * 4) / 4 / 2)
    assert found.pinball[0.5] == pytest.approx(found.mase / 2)
    assert set(found.pinball) == set(LEVELS)
    assert found.coverage95 == 0.75
    assert (found.shortfall, found.waste, found.hours_scored) == (False, pytest.approx(8 / 12), 4)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1))
def test_hours_without_data_are_not_scored(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    forecast, values = frame(generator.gamma(3, 4, 200)), generator.gamma(3, 4, 200)
    gaps = generator.random(200) < share
    holed = np.where(gaps, np.nan, values)
    found = score(forecast, real(holed), 3.0)
    assert found.hours_scored == (~gaps).sum()
    assert found == score(forecast, real(holed).dropna(), 3.0)  # a row that is missing is a gap too
    alone = score(forecast[~gaps], real(values)[~gaps], 3.0)
    assert (found.mase, found.coverage95) == (alone.mase, alone.coverage95)
    values[gaps] = 1e9
    assert score(forecast[~gaps], real(values), 3.0).mase == alone.mase


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e10))
def test_the_unit_makes_no_difference(seed: int, factor: float) -> None:
    generator = np.random.default_rng(seed)
    mean, values = generator.gamma(3, 4, 100), generator.gamma(3, 4, 100)
    one = score(frame(mean), real(values), 2.0, required=20.0)
    other = score(frame(mean * factor, factor), real(values * factor), 2.0 * factor, required=20.0 * factor)
    for name in ("mase", "pinball95", "coverage95", "waste"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6)
    assert other.shortfall == one.shortfall


def test_a_right_forecast_covers_95_percent() -> None:
    generator = np.random.default_rng(3)
    mean = generator.gamma(3, 4, 20_000)
    values, forecast = real(mean + 2 * generator.standard_normal(20_000)), frame(mean, 2.0)
    found = score(forecast, values, 1.0)
    assert found.coverage95 == pytest.approx(0.95, abs=0.005)
    for level in (0.25, 0.95):  # no other bound loses less than the right one
        for shift in (-0.5, 0.5):
            shifted = forecast.assign(**{f"q{level:g}": forecast[f"q{level:g}"] + shift})
            assert score(shifted, values, 1.0).pinball[level] > found.pinball[level]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "scale"),
    [(np.full(48, np.nan), 2.0), (np.empty(0), 2.0), (np.ones(48), None), (np.ones(48), 0.0)],
    ids=["gaps", "nothing", "no scale", "a scale of zero"],
)
def test_unknown_is_none(values: np.ndarray, scale: float | None) -> None:
    found = score(frame(np.ones(48)), real(values), scale, required=5.0)
    assert found.mase is None
    assert set(found.pinball.values()) == {None}
    if scale:
        assert (found.coverage95, found.shortfall, found.waste, found.hours_scored) == (None, None, None, 0)
    else:
        assert (found.coverage95, found.shortfall, found.waste) == (1.0, False, 4.0)


@pytest.mark.parametrize(
    ("required", "peak", "shortfall", "waste"),
    [
        (None, 10.0, None, None),
        (np.nan, 10.0, None, None),
        (9.9, 10.0, True, 0.0),
        (10.0, 10.0, False, 0.0),
        (15.0, 10.0, False, 0.5),
        (0.0, 0.0, False, 0.0),
        (5.0, 0.0, False, None),  # no share of nothing
    ],
)
def test_shortfall_and_waste(required: Any, peak: float, shortfall: Any, waste: Any) -> None:
    found = score(frame(np.zeros(48)), real(np.full(48, peak)), 1.0, required=required)
    assert (found.shortfall, found.waste) == (shortfall, waste)


def test_a_peak_is_not_told_from_less_than_half_of_the_hours() -> None:
    values = np.full(48, np.nan)
    values[:23] = 3
    assert score(frame(np.zeros(48)), real(values), 1.0, required=1.0).shortfall is None
    values[23] = 3
    assert score(frame(np.zeros(48)), real(values), 1.0, required=1.0).shortfall is True


def test_the_p95_counts_for_cpu_and_the_maximum_for_requests() -> None:
    values = np.ones(200)
    values[7] = 50
    for resource, shortfall in (("cpu", False), ("memory", False), ("requests", True)):
        found = score(frame(np.ones(200)), real(values), 1.0, required=2.0, resource=resource)  # type: ignore[arg-type]
        assert found.shortfall is shortfall


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"q0\.95"):
        score(frame(np.ones(5)).drop(columns="q0.95"), real(np.ones(5)), 1.0)
    twice = pd.concat([real(np.ones(5)), real(np.ones(2))])
    with pytest.raises(ValueError, match="twice"):
        score(frame(np.ones(5)), twice, 1.0)


# The scale.


def test_scale_is_the_error_of_the_week_before() -> None:
    week = np.random.default_rng(1).gamma(3, 4, 168)
    assert seasonal_scale(np.concatenate([week, week + 2, week])) == pytest.approx(2)
    gaps = np.concatenate([week, week + 2, np.full(168, np.nan)])
    assert seasonal_scale(gaps) == pytest.approx(2)


@pytest.mark.parametrize(
    "history",
    [np.empty(0), np.ones(168), np.ones(500), np.full(500, np.nan), np.tile(np.arange(168.0), 4)],
    ids=["nothing", "a week", "constant", "gaps", "repeats"],
)
def test_a_scale_that_cannot_be_told_is_none(history: np.ndarray) -> None:
    assert seasonal_scale(history) is None


# Drift.


def past(count: int, start: int = 0, **values: Any) -> list[PastScore]:
    row = {"mase": 1.0, "coverage95": 0.95, "shortfall": False} | values
    return [PastScore(AS_OF + timedelta(days=start + n), **row) for n in range(count)]


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({}, None),
        ({"coverage95": 0.89}, "95 % bound held 89.0%"),
        ({"coverage95": 0.999}, "wider"),
        ({"mase": 1.6}, "MASE is 1.60, and was 1.00"),
        ({"mase": 1.5}, None),
        ({"shortfall": True}, "14 of 14 fell short"),
    ],
)
def test_drift_is_told_with_its_reason(now: dict[str, Any], told: str | None) -> None:
    scores = past(30) + past(14, start=30, **now)
    found = drift(scores[::-1])
    assert found.alarm is (told is not None)
    assert told is None or told in found.reasons[0]


def test_too_few_scores_are_neither_alarm_nor_all_clear() -> None:
    assert drift([]).alarm is None
    assert drift(past(6, coverage95=0.2)).alarm is None
    assert drift(past(30, coverage95=None, mase=9.0)).alarm is None
    assert drift(past(7, coverage95=0.2)).alarm is True


def test_an_error_that_was_always_too_great_is_told_where_a_limit_is_set() -> None:
    scores = past(44, mase=2.5)
    assert drift(scores).alarm is False
    assert drift(scores, DriftRules(mase_most=2.0)).reasons == ("MASE is 2.50, above 2",)


def test_one_bad_day_is_no_drift() -> None:
    scores = past(43) + past(1, start=43, mase=50.0, coverage95=0.5, shortfall=True)
    assert drift(scores).alarm is False
    assert drift(scores, DriftRules(recent=1, fewest=1)).alarm is True
