"""The pool of models: many simple ones, each for many histories at once.

Every model takes windows of eight weeks that end at an origin and gives the hours after it. All are a shape
by hour of the week or of the day, on a level that is taken from a shorter or longer past: they differ in how
fast they follow, which is what series differ in. None is fitted by a search, so none can fail to converge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK, Floats, median_of

WEEKS = 8
WINDOW = WEEKS * WEEK
_EXPLOSION = 3.0  # spans of the window beyond its own range that no model may leave
SMOOTHING = 0.1  # of the daily level: the optimum of most loads lies near it

MODELS = (
    "last week",
    "hour of week, 3 weeks",
    "week shape + level of 24 h",
    "week shape + level of 168 h",
    "week shape x level of 168 h",
    "week shape + smoothed level",
    "hour of day, 3 days",
    "hour of day, 7 days",
    "hour of day, 14 days",
    "hour of day, 28 days",
    "week shape + damped trend",
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
            np.tile(values[:, :unit], -(-missing // unit)) if unit else values[:, :1].repeat(missing, axis=1)
        )
        values = np.concatenate([head[:, -missing:], values], axis=1)
        hours = values.shape[1]
    return np.stack([values[:, hours - cut - WINDOW : hours - cut] for cut in cuts], axis=1)


def predict(windows: Floats, horizon: int) -> NDArray[np.float32]:
    """All models' forecasts.

    :param windows: rows x WINDOW
    :param horizon: hours
    :returns: rows x models x hours; finite, and never far outside the window's own range
    """
    blocks = windows.reshape(len(windows), WEEKS, WEEK)
    shapes = _shapes(blocks, windows)
    weeks = -(-horizon // WEEK)
    paths = np.tile(np.stack(shapes, axis=1), weeks)[:, :, :horizon]
    trended = paths[:, MODELS.index("week shape + level of 168 h")] + _damped_trend(windows, horizon)
    paths = np.concatenate([paths, trended[:, None]], axis=1)
    low, high = windows.min(axis=1)[:, None, None], windows.max(axis=1)[:, None, None]
    span = _EXPLOSION * (high - low)
    return np.clip(np.nan_to_num(paths), low - span, high + span).astype(np.float32)


def _shapes(blocks: Floats, windows: Floats) -> list[Floats]:
    """The models that repeat a week: rows x hours of the week, in the order of MODELS."""
    means = blocks.mean(axis=2, keepdims=True)
    shape = np.median(blocks - means, axis=1)
    last = blocks[:, -1] - shape
    scaled = np.median(blocks / np.where(means > 0, means, np.inf), axis=1)
    by_day = windows.reshape(len(windows), -1, DAY)
    return [
        blocks[:, -1],
        np.median(blocks[:, -3:], axis=1),
        shape + np.median(last[:, -DAY:], axis=1, keepdims=True),
        shape + np.median(last, axis=1, keepdims=True),
        scaled * _ratio(windows[:, -WEEK:], scaled),
        shape + smoothed_level(blocks - shape[:, None])[:, None],
        *(np.tile(np.median(by_day[:, -days:], axis=1), 7) for days in (3, 7, 14, 28)),
    ]


def smoothed_level(rest: Floats) -> Floats:
    """Simple exponential smoothing of the days' means, as statsmodels' ``SimpleExpSmoothing`` with this
    smoothing level and the first week as its start.

    :param rest: rows x weeks x hours, without the shape of the week
    """
    days = rest.reshape(len(rest), -1, DAY).mean(axis=2)
    level = days[:, :7].mean(axis=1)
    for day in range(days.shape[1]):
        level = level + SMOOTHING * (days[:, day] - level)
    return level


def _ratio(values: Floats, shape: Floats) -> Floats:
    """Level that the shape has to be multiplied by."""
    expected = np.tile(shape, values.shape[1] // WEEK).sum(axis=1, keepdims=True)
    return np.where(
        expected > 0, values.sum(axis=1, keepdims=True) / np.where(expected > 0, expected, 1), 0.0
    )


DAMPING = 0.98  # of the trend, a day: it fades to half in five weeks


def daily_slopes(windows: Floats) -> Floats:
    """Theil-Sen slope of the weeks' medians, per day.

    :param windows: rows x hours, whole weeks
    """
    weekly = np.median(windows.reshape(len(windows), -1, WEEK), axis=2)
    first, second = np.triu_indices(weekly.shape[1], k=1)
    return np.median((weekly[:, second] - weekly[:, first]) / ((second - first) * 7.0), axis=1)


def _damped_trend(windows: Floats, horizon: int) -> Floats:
    days = (np.arange(horizon) + 1) / DAY + 3.5  # the level is that of the last week, hence of its middle
    grown = (1 - DAMPING**days) / (1 - DAMPING)
    return daily_slopes(windows)[:, None] * grown


def median_levels(windows: Floats) -> Floats:
    """Median of each row."""
    return median_of(windows, axis=1)
