"""What the horizon's p95 and maximum may be."""

from __future__ import annotations

import numpy as np
import pytest

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.extremes import maximum_quantiles, peak_quantiles
from fastvlm_ops.core.capacity.levels import LEVELS

MONTH = 30 * DAY
MIDDLE, UPPER = LEVELS.index(0.5), LEVELS.index(0.95)


def load(days: int, seed: int = 1, unrest: float = 0.0) -> Floats:
    """Days and weeks, with weeks that differ by a factor of about e to the unrest."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * DAY)
    shape = 50 + 30 * np.sin(hours / DAY * 2 * np.pi) + rng.normal(0, 2, hours.size)
    weeks = np.exp(rng.normal(0, unrest, days // 7 + 1))
    return np.asarray(shape * weeks[hours // WEEK])[None, :]


@pytest.mark.parametrize("quantiles_of", [peak_quantiles, maximum_quantiles])
def test_they_rise_with_the_level_and_lie_around_what_was(quantiles_of: object) -> None:
    values = load(90)
    found = quantiles_of(values, MONTH, np.zeros(1))[:, 0]  # type: ignore[operator]
    assert (np.diff(found) > 0).all()
    assert found[0] < values.max() < found[-1]


def test_an_unsteady_series_needs_more() -> None:
    calm, wild = (peak_quantiles(load(90, unrest=size), MONTH, np.zeros(1))[:, 0] for size in (0.0, 0.4))
    assert wild[UPPER] / wild[MIDDLE] > 1.5 * calm[UPPER] / calm[MIDDLE]


def test_a_longer_horizon_needs_more() -> None:
    values = load(90, unrest=0.2)
    day, month = (maximum_quantiles(values, hours, np.zeros(1))[UPPER, 0] for hours in (DAY, MONTH))
    assert month > day


def test_growth_is_added_and_shrinking_is_not_trusted() -> None:
    values = load(90)
    still, grown, shrunk = (
        peak_quantiles(values, MONTH, np.array([growth]))[UPPER, 0] for growth in (0.0, 10.0, -10.0)
    )
    assert grown == pytest.approx(still + 10)
    assert shrunk == still


@pytest.mark.parametrize("scale", [1e-6, 1e10])
def test_units_do_not_matter(scale: float) -> None:
    values = load(60, unrest=0.2)
    one, other = (peak_quantiles(part, MONTH, np.zeros(1)) for part in (values, values * scale))
    assert other == pytest.approx(one * scale, rel=1e-9)


@pytest.mark.parametrize("hours", [1, 5, DAY, 3 * DAY, 13 * DAY])
def test_short_histories_have_numbers(hours: int) -> None:
    for quantiles_of in (peak_quantiles, maximum_quantiles):
        assert np.isfinite(quantiles_of(load(14)[:, :hours], MONTH, np.zeros(1))).all()


def test_a_gap_is_not_read_as_zero() -> None:
    values = load(90, unrest=0.1)
    holes = values.copy()
    holes[0, -3 * WEEK : -2 * WEEK] = np.nan
    whole, torn = (peak_quantiles(part, MONTH, np.zeros(1))[:, 0] for part in (values, holes))
    assert torn == pytest.approx(whole, rel=0.25)


def test_zeros_need_nothing() -> None:
    assert peak_quantiles(np.zeros((1, 60 * DAY)), MONTH, np.zeros(1)) == pytest.approx(0.0, abs=1e-12)


def test_values_below_zero_are_taken_as_they_are() -> None:
    found = peak_quantiles(load(60) - 200, MONTH, np.zeros(1))[:, 0]
    assert (np.diff(found) > 0).all()
    assert -200 < found[MIDDLE] < -80
