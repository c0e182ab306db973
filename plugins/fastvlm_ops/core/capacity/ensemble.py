"""Weights of the models, from their errors at rolling origins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import Floats
from fastvlm_ops.core.capacity.origins import Trials, buckets

_SHARPNESS = 6.0  # the power of a model's error by which it loses weight
_OF_MEDIAN = 0.7  # the middle of all models errs less than any choice among them, but for a clear case


def weigh(trials: Trials, horizon: int) -> Floats:
    """Weights of each model by lead bucket.

    :returns: series x buckets x models; they add up to 1
    """
    count, _, models, _ = trials.paths.shape
    known = ~np.isnan(trials.actual)
    truth = np.where(known, trials.actual, 0)
    parts = buckets(horizon)
    weights = np.full((count, len(parts), models), 1 / models)
    last = weights[:, 0]
    for number, part in enumerate(parts):
        mask = known[:, :, part]
        hours = mask.sum(axis=(1, 2))
        errors = np.abs(trials.paths[:, :, :, part] - truth[:, :, None, part]) * mask[:, :, None]
        mean = errors.sum(axis=(1, 3), dtype=np.float64) / np.maximum(hours, 1)[:, None]
        found = _from_errors(mean)
        # Leads that no origin reaches go by the longest that one does.
        last = np.where((hours > 0)[:, None], found, last)
        weights[:, number] = last
    return weights


def _from_errors(errors: Floats) -> Floats:
    """:param errors: series x models"""
    typical = np.median(errors, axis=1, keepdims=True)
    relative = (errors + 1e-3 * typical + 1e-300) / (typical + 1e-300)
    powers = relative**-_SHARPNESS
    weights: Floats = powers / powers.sum(axis=1, keepdims=True)
    return weights


def combine(paths: NDArray[np.float32], weights: Floats, horizon: int) -> Floats:
    """The forecast: the middle of the models, moved towards those with the most weight.

    :param paths: series x … x models x hours
    :param weights: series x buckets x models
    :returns: series x … x hours
    """
    combined = np.empty((*paths.shape[:-2], paths.shape[-1]))
    for number, part in enumerate(buckets(horizon)):
        share = weights[:, number].reshape(len(paths), *(1,) * (paths.ndim - 3), -1, 1)
        weighted = (paths[..., part] * share).sum(axis=-2)
        middle = np.median(paths[..., part], axis=-2)
        combined[..., part] = _OF_MEDIAN * middle + (1 - _OF_MEDIAN) * weighted
    return combined
