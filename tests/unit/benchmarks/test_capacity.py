"""The benchmark of forecasts: its tasks, and how it counts errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.capacity import NAIVE, Bounds, accuracy_figures, compare, judge_bounds, relative_errors
from benchmarks.capacity_data import NoSeriesError, make_series, make_tasks, read_series
from benchmarks.capacity_peers import PEERS, run
from benchmarks.capacity_running import Forecasts


def test_no_task_shows_what_comes_after_its_origin() -> None:
    values = np.arange(60 * 24.0)
    tasks = make_tasks({"rising": values}, 168)
    assert len(tasks.names) == 4
    assert (tasks.actual[:, 0] - tasks.measured[:, -1] == 1).all()
    assert (np.nanmax(tasks.measured, axis=1) < tasks.actual.min(axis=1)).all()


def test_gaps_are_filled_for_peers_only() -> None:
    values = np.tile(np.arange(24.0), 60)
    values[300:310] = np.nan
    tasks = make_tasks({"gap": values}, 168)
    assert np.isnan(tasks.measured[0, -len(values) + 168 :]).sum() == 10
    assert np.isnan(tasks.filled[0]).sum() == np.isnan(tasks.measured[0]).sum() - 10


def test_series_are_the_same_in_each_run() -> None:
    one, two = make_series(3, 60), make_series(3, 60)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


def test_csv_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T02:00:00Z,3\n")
    np.testing.assert_array_equal(read_series(tmp_path)["a"], [1, np.nan, 3])
    (tmp_path / "b.csv").write_text("time,load\n1,2\n")
    with pytest.raises(NoSeriesError, match=r"b\.csv"):
        read_series(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSeriesError, match="no CSV files"):
        read_series(tmp_path)


@pytest.mark.parametrize("name", [name for name, (_, packages, _) in PEERS.items() if not packages])
def test_peers_repeat_a_week_that_repeats(name: str) -> None:
    week = np.tile(np.arange(7.0).repeat(24), 6)
    paths, _ = run(name, week[None, :], 168)
    off = np.abs(paths[0] - week[:168]).mean()
    assert off < (2 if name == "predict_linear" else 1e-9)


def test_a_peer_is_compared_on_the_tasks_that_it_ran_on() -> None:
    tasks = make_tasks({"rising": np.arange(60 * 24.0)}, 168)
    naive = Forecasts(tasks.every(1), tasks.actual - 100, np.ones(4), "")
    half = Forecasts(tasks.every(2), tasks.actual[::2] - 50, np.ones(2), "x 1.0")
    ours = tasks.actual - np.array([25.0, 400.0, 25.0, 400.0])[:, None]
    rows = {row.name: row for row in compare(tasks, ours, {NAIVE: naive, "half": half})}
    assert rows["half (x 1.0)"].tasks == 2
    assert rows["half (x 1.0)"].ours == pytest.approx(0.25)
    assert rows["half (x 1.0)"].theirs == pytest.approx(0.5)
    assert rows[NAIVE].ours == pytest.approx(1.0)
    figures = accuracy_figures(7, list(rows.values()), Bounds(0.98, 0.5))
    assert [figure.met for figure in figures] == [False, False, True, False]


def test_a_task_without_forecast_has_no_error() -> None:
    actual = np.ones((2, 3))
    paths = np.array([[2.0, 2, 2], [np.nan, 2, 2]])
    found = relative_errors(paths, actual, np.zeros((2, 3)))
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1])


def test_coverage_is_the_share_of_hours_below_the_bound() -> None:
    tasks = make_tasks({"rising": np.arange(60 * 24.0)}, 168)
    half = np.median(tasks.actual, axis=1, keepdims=True) * np.ones((1, 168))
    assert judge_bounds(tasks, half).coverage == pytest.approx(0.5)
    assert judge_bounds(tasks, tasks.actual).coverage == 1.0
