"""Between and beyond the quantiles of a predictive distribution that are kept.

Between two levels a distribution is a straight line. Beyond the outermost it falls off as fast as between the
last two (an exponential tail): what was kept says no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.levels import LEVELS

Floats = NDArray[np.floating[Any]]
_LOW, _LOW_NEXT, _HIGH_NEXT, _HIGH = LEVELS[0], LEVELS[1], LEVELS[-2], LEVELS[-1]
# How much, as powers of e, the chance falls by between the two outermost levels of each side.
_LOW_FALL, _HIGH_FALL = math.log(_LOW_NEXT / _LOW), math.log((1 - _HIGH_NEXT) / (1 - _HIGH))


def quantile_at(quantiles: Sequence[float] | Floats, level: float) -> float | None:
    """Return the quantile of any level.

    :param quantiles: of the distribution, at ``LEVELS``
    :param level: above 0 and below 1
    :returns: None where the quantiles are not known
    :raises ValueError: the level is no share
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: it must be above 0 and below 1")
    values = _ordered(np.asarray(quantiles, dtype=float))
    if not np.isfinite(values).all():
        return None
    if level > _HIGH:
        steps = math.log((1 - _HIGH) / (1 - level)) / _HIGH_FALL
        return float(values[-1] + (values[-1] - values[-2]) * steps)
    if level < _LOW:
        steps = math.log(_LOW / level) / _LOW_FALL
        return float(values[0] - (values[1] - values[0]) * steps)
    return float(np.interp(level, LEVELS, values))


def chances_above(quantiles: Floats, limit: float) -> Floats:
    """Return the chance of being above a limit, for each distribution.

    :param quantiles: one row a level of ``LEVELS``, one column a distribution
    :param limit: in the unit of the quantiles
    :returns: one chance a column; NaN where its quantiles are not known
    """
    values = _ordered(np.asarray(quantiles, dtype=float))
    chances = np.full(values.shape[1], np.nan)
    for column in np.flatnonzero(np.isfinite(values).all(axis=0)):
        chances[column] = _chance_above(values[:, column], limit)
    return chances


def _ordered(values: Floats) -> Floats:
    """Quantiles that cross would give the same value two chances."""
    return np.maximum.accumulate(values, axis=0)


def _chance_above(values: Floats, limit: float) -> float:
    if limit < values[0]:
        step = values[1] - values[0]
        return float(1 - _LOW * _tail(_LOW_FALL * (values[0] - limit), step))
    if limit >= values[-1]:
        step = values[-1] - values[-2]
        return float((1 - _HIGH) * _tail(_HIGH_FALL * (limit - values[-1]), step))
    # The highest level whose quantile is not above the limit, and the line to the next.
    below = int(np.searchsorted(values, limit, side="right")) - 1
    share = (limit - values[below]) / (values[below + 1] - values[below])
    return float(1 - (LEVELS[below] + share * (LEVELS[below + 1] - LEVELS[below])))


def _tail(distance: float, step: float) -> float:
    """What is left of a chance at a distance; nothing where the distribution ends at its outermost level."""
    return math.exp(-min(distance / step, 700.0)) if step > 0 else 0.0
