"""Bounds from the errors at rolling origins, and from how far weeks differ.

A series' own past has few origins whose hours thirty days ahead have come, and they overlap: their errors
alone covered 79 % there where 95 % was meant. So what a week usually differs by from the one before is added,
the more the further ahead.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.levels import LEVELS
from fastvlm_ops.core.capacity.origins import buckets

_HOUR_SHRINKAGE = 20.0  # errors of an hour of the day count as much as so many of all hours
# Parts of the usual change from week to week that the 95 % bound is moved out by, for each lead bucket;
# chosen so that it covers 95 % of the hours of the series named in docs/benchmarks.md, in each bucket.
_MOVED_OUT = (0.25, 0.3, 0.6, 1.1, 2.0, 2.0)
_BY_LEVEL = np.array([NormalDist().inv_cdf(level) / NormalDist().inv_cdf(0.95) for level in LEVELS])


def bounds(point: Floats, errors: Floats, horizon: int, unrest: Floats) -> Floats:
    """Quantiles around a forecast.

    :param point: series x hours
    :param errors: series x origins x hours, measured less forecast; NaN where not known
    :param unrest: of each series, see :func:`weekly_change`
    :returns: levels x series x hours
    """
    scales = hour_scales(errors, horizon)
    relative = errors / scales[:, None, :]
    result = np.empty((len(LEVELS), *point.shape))
    last = np.zeros((len(LEVELS), len(point)))
    for number, part in enumerate(buckets(horizon)):
        pooled = relative[:, :, part].reshape(len(point), -1)
        found = quantiles(pooled, LEVELS)
        last = np.where(np.isnan(found), last, found)
        moved = _MOVED_OUT[min(number, len(_MOVED_OUT) - 1)] * _BY_LEVEL[:, None] * unrest
        result[:, :, part] = point[:, part] + last[:, :, None] * scales[:, part] + moved[:, :, None]
    return result


def weekly_change(measured: Floats) -> Floats:
    """Mean size of the difference between an hour and the same hour a week (else a day, an hour) before.

    :param measured: series x hours; NaN where there is no data
    """
    result = np.full(len(measured), np.nan)
    for lag in (WEEK, DAY, 1):
        if measured.shape[1] > lag:
            change = np.abs(measured[:, lag:] - measured[:, :-lag])
            known = ~np.isnan(change)
            count = np.count_nonzero(known, axis=1)
            mean = np.where(known, change, 0).sum(axis=1) / np.maximum(count, 1)
            result = np.where(np.isnan(result) & (count > 0), mean, result)
    return np.asarray(np.nan_to_num(result))


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
