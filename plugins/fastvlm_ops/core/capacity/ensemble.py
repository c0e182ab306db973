"""The models joined into one forecast, by their errors at rolling origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import WEEK, Floats
from fastvlm_ops.core.capacity.models import damped_growth
from fastvlm_ops.core.capacity.networks import comparisons, index_of, sort_planes, with_index
from fastvlm_ops.core.capacity.origins import Trials, buckets

_SHARPNESS = 5.0  # the power of a model's error by which it loses weight
_TREND_SHARPNESS = 8.0
_SHARED = 0.6  # part of a model's error that is taken from all leads, since few origins reach the long ones
_MIDDLE = 0.5
_NEGLIGIBLE = 1e-3  # of the typical error: a difference that is none


@dataclass(frozen=True)
class Combined:
    """One forecast of each series from each origin.

    :param weights: series x buckets x models
    :param paths: series x origins x hours; the first origin is the end of the history
    :param errors: series x (origins but the first) x hours, measured less forecast
    """

    weights: Floats
    paths: Floats
    errors: Floats


def combine(trials: Trials, horizon: int) -> Combined:
    """Weigh the models, take their weighted median, and add as much of the trend as has helped before."""
    known = ~np.isnan(trials.actual)
    actual = np.where(known, trials.actual, 0.0)
    weights = _weigh(trials, actual, known, horizon)
    paths = _weighted_medians(trials.weeks, weights, known, horizon)
    growth = trials.slopes[:, :, None] * damped_growth(horizon)
    grown = paths + growth
    errors = np.abs(np.stack([paths[:, 1:], grown[:, 1:]], axis=2) - actual[:, :, None]) * known[:, :, None]
    sums = np.stack([errors[..., part].sum(axis=(1, 3)) for part in buckets(horizon)], axis=1)
    share = _by_error(sums, _known_hours(known, horizon), _TREND_SHARPNESS)[:, :, 1]
    for number, part in enumerate(buckets(horizon)):
        paths[:, :, part] += share[:, number, None, None] * growth[:, :, part]
    return Combined(weights, paths, np.where(known, trials.actual - paths[:, 1:], np.nan))


def _weigh(trials: Trials, actual: Floats, known: NDArray[np.bool_], horizon: int) -> Floats:
    weeks = trials.weeks[:, 1:].astype(np.float32)  # errors need no more, and it is half the memory
    sums = []
    for part in buckets(horizon):
        reached = known[:, :, part].any(axis=(0, 2))  # few origins reach the long leads
        size = np.abs(_hours(weeks[:, reached], part) - actual[:, reached, None, part].astype(np.float32))
        size *= known[:, reached, None, part]
        sums.append(size.sum(axis=(1, 3), dtype=np.float64))
    return _by_error(np.stack(sums, axis=1), _known_hours(known, horizon), _SHARPNESS)


def _known_hours(known: NDArray[np.bool_], horizon: int) -> NDArray[np.int64]:
    """How many errors are known of each series and bucket."""
    return np.stack([known[..., part].sum(axis=(1, 2)) for part in buckets(horizon)], axis=1)


def _by_error(sums: Floats, hours: NDArray[np.int64], power: float) -> Floats:
    """Weights of candidates by lead bucket.

    :param sums: of their absolute errors, series x buckets x candidates
    :param hours: that these are of, series x buckets
    :param power: of the error, by which a candidate loses weight
    :returns: series x buckets x candidates; they add up to 1
    """
    means = sums / np.maximum(hours, 1)[:, :, None]
    typical = np.median(means, axis=2, keepdims=True) + 1e-300
    relative = np.log(means / typical + _NEGLIGIBLE)
    for number in range(1, sums.shape[1]):  # leads that no origin reaches go by the longest that one does
        unknown = hours[:, number] == 0
        relative[unknown, number] = relative[unknown, number - 1]
    share = (hours / np.maximum(hours.sum(axis=1, keepdims=True), 1))[:, :, None]
    overall = (relative * share).sum(axis=1, keepdims=True)
    score = -power * (_SHARED * overall + (1 - _SHARED) * relative)
    weights = np.exp(score - score.max(axis=2, keepdims=True))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))


def _weighted_medians(weeks: Floats, weights: Floats, known: NDArray[np.bool_], horizon: int) -> Floats:
    """Weighted median of the models at each hour: of those that disagree, none can pull the forecast away.

    :param weeks: series x origins x models x hours of the week
    :param weights: series x buckets x models
    :param known: what was measured, series x (origins but the first) x hours; only there a median is needed
    :returns: series x origins x hours; 0 elsewhere
    """
    models = weeks.shape[2]
    planes = with_index(np.ascontiguousarray(weeks.transpose(2, 0, 1, 3)))
    order = index_of(np.stack(sort_planes(planes, comparisons(models))), models)
    order += models * np.arange(len(weeks))[:, None, None]  # a place in the flat weights of a bucket
    result = np.zeros((*weeks.shape[:2], horizon))
    for number, part in enumerate(buckets(horizon)):
        needed = np.concatenate([[0], 1 + np.flatnonzero(known[:, :, part].any(axis=(0, 2)))])
        week = slice(part.start, min(part.stop, part.start + WEEK))  # after which it repeats
        chosen = _chosen(_hours(order[:, :, needed], week), weights[:, number].ravel()) % models
        middle = np.take_along_axis(_hours(weeks[:, needed], week), chosen[:, :, None], axis=2)[:, :, 0]
        result[:, needed, part] = middle[..., np.arange(part.stop - part.start) % WEEK]
    return result


def _chosen(order: NDArray[np.int64], weights: Floats) -> NDArray[np.int64]:
    """The first of each order by which half of the weight is reached.

    :param order: places in the weights; first by first
    """
    reached, place = np.zeros(order.shape[1:]), np.zeros(order.shape[1:], dtype=np.int8)
    weight, is_less = np.empty_like(reached), np.empty(place.shape, dtype=np.bool_)
    for plane in order[:-1]:
        np.take(weights, plane, out=weight, mode="clip")  # the fastest mode; all are inside
        reached += weight
        np.less(reached, _MIDDLE, out=is_less)
        place += is_less.view(np.int8)
    return np.asarray(np.take_along_axis(order, place[None].astype(np.int64), axis=0)[0])


def _hours(weeks: NDArray[Any], part: slice) -> NDArray[Any]:
    """The hours of leads, of weeks that repeat."""
    start, stop = part.start % WEEK, part.start % WEEK + part.stop - part.start
    if stop <= WEEK:
        return weeks[..., start:stop]
    return np.asarray(weeks[..., np.arange(part.start, part.stop) % WEEK])
