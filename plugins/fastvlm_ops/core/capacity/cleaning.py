"""Histories made fit for models: gaps filled by the season, freak values cut, jumps of level evened out.

All functions take and give arrays of series x hours that end at the as-of hour. Only models see what they
give; errors are always taken from what was measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAY = 24
WEEK = 168
_FREAK = 8.0  # so many times the spread of the highest hundredth above it, and it is not a load but an error
_SHIFT_DAYS = 21  # an older jump is left to the weights of the models
_SHIFT_LEAST_DAYS = 3
_SHIFT_SCORE = 6.0
_BURST, _BURST_DAYS = 4.0, 7  # a level many times the old one may be a burst, unless it has lasted a week


def median_by_hour(values: Floats, period: int) -> Floats:
    """Median of each hour of the period, counted back from the end, leaving out NaN.

    :param values: series x hours; shorter histories than a whole number of periods lose their oldest hours
    :param period: hours
    :returns: series x period; NaN where there is no value at all
    """
    count = values.shape[1] // period
    blocks = values[:, values.shape[1] - count * period :].reshape(len(values), count, period)
    return median_of(blocks, axis=1)


def median_of(values: Floats, axis: int) -> Floats:
    """Median along an axis, leaving out NaN; much faster than NumPy's on short axes."""
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.count_nonzero(~np.isnan(values), axis=axis, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[axis] - 1), axis)
    return np.squeeze((low + high) / 2, axis)


def cut_freaks(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Cut single values far beyond all others, on both sides.

    :returns: the values, and how many were cut in each series
    """
    middle = np.nanmedian(values, axis=1, keepdims=True)
    low, high = np.nanquantile(values, (0.01, 0.99), axis=1, keepdims=True)
    top, bottom = high + _FREAK * (high - middle), low - _FREAK * (middle - low)
    beyond = (values > top) | (values < bottom)
    # A load that is always the same but for a few hours has no spread to go by: those hours are its peaks.
    beyond &= np.where(values > top, high > middle, middle > low)
    return np.where(beyond, np.clip(values, bottom, top), values), np.count_nonzero(beyond, axis=1)


def fill_gaps(values: Floats) -> Floats:
    """Fill NaN by the usual value of that hour of the week, moved to the level of the days around."""
    gaps = np.isnan(values)
    if not gaps.any():
        return values
    filled = values.copy()
    for row in np.flatnonzero(gaps.any(axis=1)):
        filled[row] = _fill(values[row])
    return filled


def _fill(values: Floats) -> Floats:
    hours = len(values)
    usual = np.full(hours, np.nan)
    for period in (WEEK, DAY, 1):
        if hours >= period:
            by_hour = median_by_hour(values[None, :], period)[0]
            usual = np.where(np.isnan(usual), np.resize(np.roll(by_hour, hours % period), hours), usual)
    days = -(-hours // DAY)
    padded = np.full(days * DAY, np.nan)
    padded[days * DAY - hours :] = values - usual
    level = median_of(padded.reshape(days, DAY), axis=1)
    known = np.flatnonzero(~np.isnan(level))
    level = np.interp(np.arange(days), known, level[known])
    moved = usual + np.repeat(level, DAY)[days * DAY - hours :]
    moved = np.clip(moved, np.nanmin(values), np.nanmax(values))
    return np.where(np.isnan(values), moved, values)


def even_out_shift(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Move what was before a lasting jump of level to the level after it.

    :param values: without NaN
    :returns: the values, and days since the jump; 0 where there was none
    """
    days = values.shape[1] // DAY
    if days < _SHIFT_LEAST_DAYS + 7:
        return values, np.zeros(len(values), dtype=np.int64)
    tail = values[:, values.shape[1] - days * DAY :].reshape(len(values), days, DAY)
    levels = median_of(tail, axis=2)
    best_score = np.zeros(len(values))
    best_day = np.zeros(len(values), dtype=np.int64)
    for ago in range(_SHIFT_LEAST_DAYS, min(_SHIFT_DAYS, days - 7) + 1):
        if not _stands_apart(levels, ago).any():  # as nearly always
            continue
        score = _jump_score(levels, ago)
        better = score > best_score
        best_score, best_day = np.where(better, score, best_score), np.where(better, ago, best_day)
    best_day = np.where(best_score >= _SHIFT_SCORE, best_day, 0)
    moved = values.copy()
    for row in np.flatnonzero(best_day):
        moved[row] = _moved(values[row], int(best_day[row]) * DAY)
    return moved, best_day


def _stands_apart(levels: Floats, ago: int) -> NDArray[np.bool_]:
    """Whether every day since stands beyond every day of the two weeks before, as in no season."""
    after, before = levels[:, -ago:], levels[:, max(-ago - 14, -levels.shape[1]) : -ago]
    higher = after.min(axis=1) > before.max(axis=1)
    return np.asarray(higher | (after.max(axis=1) < before.min(axis=1)))


def _jump_score(levels: Floats, ago: int) -> Floats:
    """How far the days since a jump stand apart from the two weeks before, in parts of the days' spread."""
    after, before = levels[:, -ago:], levels[:, max(-ago - 14, -levels.shape[1]) : -ago]
    middle_after, middle_before = np.median(after, axis=1), np.median(before, axis=1)
    spread = np.maximum(
        np.median(np.abs(after - middle_after[:, None]), axis=1),
        np.median(np.abs(before - middle_before[:, None]), axis=1),
    )
    size = np.abs(middle_after - middle_before)
    floor = 0.02 * np.maximum(np.abs(middle_after), np.abs(middle_before))
    found = _stands_apart(levels, ago)
    if ago < _BURST_DAYS:
        found &= size <= _BURST * np.minimum(np.abs(middle_after), np.abs(middle_before))
    return np.where(found, size / np.maximum(np.maximum(spread, floor), 1e-300), 0.0)


def _moved(values: Floats, hours: int) -> Floats:
    """Scale what was before the last hours where that fits better than adding, else add."""
    before, after = values[:-hours], values[-hours:]
    usual = np.resize(median_by_hour(before[None, -4 * WEEK :], DAY)[0], hours)
    base, level = float(np.median(usual)), float(np.median(after))
    added = before + np.median(after - usual)
    if base <= 0 or level <= 0 or before.min() < 0:
        return np.concatenate([added, after])
    factor = level / base
    error_scaled = np.abs(after - usual * factor).mean()
    error_added = np.abs(after - usual - np.median(after - usual)).mean()
    return np.concatenate([before * factor if error_scaled <= error_added else added, after])
