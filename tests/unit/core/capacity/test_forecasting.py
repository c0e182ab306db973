"""Forecasts of all kinds of histories: what they must give, whatever the accuracy."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from fastvlm_ops.core.capacity import LEVELS, SeriesForecast, forecast, forecast_many
from fastvlm_ops.core.capacity import forecasting as module
from tests.unit.core.capacity.series import DAY, START, WEEK, as_series, loads

HORIZON = 30 * DAY


def one(values: np.ndarray, horizon: int = HORIZON) -> SeriesForecast:
    return forecast_many(values[None, :], horizon)[0]


def in_bytes(found: SeriesForecast) -> bytes:
    return b"".join(part.tobytes() for part in (found.mean, found.quantiles, found.peak, found.maximum))


def all_finite(found: SeriesForecast) -> bool:
    return bool(np.isfinite(np.frombuffer(in_bytes(found))).all())


# -- shape -----------------------------------------------------------------------------------------


def test_the_callable_gives_the_next_hours_with_ordered_quantiles() -> None:
    found = forecast(as_series(loads(60)), 48)
    assert list(found.columns) == ["mean", *(f"q{level:g}" for level in LEVELS)]
    assert found.index[0] == START + pd.Timedelta(days=60)
    assert len(found) == 48
    assert str(found.index.tz) == "UTC"
    assert (np.diff(found.drop(columns="mean").to_numpy(), axis=1) >= 0).all()


def test_a_regular_load_is_forecast_closely() -> None:
    values = loads(120, noise=1.0)
    found = one(values[: 90 * DAY])
    assert np.abs(found.mean - values[90 * DAY :]).mean() < 1.2  # noise alone gives 0.8
    assert found.status == "ok"
    covered = (values[90 * DAY :] <= found.quantiles[LEVELS.index(0.95)]).mean()
    assert 0.90 <= covered <= 0.995


@pytest.mark.parametrize("horizon", [1, 5, 24, 168, 720, 1500])
def test_any_horizon(horizon: int) -> None:
    found = one(loads(60), horizon)
    assert found.mean.shape == (horizon,)
    assert found.quantiles.shape == (len(LEVELS), horizon)
    assert all_finite(found)


def test_what_is_never_negative_is_not_forecast_negative() -> None:
    values = np.maximum(loads(60, level=2, noise=60), 0)
    found = one(values)
    assert found.quantiles.min() >= 0
    assert found.peak.min() >= 0


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="series x hours"):
        forecast_many(loads(30), 24)
    with pytest.raises(ValueError, match="at least 1 hour"):
        forecast_many(loads(30)[None, :], 0)


# -- little or no data -----------------------------------------------------------------------------


def test_no_series_at_all() -> None:
    assert forecast_many(np.empty((0, 24)), HORIZON) == []


@pytest.mark.parametrize("hours", [0, 24, 2160])
def test_no_data_is_unknown_and_not_zero(hours: int) -> None:
    found = one(np.full(hours, np.nan))
    assert found.status == "no_data"
    assert np.isnan(found.mean).all()
    assert np.isnan(found.peak).all()
    assert found.history_days == 0


def test_a_history_of_gaps_gives_a_table_of_gaps() -> None:
    assert forecast(as_series(np.full(48, np.nan)), 24).isna().all(axis=None)


@pytest.mark.parametrize(
    ("hours", "status"),
    [(3, "short"), (24, "short"), (36, "short"), (72, "short"), (312, "short"), (336, "ok"), (672, "ok")],
)
def test_short_histories_fall_back(hours: int, status: str) -> None:
    values = loads(40)[:hours]
    found = one(values)
    assert found.status == status
    assert bool(found.reason) == (status == "short")
    assert all_finite(found)
    assert values.min() - 30 < found.mean.min() <= found.mean.max() < values.max() + 30


def test_one_day_has_wide_bounds() -> None:
    values = loads(60)
    width = [found.quantiles[6] - found.quantiles[3] for found in (one(values[-24:]), one(values))]
    assert width[0].mean() > 1.5 * width[1].mean()


def test_a_new_service_among_old_ones_is_forecast_as_if_alone() -> None:
    values = np.stack([loads(90), loads(90, seed=1)])
    values[1, : 87 * DAY] = np.nan
    found = forecast_many(values, HORIZON)
    assert [row.status for row in found] == ["ok", "short"]
    assert in_bytes(found[1]) == in_bytes(one(values[1, 87 * DAY :]))


def test_a_deleted_service_is_stale() -> None:
    values = loads(90)
    values[-20 * DAY :] = np.nan
    found = one(values)
    assert found.status == "stale"
    assert "480 hours" in found.reason


# -- gaps ------------------------------------------------------------------------------------------


def gaps(kind: str) -> np.ndarray:
    values = loads(60)
    if kind == "an hour":
        values[700] = np.nan
    elif kind == "three days":
        values[-10 * DAY : -7 * DAY] = np.nan
    elif kind == "the last three days":
        values[-3 * DAY :] = np.nan
    else:
        values[np.random.default_rng(5).random(len(values)) < 0.4] = np.nan
    return values


@pytest.mark.parametrize("kind", ["an hour", "three days", "the last three days", "two hours in five"])
def test_gaps_are_not_read_as_zero(kind: str) -> None:
    found, whole = one(gaps(kind)), one(loads(60))
    assert all_finite(found)
    assert found.status == "ok"
    assert np.abs(found.mean - whole.mean).mean() < 2.0
    assert found.quantiles[0].min() > 10
    assert any("missing" in note for note in found.notes)


def test_missing_rows_are_the_same_as_nan() -> None:
    series = as_series(gaps("two hours in five"))
    series.iloc[[0, -1]] = 40.0  # so that both begin and end at the same hour
    pd.testing.assert_frame_equal(forecast(series, 48), forecast(series.dropna(), 48))


# -- values that break models ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [5.0, 0.0, -3.25, 0.1, 1e10])
@pytest.mark.parametrize("days", [1, 10, 90])
def test_a_constant_is_forecast_exactly(value: float, days: int) -> None:
    values = np.full(days * DAY, value)
    values[5] = np.nan
    found = one(values)
    for part in (found.mean, found.quantiles, found.peak, found.maximum):
        assert (part == value).all()
    assert not found.trend_is_significant


def test_one_freak_value_hardly_moves_the_forecast() -> None:
    values = loads(90)
    before = one(values)
    values[-200] *= 1000
    after = one(values)
    for part in (0, 1):
        p95 = [np.quantile((found.mean, found.quantiles[6])[part], 0.95) for found in (before, after)]
        assert p95[1] == pytest.approx(p95[0], rel=0.05)
    assert any("freak" in note for note in after.notes)
    assert not any("freak" in note for note in before.notes)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_jump_four_days_ago_is_followed(factor: float) -> None:
    values = loads(90)
    wanted = values[-WEEK:].mean() * factor
    values[-4 * DAY :] *= factor
    found = one(values)
    assert found.mean[:WEEK].mean() == pytest.approx(wanted, rel=0.10)
    assert any("jumped 4 days ago" in note for note in found.notes)


def test_the_season_is_no_jump() -> None:
    for seed in range(10):
        assert not any("jumped" in note for note in one(loads(90, seed=seed)).notes)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e10])
def test_units_do_not_matter(scale: float) -> None:
    values = loads(90)
    found, scaled = one(values), one(values * scale)
    for name in ("mean", "quantiles", "peak", "maximum", "trend_per_day"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(found, name) * scale, rtol=1e-6)


def test_a_steady_growth_is_found_and_noise_is_none() -> None:
    growing = loads(90) + 0.5 * np.arange(90 * DAY) / DAY
    found = one(growing)
    assert found.trend_is_significant
    assert found.trend_per_day == pytest.approx(0.5, rel=0.15)
    assert found.mean.mean() > growing[-WEEK:].mean()
    false = sum(one(loads(90, seed=seed)).trend_is_significant for seed in range(20))
    assert false <= 3


# -- independence ----------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes_whatever_stands_beside_it() -> None:
    values = np.stack([loads(90, seed=seed, level=10.0**seed) for seed in range(5)])
    together = forecast_many(values, HORIZON)
    reverse = forecast_many(values[::-1], HORIZON)[::-1]
    for row, found in enumerate(together):
        assert in_bytes(found) == in_bytes(reverse[row]) == in_bytes(one(values[row]))


def test_nothing_leaks_from_after_the_as_of_hour() -> None:
    times = pd.date_range(START, periods=60 * DAY * 4 + 2, freq="15min")  # half an hour is not over
    series = pd.Series(np.repeat(loads(61), 4)[: len(times)], index=times)
    before = forecast(series, 48)
    unfinished = series.copy()
    unfinished.iloc[-2:] = 1e6
    pd.testing.assert_frame_equal(forecast(unfinished, 48), before)


def test_the_input_is_left_alone() -> None:
    values = loads(30)[None, :]
    values[0, 5] = np.inf
    copy = values.copy()
    forecast_many(values, 24)
    np.testing.assert_array_equal(values, copy)


def test_infinity_is_no_data() -> None:
    values = loads(60)
    values[[100, 900]] = np.inf
    assert all_finite(one(values))


# -- a poisoned series -----------------------------------------------------------------------------


def test_a_series_whose_models_raise_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.try_models

    def raising(filled: np.ndarray, measured: np.ndarray, horizon: int) -> object:
        if (np.abs(filled - filled.round(3)) < 1e-12).all(axis=1).any():
            raise FloatingPointError("poison")
        return real(filled, measured, horizon)

    monkeypatch.setattr(module, "try_models", raising)
    values = np.stack([loads(60, seed=seed) for seed in range(3)])
    values[1] = np.where(np.arange(values.shape[1]) % 2, 0.5, 0.25)
    found = forecast_many(values, HORIZON)
    assert [row.status for row in found] == ["ok", "failed", "ok"]
    assert "poison" in found[1].reason
    assert np.isnan(found[1].mean).all()


def test_a_series_whose_models_hang_fails_alone_within_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.try_models

    def hanging(filled: np.ndarray, measured: np.ndarray, horizon: int) -> object:
        while (np.abs(filled - filled.round(3)) < 1e-12).all(axis=1).any():
            pass
        return real(filled, measured, horizon)

    monkeypatch.setattr(module, "try_models", hanging)
    values = np.stack([loads(60, seed=seed) for seed in range(4)])
    values[1] = np.where(np.arange(values.shape[1]) % 2, 0.5, 0.25)
    began = time.process_time()
    found = forecast_many(values, HORIZON, budget_seconds=0.6)
    assert time.process_time() - began < 4 * 0.6
    assert [row.status for row in found] == ["ok", "failed", "ok", "ok"]
    assert "not done after 0.6 s" in found[1].reason
    assert np.isnan(found[1].mean).all()
    alone = forecast_many(values[2:], HORIZON)
    assert [in_bytes(row) for row in found[2:]] == [in_bytes(row) for row in alone]


def test_series_after_the_budget_fail_and_say_so() -> None:
    found = forecast_many(loads(60)[None, :], HORIZON, budget_seconds=0.0)[0]
    assert found.status == "failed"
    assert "time" in found.reason


@pytest.mark.parametrize("value", [1e300, 1e-300, 5e-324])
def test_extreme_numbers_stay_finite(value: float) -> None:
    assert all_finite(one(loads(60) / 100 * value))
