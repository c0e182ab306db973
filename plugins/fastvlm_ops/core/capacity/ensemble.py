"""The models joined into one forecast, by their errors at rolling origins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import WEEK, Floats
from fastvlm_ops.core.capacity.models import damped_growth
from fastvlm_ops.core.capacity.origins import Trials, buckets

_SHARPNESS = 5.0  # the power of a model's error by which it loses weight
_TREND_SHARPNESS = 8.0
_SHARED = 0.6  # part of a model's error that is taken from all leads, since few origins reach the long ones
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
    sums = [np.abs(found[:, 1:] - actual) * known for found in (paths, grown)]
    share = _by_bucket(np.stack(sums, axis=2), known, horizon, _TREND_SHARPNESS)[:, :, 1]
    for number, part in enumerate(buckets(horizon)):
        paths[:, :, part] += share[:, number, None, None] * growth[:, :, part]
    return Combined(weights, paths, np.where(known, trials.actual - paths[:, 1:], np.nan))


def _weigh(trials: Trials, actual: Floats, known: NDArray[np.bool_], horizon: int) -> Floats:
    weeks = trials.weeks[:, 1:].astype(np.float32)  # errors need no more, and it is half the memory
    paths = np.tile(weeks, -(-horizon // WEEK))[..., :horizon]
    paths -= actual[:, :, None].astype(np.float32)
    np.abs(paths, out=paths)
    paths *= known[:, :, None]
    return _by_bucket(paths, known, horizon, _SHARPNESS)


def _by_bucket(errors: NDArray[np.floating], known: NDArray[np.bool_], horizon: int, power: float) -> Floats:
    """Weights of candidates by lead bucket.

    :param errors: series x origins x candidates x hours; 0 where not known
    :param power: of the error, by which a candidate loses weight
    :returns: series x buckets x candidates; they add up to 1
    """
    parts = buckets(horizon)
    sums = np.stack([errors[..., part].sum(axis=(1, 3), dtype=np.float64) for part in parts], axis=1)
    hours = np.stack([known[..., part].sum(axis=(1, 2)) for part in parts], axis=1)
    means = sums / np.maximum(hours, 1)[:, :, None]
    typical = np.median(means, axis=2, keepdims=True) + 1e-300
    relative = np.log(means / typical + _NEGLIGIBLE)
    for number in range(1, len(parts)):  # leads that no origin reaches go by the longest that one does
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
    models = np.ascontiguousarray(
        weeks.transpose(0, 1, 3, 2)
    )  # last, since that is the axis all is done along
    order = np.argsort(models, axis=3, kind="stable")
    ordered = np.take_along_axis(models, order, axis=3)
    rows = np.arange(len(weeks))[:, None, None, None]
    result = np.zeros((*weeks.shape[:2], horizon))
    for number, part in enumerate(buckets(horizon)):
        hours = np.arange(part.start, part.stop) % WEEK
        chosen = (
            slice(hours[0], hours[-1] + 1) if len(hours) < WEEK and hours[0] <= hours[-1] else slice(None)
        )
        needed = np.concatenate([[0], 1 + np.flatnonzero(known[:, :, part].any(axis=(0, 2)))])
        reached = np.cumsum(weights[rows, number, order[:, needed, chosen]], axis=3)
        place = (reached < 0.5).sum(axis=3, keepdims=True).clip(max=models.shape[3] - 1)
        middle = np.take_along_axis(ordered[:, needed, chosen], place, axis=3)[..., 0]
        result[:, needed, part] = middle[:, :, hours - (chosen.start or 0)]
    return result
