"""What the horizon's 95th percentile and its maximum may be: the figures that capacity is about.

A forecast by the hour says little of them: it is made for the middle and forgets what was rare. So they
are forecast by themselves, on a scale of ratios. Their middle is what they were in the last two and four
weeks and in all of history. How far they may be from it is measured in the series' own unsteadiness: the
usual step from one week's figure to the next week's. How many such steps, is the table below. It was made of
the 26 series that docs/benchmarks.md names, each counting alike, at origins two days apart; with each series
left out in turn, a chance of 5 % fell short in 5 to 6 %, and one of 10 % in 10 to 11 %. Those of the p95 were
then moved up by as much as a tenth, since few of these origins are a whole horizon apart.
`python -m benchmarks.capacity_steps` works them out again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.conformal import quantiles

PEAK_LEVEL = 0.95
_FLOOR = 0.02  # of the highest day: below it, a ratio says nothing
_LEAST_STEP = 0.1
_UNKNOWN_STEP = 0.3  # of a history that is too short to know
_COVERED = 0.5  # of a week or day, so that its figure counts

HORIZONS = (24, 168, 336, 720)
# Quantiles at LEVELS of the figure that came, in steps from the middle; one row a horizon.
_PEAK_STEPS = np.array(
    [
        (-3.87, -2.31, -1.16, -0.38, 0.05, 0.12, 0.28, 0.58, 1.12, 2.07, 3.88),
        (-1.72, -1.09, -0.58, -0.01, 0.31, 0.40, 0.61, 0.94, 1.60, 2.86, 4.11),
        (-1.37, -0.89, -0.32, 0.06, 0.49, 0.64, 0.81, 1.35, 2.06, 3.19, 4.33),
        (-0.84, -0.57, -0.14, 0.19, 0.79, 1.00, 1.60, 1.98, 2.40, 3.30, 4.45),
    ]
)
_MAXIMUM_STEPS = np.array(
    [
        (-6.17, -3.57, -2.47, -1.31, -0.49, -0.38, -0.25, -0.13, 0.03, 0.34, 0.77),
        (-2.51, -1.84, -1.12, -0.39, 0.01, 0.06, 0.19, 0.48, 0.84, 1.09, 1.76),
        (-1.97, -1.38, -0.73, -0.14, 0.25, 0.38, 0.68, 0.91, 1.37, 1.74, 5.17),
        (-1.22, -1.05, -0.29, 0.25, 0.84, 0.98, 1.38, 1.91, 2.55, 5.07, 5.64),
    ]
)


def peak_quantiles(measured: Floats, horizon: int, growth: Floats) -> Floats:
    """Quantiles of the horizon's 95th percentile.

    :param measured: series x hours; NaN where there is no data
    :param horizon: hours
    :param growth: of each series over the horizon; 0 where it does not grow for sure
    :returns: levels x series
    """
    return _quantiles(measured, PEAK_LEVEL, horizon, growth)


def maximum_quantiles(measured: Floats, horizon: int, growth: Floats) -> Floats:
    """Quantiles of the horizon's maximum; see :func:`peak_quantiles`."""
    return _quantiles(measured, 1.0, horizon, growth)


@dataclass(frozen=True)
class Usual:
    """What a figure usually is, and how unsteady it is; one of each a series, logarithms but for the last.

    :param middle: of what it was in the last two weeks, in the last four, and in all of history
    :param step: that it is measured in how far it will be from there
    :param floor: added before the logarithm is taken
    :param lowest: taken away before
    """

    middle: Floats
    step: Floats
    floor: Floats
    lowest: Floats


def usual(measured: Floats, level: float) -> Usual:
    """Return what is usual of a figure.

    :param measured: series x hours; NaN where there is no data
    :param level: of the figure: 0.95 for the p95, 1 for the maximum
    """
    lowest = np.minimum(np.nanmin(measured, axis=1), 0.0)  # ratios are of what lies above it
    above = measured - lowest[:, None]
    whole = quantiles(above, (level,))[0]
    floor = _floor(above, level)
    logs = [np.log(_recent(above, hours, level, whole) + floor) for hours in (2 * WEEK, 4 * WEEK)]
    middle = np.mean([*logs, np.log(whole + floor)], axis=0)
    return Usual(middle, _LEAST_STEP + _usual_step(above, level, floor), floor, lowest)


def _quantiles(measured: Floats, level: float, horizon: int, growth: Floats) -> Floats:
    known = usual(measured, level)
    table = _PEAK_STEPS if level < 1 else _MAXIMUM_STEPS
    place = np.log(np.clip(horizon, HORIZONS[0], HORIZONS[-1]))
    steps = np.array([np.interp(place, np.log(HORIZONS), column) for column in table.T])
    found = np.exp(known.middle + steps[:, None] * known.step) - known.floor
    return np.asarray(np.maximum(found, 0.0) + np.maximum(growth, 0.0) + known.lowest)


def _recent(values: Floats, hours: int, level: float, whole: Floats) -> Floats:
    """The figure of the last hours; that of all where less than half a week of them is known."""
    last = values[:, -hours:]
    enough = np.count_nonzero(~np.isnan(last), axis=1) >= _COVERED * WEEK
    return np.asarray(np.where(enough, quantiles(last, (level,))[0], whole))


def _floor(values: Floats, level: float) -> Floats:
    """A small part of the highest day's figure; above 0, so that its logarithm exists."""
    days = values.shape[1] // DAY
    if not days:
        return np.asarray(np.maximum(_FLOOR * np.nanmax(values, axis=1), 1e-300))
    blocks = values[:, values.shape[1] - days * DAY :].reshape(-1, DAY)
    figures = quantiles(blocks, (level,))[0]
    figures[np.count_nonzero(~np.isnan(blocks), axis=1) < _COVERED * DAY / 2] = np.nan
    highest = np.nan_to_num(figures.reshape(len(values), days), nan=0.0).max(axis=1)
    highest = np.where(highest > 0, highest, np.nanmax(values, axis=1))
    return np.asarray(np.maximum(_FLOOR * highest, 1e-300))


def _usual_step(values: Floats, level: float, floor: Floats) -> Floats:
    """Mean size of the step from one week's figure to the next week's, as a logarithm."""
    weeks = values.shape[1] // WEEK
    if weeks < 2:
        return np.full(len(values), _UNKNOWN_STEP)
    blocks = values[:, values.shape[1] - weeks * WEEK :].reshape(-1, WEEK)
    figures = quantiles(blocks, (level,))[0]
    figures[np.count_nonzero(~np.isnan(blocks), axis=1) < _COVERED * WEEK / 2] = np.nan
    logs = np.log(figures.reshape(len(values), weeks) + floor[:, None])
    steps = np.abs(np.diff(logs, axis=1))
    known = ~np.isnan(steps)
    count = np.count_nonzero(known, axis=1)
    total = np.where(known, steps, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), _UNKNOWN_STEP)
