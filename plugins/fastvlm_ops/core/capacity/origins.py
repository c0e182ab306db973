"""Rolling origins: how well each model would have done, had it been asked in the past of the same series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.models import predict, windows_at

#: Leads at which weights and bounds change, in hours.
BUCKET_ENDS = (24, 72, 168, 336, 504, 720)
_CUT_DAYS = (1, 2, 4, 6, 8, 11, 14, 17, 20, 23, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62)


@dataclass(frozen=True)
class Trials:
    """Forecasts made in the past, beside what came.

    :param paths: series x origins x models x hours
    :param actual: series x origins x hours; NaN where nothing was measured, or has not come yet
    """

    paths: NDArray[np.float32]
    actual: NDArray[np.float32]


def buckets(horizon: int) -> list[slice]:
    """The lead times of a horizon, in hours, by bucket."""
    ends = [end for end in BUCKET_ENDS if end < horizon]
    return [slice(start, end) for start, end in zip([0, *ends], [*ends, horizon], strict=True)]


def try_models(filled: Floats, measured: Floats, horizon: int) -> tuple[NDArray[np.float32], Trials]:
    """Forecast from the end of the history, and from origins inside it.

    :param filled: series x hours without NaN, for the models
    :param measured: the same with NaN, for the errors
    :param horizon: hours
    :returns: series x models x hours, and the trials
    """
    hours = filled.shape[1]
    least = 4 * WEEK if hours >= 8 * WEEK else WEEK if hours >= 2 * WEEK else DAY
    cuts = np.array([0, *(days * DAY for days in _CUT_DAYS if hours - days * DAY >= least)])
    windows = windows_at(filled, cuts)
    rows = windows.reshape(-1, windows.shape[2])
    paths = predict(rows, horizon).reshape(len(filled), len(cuts), -1, horizon)
    if len(cuts) == 1:
        return paths[:, 0], _no_trials(filled, paths[:, 0])
    actual = np.full((len(filled), len(cuts) - 1, horizon), np.nan, dtype=np.float32)
    for number, cut in enumerate(cuts[1:]):
        length = min(int(cut), horizon)
        actual[:, number, :length] = measured[:, hours - cut : hours - cut + length]
    return paths[:, 0], Trials(paths[:, 1:], actual)


def _no_trials(filled: Floats, paths: NDArray[np.float32]) -> Trials:
    """With under two days there is no past to try in: what was measured counts as the outcome."""
    horizon = paths.shape[2]
    spread = filled - np.median(filled, axis=1, keepdims=True)
    actual = paths.mean(axis=1) + np.resize(spread.T, (horizon, len(filled))).T
    return Trials(paths[:, None], actual[:, None].astype(np.float32))
