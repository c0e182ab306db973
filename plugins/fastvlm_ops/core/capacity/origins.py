"""Rolling origins: how well each model would have done, had it been asked in the past of the same series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.models import daily_slopes, predict, windows_at

#: Leads at which weights and bounds change, in hours.
BUCKET_ENDS = (24, 72, 168, 336, 504, 720)
_CUT_DAYS = (1, 2, 4, 6, 8, 11, 14, 17, 21, 25, 30, 35, 40, 45, 50, 55, 60)


@dataclass(frozen=True)
class Trials:
    """Forecasts from the end of the history and from origins inside it, beside what came.

    :param weeks: series x origins x models x hours of the week; the first origin is the end of the history
    :param slopes: series x origins, per day
    :param actual: series x (origins but the first) x hours; NaN where nothing was measured, or came yet
    """

    weeks: Floats
    slopes: Floats
    actual: Floats


def buckets(horizon: int) -> list[slice]:
    """The lead times of a horizon, in hours, by bucket."""
    ends = [end for end in BUCKET_ENDS if end < horizon]
    return [slice(start, end) for start, end in zip([0, *ends], [*ends, horizon], strict=True)]


def try_models(filled: Floats, measured: Floats, horizon: int) -> Trials:
    """Forecast from the end of the history, and from origins inside it.

    :param filled: series x hours without NaN, for the models
    :param measured: the same with NaN, for the errors
    :param horizon: hours
    """
    hours = filled.shape[1]
    least = 4 * WEEK if hours >= 8 * WEEK else WEEK if hours >= 2 * WEEK else DAY
    cuts = np.array([0, *(days * DAY for days in _CUT_DAYS if hours - days * DAY >= least)])
    windows = windows_at(filled, cuts)
    rows = windows.reshape(-1, windows.shape[2])
    weeks = predict(rows).reshape(len(filled), len(cuts), -1, WEEK)
    slopes = daily_slopes(rows).reshape(len(filled), len(cuts))
    if len(cuts) == 1:
        return _no_trials(filled, weeks, slopes, horizon)
    actual = np.full((len(filled), len(cuts) - 1, horizon), np.nan)
    for number, cut in enumerate(cuts[1:]):
        length = min(int(cut), horizon)
        actual[:, number, :length] = measured[:, hours - cut : hours - cut + length]
    return Trials(weeks, slopes, actual)


def _no_trials(filled: Floats, weeks: Floats, slopes: Floats, horizon: int) -> Trials:
    """With under two days there is no past to try in: what was measured counts as the outcome."""
    spread = filled - np.median(filled, axis=1, keepdims=True)
    middle = np.median(weeks[:, 0], axis=1)
    actual = np.resize(middle.T, (horizon, len(filled))).T + np.resize(spread.T, (horizon, len(filled))).T
    return Trials(weeks.repeat(2, axis=1), slopes.repeat(2, axis=1), actual[:, None])
