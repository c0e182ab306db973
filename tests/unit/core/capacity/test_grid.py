"""Samples at any times become hours in UTC."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fastvlm_ops.core.capacity.grid import HistoryError, to_grid
from tests.unit.core.capacity.series import START, as_series, loads


def test_samples_of_an_hour_are_averaged() -> None:
    times = pd.date_range("2026-01-05", periods=24, freq="5min", tz="UTC")
    grid = to_grid(pd.Series(np.arange(24.0), index=times))
    assert list(grid) == [5.5, 17.5]
    assert str(grid.index.tz) == "UTC"


def test_the_unfinished_hour_is_dropped() -> None:
    times = pd.date_range("2026-01-05", periods=18, freq="5min")
    assert list(to_grid(pd.Series(1.0, index=times)).index.hour) == [0]


def test_a_missing_row_is_a_gap_and_not_zero() -> None:
    series = as_series(loads(3)).drop(START + pd.Timedelta(hours=30))
    grid = to_grid(series)
    assert len(grid) == 72
    assert list(np.flatnonzero(grid.isna())) == [30]


def test_duplicates_and_disorder_change_nothing() -> None:
    series = as_series(loads(3))
    twice = pd.concat([series, series.iloc[10:40]]).sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(to_grid(twice), to_grid(series))


def test_infinity_is_no_data() -> None:
    values = loads(2)
    values[[3, 9]] = np.inf, -np.inf
    assert list(np.flatnonzero(to_grid(as_series(values)).isna())) == [3, 9]


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"], ids=["23 hours", "25 hours"])
def test_a_change_of_the_clock_loses_and_doubles_nothing(day: str) -> None:
    start = pd.Timestamp(day, tz="UTC") - pd.Timedelta(days=1)
    series = pd.Series(np.arange(72.0), index=pd.date_range(start, periods=72, freq="h"))
    pd.testing.assert_series_equal(to_grid(series.tz_convert("Europe/Berlin")), to_grid(series))


def test_what_comes_after_the_end_is_left_out() -> None:
    series = as_series(loads(3))
    end = START + pd.Timedelta(hours=50)
    grid = to_grid(series, end)
    assert grid.index[-1] == end - pd.Timedelta(hours=1)
    later = series.copy()
    later[end:] = 1e9
    pd.testing.assert_series_equal(to_grid(later, end), grid)


def test_silence_before_the_end_is_a_gap() -> None:
    grid = to_grid(as_series(loads(2)), START + pd.Timedelta(days=3))
    assert len(grid) == 72
    assert grid.iloc[48:].isna().all()


def test_nothing_on_no_grid_is_refused_with_a_remedy() -> None:
    with pytest.raises(HistoryError, match="give at least one timestamp"):
        to_grid(pd.Series([], dtype=float, index=pd.DatetimeIndex([])))
    assert len(to_grid(pd.Series([], dtype=float, index=pd.DatetimeIndex([])), START)) == 0


def test_other_things_than_numbers_by_time_are_refused() -> None:
    with pytest.raises(HistoryError, match="DatetimeIndex is needed"):
        to_grid(pd.Series([1.0, 2.0]))
    with pytest.raises(HistoryError, match="not a number"):
        to_grid(pd.Series(["much"], index=[START]))
