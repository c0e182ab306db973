"""Samples at any times, put on an hourly grid in UTC."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

HOUR = pd.Timedelta(hours=1)


class HistoryError(ValueError):
    """A history that cannot be put on a grid of hours."""


def to_grid(series: pd.Series, end: datetime | pd.Timestamp | None = None) -> pd.Series:
    """Mean of each hour, UTC, without gaps in the index: an hour without samples is NaN.

    Samples of the same time (as two replicas of Prometheus give them) count once, ±Inf counts as no data, and
    an hour that was not over when the last sample was taken is dropped.

    :param series: numbers by time, in any order; times without a zone are UTC
    :param end: hour at which the grid ends, itself not part of it; where None, the last finished hour's end
    :raises HistoryError: no times, or other things than numbers
    """
    values = _clean(series)
    if not len(values):
        if end is None:
            raise HistoryError(
                "the history is empty: give at least one timestamp, or the hour at which it ends"
            )
        return pd.Series(dtype=float, index=pd.date_range(_utc(end).floor("h"), periods=0, freq="h"))
    last = _utc(end).floor("h") if end is not None else _end_of(pd.DatetimeIndex(values.index))
    values = values[values.index < last]
    hourly = values.groupby(values.index.floor("h")).mean()
    first = hourly.index[0] if len(hourly) else last
    return hourly.reindex(pd.date_range(first, last, freq="h", inclusive="left"))


def _clean(series: pd.Series) -> pd.Series:
    """Floats by UTC time, in order, one for each time."""
    if not isinstance(series.index, pd.DatetimeIndex):
        raise HistoryError(
            f"the history's index is a {type(series.index).__name__}: a DatetimeIndex is needed"
        )
    try:
        numbers = series.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise HistoryError(f"the history holds something that is not a number: {error}") from error
    index = series.index.tz_localize("UTC") if series.index.tz is None else series.index.tz_convert("UTC")
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    values = pd.Series(numbers, index=index.as_unit("us"))[~index.isna()].sort_index(kind="stable")
    if values.index.has_duplicates:
        values = values.groupby(level=0).mean()
    return values


def _end_of(index: pd.DatetimeIndex) -> pd.Timestamp:
    """End of the last hour that was over: a sample stands for the time until the next."""
    step = HOUR
    if len(index) > 1:
        microseconds = np.diff(
            index.as_unit("us").asi8
        )  # of integers the median is much faster than of times
        step = min(step, pd.Timedelta(int(np.median(microseconds)), unit="us"))
    return (index[-1] + step).floor("h")


def _utc(time: datetime | pd.Timestamp) -> pd.Timestamp:
    stamp = pd.Timestamp(time)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")
