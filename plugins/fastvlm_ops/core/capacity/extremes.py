"""What the horizon's 95th percentile and maximum may come to."""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.capacity.cleaning import WEEK, Floats
from fastvlm_ops.core.capacity.conformal import quantiles
from fastvlm_ops.core.capacity.levels import LEVELS

PEAK = 0.95
_NEARLY_ALL = 0.998  # the maximum of a month's hours lies about here in the distribution of its hours
_LEAST_HOURS = 24  # of a week, for its peak to count

# A quantile is a x middle + b x spread of the weeks' peaks for a week's horizon, and both factors grow with
# the logarithm of a longer one. By level: a, b, growth of a, growth of b. From rolling origins of real series
# by quantile regression, each level such that series left out of it stay below it as often as it says.
_PEAK = (
    (0.760, -0.959, 0.104, 0.0),
    (0.867, -0.755, 0.031, 0.0),
    (0.945, -0.743, 0.016, 0.0),
    (0.973, -0.357, 0.003, 0.331),
    (0.970, 0.792, -0.002, 0.869),
    (0.996, 2.411, 0.117, 1.354),
    (0.980, 5.748, 0.098, 0.0),
    (1.004, 6.484, 0.251, 1.089),
    (1.259, 8.146, 0.184, 0.0),
)
_MAXIMUM = (
    (0.375, -0.024, 0.036, 0.0),
    (0.433, -0.213, 0.257, -0.598),
    (0.895, -1.634, 0.054, 0.0),
    (0.976, -1.153, 0.002, 1.230),
    (0.971, 0.0, -0.023, 2.011),
    (0.981, 1.546, 0.138, 1.914),
    (1.060, 3.236, 0.588, 0.940),
    (1.474, 2.804, 0.184, 6.022),
    (2.035, 1.289, 0.0, 6.573),
)
_LONGEST_HOURS = 720


def extremes(around: Floats, measured: Floats) -> tuple[Floats, Floats]:
    """Quantiles of the horizon's p95 and of its maximum, by LEVELS: levels x series each.

    :param around: quantiles by hour, levels x series x hours
    :param measured: history, series x hours, with NaN
    """
    hours = mixture(around)
    horizon = around.shape[2]
    highest = quantiles(measured, (PEAK, 1.0))
    weekly = _of_weeks(measured)
    peak = (quantiles(hours, (PEAK,))[0] + highest[0]) / 2
    maximum = (quantiles(hours, (_NEARLY_ALL,))[0] + 2 * highest[1]) / 3
    return (
        _spread(peak, weekly[0], _PEAK, horizon),
        _spread(maximum, weekly[1], _MAXIMUM, horizon),
    )


def mixture(around: Floats) -> Floats:
    """Equally likely values of an hour of the horizon: those of each hour by its own distribution.

    :returns: series x values
    """
    steps = np.linspace(0.025, 0.975, 20)
    place = np.interp(steps, LEVELS, np.arange(len(LEVELS)))
    low = np.minimum(place.astype(np.int64), len(LEVELS) - 2)
    part = (place - low)[:, None, None]
    values = around[low] * (1 - part) + around[low + 1] * part
    return np.asarray(values.transpose(1, 0, 2).reshape(around.shape[1], -1))


def _of_weeks(measured: Floats) -> Floats:
    """How far the weeks' p95 and maxima lie apart: two x series."""
    weeks = measured.shape[1] // WEEK
    if weeks < 2:
        days = quantiles(measured, (0.05, PEAK))
        return np.stack([days[1] - days[0]] * 2) / 4  # no weeks to compare: as far apart as the hours
    blocks = measured[:, measured.shape[1] - weeks * WEEK :].reshape(-1, WEEK)
    found = quantiles(blocks, (PEAK, 1.0)).reshape(2, len(measured), weeks)
    enough = (np.count_nonzero(~np.isnan(blocks), axis=1) >= _LEAST_HOURS).reshape(len(measured), weeks)
    count = np.maximum(enough.sum(axis=1), 1)
    values = np.where(enough, np.nan_to_num(found), 0.0)
    mean = values.sum(axis=2) / count
    return np.asarray(np.sqrt((np.where(enough, values - mean[..., None], 0.0) ** 2).sum(axis=2) / count))


def _spread(
    middle: Floats, spread: Floats, table: tuple[tuple[float, float, float, float], ...], horizon: int
) -> Floats:
    growth = np.log(np.clip(horizon, WEEK, _LONGEST_HOURS) / WEEK)
    rows = []
    for level, wide, level_growth, wide_growth in table:
        # Below zero, more is closer to zero.
        off = (level + level_growth * growth - 1) * np.abs(middle)
        rows.append(middle + off + (wide + wide_growth * growth) * spread)
    return np.sort(np.array(rows), axis=0)
