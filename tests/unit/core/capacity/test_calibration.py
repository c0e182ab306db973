"""Bounds that learn from how past forecasts turned out."""

from __future__ import annotations

import numpy as np
import pytest

from fastvlm_ops.core.capacity import LEVELS, forecast_many
from fastvlm_ops.core.capacity.calibration import Calibration
from tests.unit.core.capacity.series import loads

MIDDLE = LEVELS.index(0.5)


def scored(spread: float, count: int = 50_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hours of which 95 % stay below spread x the bound's distance."""
    random = np.random.default_rng(3)
    leads = random.integers(1, 721, count)
    actual = 10 + spread * 2 * random.normal(size=count) / 1.645
    return leads, actual, np.full(count, 10.0), np.full(count, 12.0)


@pytest.mark.parametrize("spread", [0.8, 1.0, 1.5])
def test_the_factor_makes_the_bound_cover(spread: float) -> None:
    found = Calibration.learn(*scored(spread))
    assert found.factor(400) == pytest.approx(1 + (spread - 1) * 0.85, abs=0.1)
    assert sum(found.scored_hours.values()) == 50_000


def test_few_hours_change_little_and_none_nothing() -> None:
    leads, actual, median, upper = scored(1.5, 100)
    assert Calibration.learn(leads, actual, median, upper).factor(700) < 1.05
    assert Calibration.learn(leads, np.full(100, np.nan), median, upper) == Calibration()


def test_no_factor_leaves_its_limits() -> None:
    assert Calibration.learn(*scored(50.0)).factor(700) == 2.0
    assert Calibration.learn(*scored(0.01)).factor(700) == 0.7


def test_bounds_widen_around_the_middle() -> None:
    values = loads(60)[None, :]
    plain = forecast_many(values, 48)[0]
    wide = forecast_many(values, 48, calibration=Calibration({24: 2.0}))[0]
    np.testing.assert_array_equal(wide.mean, plain.mean)
    width = [found.quantiles[6] - found.quantiles[MIDDLE] for found in (plain, wide)]
    np.testing.assert_allclose(width[1][:24], 2 * width[0][:24])
    np.testing.assert_allclose(width[1][24:], width[0][24:])


def test_written_and_read_again() -> None:
    found = Calibration.learn(*scored(1.3))
    assert Calibration.from_json(found.to_json()) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"factors": {"24": "much"}, "scored_hours": {}}'])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.from_json(text)


def test_factors_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between"):
        Calibration.from_json('{"factors": {"24": 50}, "scored_hours": {}}')
