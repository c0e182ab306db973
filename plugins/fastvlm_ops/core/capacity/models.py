"""The pool of models: many simple ones, each for many histories at once.

Every model takes a window of eight weeks that ends at an origin, and gives the week after it, which repeats.
All are a shape by hour of the week or of the day, on a level that is taken from a shorter or longer past:
they differ in what they hold to be lasting, which is what series differ in. They were chosen to be unlike
each other: of two that are alike, one adds nothing but weight. None is fitted by a search, so none can fail
to converge, or take long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats
from fastvlm_ops.core.capacity.networks import comparisons, median_of_rows, middle_of, sort_planes

WEEKS = 8
WINDOW = WEEKS * WEEK
SMOOTHING = 0.1  # of the daily level: the optimum of most loads lies near it
_FEW = 8  # blocks: more are sorted as fast; a power of two
_EXPLOSION = 3.0  # spans of the window beyond its own range that no model may leave

MODELS = (
    "last week",
    "mean of 2 weeks",
    "hour of week, 3 weeks",
    "hour of week, 6 weeks",
    "hours around, hour of week, 8 weeks",
    "week shape + level of a day",
    "week shape x level of a week",
    "week shape + smoothed level",
    "day shape and days of the week, 8 weeks",
    "day shape + level of 3 days",
    "day shape + level of 2 weeks",
    "hours around, hour of day, 2 weeks",
    "median of a week",
    "median of 4 weeks",
)


def windows_at(values: Floats, cuts: NDArray[np.int64]) -> Floats:
    """Windows that end some hours before the end of the history.

    :param values: series x hours, without NaN
    :param cuts: hours before the end
    :returns: series x cuts x WINDOW; where the history is too short, its oldest weeks (days) are repeated
    """
    hours = values.shape[1]
    missing = WINDOW + int(cuts.max()) - hours
    if missing > 0:
        unit = min(hours // WEEK, 4) * WEEK if hours >= 2 * WEEK else hours // DAY * DAY
        # Repeats end where the history begins; with no whole day there is nothing to repeat but a level.
        head = (
            np.tile(values[:, :unit], -(-missing // unit))
            if unit
            else np.repeat(np.median(values, axis=1, keepdims=True), missing, axis=1)
        )
        values = np.concatenate([head[:, -missing:], values], axis=1)
        hours = values.shape[1]
    return np.stack([values[:, hours - cut - WINDOW : hours - cut] for cut in cuts], axis=1)


def predict(windows: Floats) -> Floats:
    """All models' weeks.

    :param windows: rows x WINDOW
    :returns: rows x models x hours of the week; finite, and never far outside the window's own range
    """
    weeks = np.stack([*_week_models(windows), *_day_models(windows)], axis=1)
    low, high = windows.min(axis=1)[:, None, None], windows.max(axis=1)[:, None, None]
    span = _EXPLOSION * (high - low)
    return np.asarray(np.clip(np.nan_to_num(weeks), low - span, high + span))


def _week_models(windows: Floats) -> list[Floats]:
    blocks = windows.reshape(-1, WEEKS, WEEK)
    means = blocks.mean(axis=2, keepdims=True)
    shape = _median(blocks - means)
    last_day = median_of_rows(windows[:, -DAY:] - shape[:, -DAY:])[:, None]
    scaled = _median(blocks / np.where(means > 0, means, np.inf))
    total = scaled.sum(axis=1, keepdims=True)
    ratio = np.where(total > 0, blocks[:, -1].sum(axis=1, keepdims=True) / np.where(total > 0, total, 1), 0)
    return [
        blocks[:, -1],
        blocks[:, -2:].mean(axis=1),
        _median(blocks[:, -3:]),
        _median(blocks[:, -6:]),
        _around(windows, WEEK),
        shape + last_day,
        scaled * ratio,
        shape + smoothed_level(blocks - shape[:, None])[:, None],
    ]


def smoothed_level(rest: Floats) -> Floats:
    """Simple exponential smoothing of the days' means, from that of the first week on: what statsmodels'
    ``SimpleExpSmoothing`` and, at rest, its local level of ``UnobservedComponents`` give.

    :param rest: rows x weeks x hours, without the shape of the week
    """
    days = rest.reshape(len(rest), -1, DAY).mean(axis=2)
    level = days[:, :7].mean(axis=1)
    for day in range(days.shape[1]):
        level = level + SMOOTHING * (days[:, day] - level)
    return np.asarray(level)


def _day_models(windows: Floats) -> list[Floats]:
    days = windows.reshape(len(windows), WEEKS * 7, DAY)
    middles = median_of_rows(days)
    rest = days - middles[:, :, None]
    usual = _median(rest)
    of_week = _median(middles.reshape(-1, WEEKS, 7))
    recent = _median(rest[:, -28:])
    level = days[:, -14:] - recent[:, None]
    levels = [median_of_rows(level[:, -count:].reshape(len(windows), -1)) for count in (3, 14)]
    flat = [median_of_rows(windows[:, -weeks * WEEK :]) for weeks in (1, 4)]
    return [
        (of_week[:, :, None] + usual[:, None]).reshape(-1, WEEK),
        *(np.tile(recent, 7) + found[:, None] for found in levels),
        np.tile(_around(windows[:, -2 * WEEK :], DAY), 7),
        *(np.repeat(found[:, None], WEEK, axis=1) for found in flat),
    ]


def _median(blocks: Floats) -> Floats:
    """Median over the middle axis; much faster than NumPy's on short axes."""
    count = blocks.shape[1]
    if count > _FEW:
        ordered = np.sort(blocks, axis=1)
        return np.asarray((ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2)
    return middle_of(_planes(blocks), comparisons(count, middle=True))


def _around(windows: Floats, period: int) -> Floats:
    """Median of each hour of the period, the hours before and after counted with it."""
    blocks = windows.reshape(len(windows), -1, period)
    count = blocks.shape[1]
    if count != _FEW:
        shifted = (np.roll(blocks, 1, axis=2), blocks, np.roll(blocks, -1, axis=2))
        return _median(np.concatenate(shifted, axis=1))
    # Sorted once, since hours that are moved as a whole stay sorted; then the three are merged.
    ordered = sort_planes(_planes(blocks), comparisons(count))
    merged = [np.roll(plane, by, axis=1) for by in (1, 0, -1) for plane in ordered]
    return middle_of(merged, comparisons(3 * count, sorted_runs=count, middle=True))


def _planes(blocks: Floats) -> list[Floats]:
    return [np.array(blocks[:, number]) for number in range(blocks.shape[1])]


# -- trend -----------------------------------------------------------------------------------------

DAMPING = 0.98  # of the trend, a day: it fades to half in five weeks


def daily_slopes(windows: Floats) -> Floats:
    """Theil-Sen slope of the weeks' medians, per day.

    :param windows: rows x hours, whole weeks
    """
    weekly = median_of_rows(windows.reshape(len(windows), -1, WEEK))
    first, second = np.triu_indices(weekly.shape[1], k=1)
    return median_of_rows((weekly[:, second] - weekly[:, first]) / ((second - first) * 7.0))


def damped_growth(horizon: int) -> Floats:
    """By how many days' slope the level has grown at each hour of the horizon."""
    days = (np.arange(horizon) + 1) / DAY
    return (1 - DAMPING**days) / (1 - DAMPING)
