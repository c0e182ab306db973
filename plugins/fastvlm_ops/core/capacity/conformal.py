"""Bounds from the errors at rolling origins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.levels import LEVELS
from fastvlm_ops.core.capacity.origins import buckets

_MIDDLE = LEVELS.index(0.5)

_HOUR_SHRINKAGE = 20.0  # errors of an hour of the day count as much as so many of all hours
# Errors at a lead are known from few origins, and those overlap. The errors of the first week at all origins,
# grown as errors usually grow with the lead, count as much as so many origins; by lead bucket.
_ORIGIN_SHRINKAGE = 8.0
_GROWTH = (1.0, 1.1, 1.2, 1.35, 1.5, 1.7)
# What is to come differs from the history by more than parts of the history differ from each other. Measured
# on rolling origins of real series: with it, the 95 % bound covers 95 %.
_UNSEEN = 1.5
_BIAS = 0.5  # part of the past errors' median that is believed to last


def bounds(point: Floats, errors: Floats, horizon: int) -> Floats:
    """Quantiles around a forecast.

    :param point: series x hours
    :param errors: series x origins x hours, measured less forecast; NaN where not known
    :returns: levels x series x hours
    """
    scales = hour_scales(errors, horizon)
    relative = errors / scales[:, None, :]
    shared = quantiles(relative[:, :, :WEEK].reshape(len(point), -1), LEVELS)
    shared_middle = shared[_MIDDLE]
    result = np.empty((len(LEVELS), *point.shape))
    for number, part in enumerate(buckets(horizon)):
        pooled = relative[:, :, part]
        origins = (~np.isnan(pooled)).any(axis=2).sum(axis=1)
        trust = origins / (origins + _ORIGIN_SHRINKAGE)
        own = np.nan_to_num(quantiles(pooled.reshape(len(point), -1), LEVELS))
        middle = trust * own[_MIDDLE] + (1 - trust) * shared_middle
        distance = (
            trust * (own - own[_MIDDLE])
            + (1 - trust) * (shared - shared_middle) * _GROWTH[min(number, len(_GROWTH) - 1)]
        )
        off = _BIAS * middle + _UNSEEN * distance
        result[:, :, part] = point[:, part] + off[:, :, None] * scales[:, part]
    return result


def hour_scales(errors: Floats, horizon: int) -> Floats:
    """Usual size of the error at each hour of the day, over the horizon: series x hours."""
    days = -(-horizon // DAY)
    size = np.abs(errors)
    padded = np.full((*errors.shape[:2], days * DAY), np.nan)
    padded[:, :, :horizon] = size
    by_hour = padded.reshape(len(errors), -1, DAY)
    known = ~np.isnan(by_hour)
    total = np.where(known, by_hour, 0).sum(axis=1)
    count = known.sum(axis=1)
    overall = total.sum(axis=1, keepdims=True) / np.maximum(count.sum(axis=1, keepdims=True), 1)
    scale = (total + _HOUR_SHRINKAGE * overall) / (count + _HOUR_SHRINKAGE)
    scale = np.where(scale > 0, scale, 1.0)
    return np.tile(scale, days)[:, :horizon]


def quantiles(values: Floats, levels: tuple[float, ...] | NDArray[np.float64]) -> Floats:
    """Quantiles along the last axis, leaving out NaN: levels x rows; NaN where there is no value."""
    ordered = np.sort(values, axis=-1)
    count = np.count_nonzero(~np.isnan(values), axis=-1)
    result = np.empty((len(levels), len(values)))
    rows = np.arange(len(values))
    for number, level in enumerate(levels):
        place = level * np.maximum(count - 1, 0)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(count - 1, 0))
        below, above = ordered[rows, low], ordered[rows, high]
        result[number] = below + (above - below) * (place - low)
    return result
