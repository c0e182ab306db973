"""How right the capacity forecasts are, beside other programs: the same tasks, the same run.

    make bench-capacity                    on series that the benchmark makes
    make bench-capacity DATA=folder        on CSV files with the columns timestamp and value
    make bench-capacity ARGS=--quick       few series and tasks, to see that it works

Rolling origins: at each, a program sees at most 90 days of hourly history and forecasts the next 7 or 30.
Peers get histories whose gaps are filled, ours gets the gaps. A task's error is its mean absolute error in
parts of seasonal naive's (last week again) on that task; tasks are joined by the geometric mean. A slow
peer runs on a part of the tasks, and is compared with ours on the very same ones.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.capacity_data import NoSeriesError, Tasks, make_series, make_tasks, read_series
from benchmarks.capacity_peers import PEERS
from benchmarks.capacity_running import Forecasts, Machine, PeerFailedError
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.running import ROOT, load_average, machine, say, warn_of_load, work_folder
from fastvlm_ops.core.capacity import LEVELS, forecast_many

HORIZONS = {7: 168, 30: 720}
NAIVE = "seasonal naive 168"
_BEST_PEER_TARGET, _NAIVE_TARGET = 0.95, 0.90
_COVERAGE, _COVERAGE_POINTS = 95.0, 2.0
_MOST_MS, _LEAST_A_MINUTE, _MOST_MIB = 15.0, 6000.0, 350.0
_QUICK_SERIES, _QUICK_TASKS, _QUICK_SPEED = 4, 6, 64
_SPEED_SERIES = 3000


@dataclass(frozen=True)
class Beside:
    """A program beside ours on one horizon.

    :param name: with its version
    :param tasks: on which both ran
    :param failed: of them, where it gave no forecast; not compared
    :param ours: relative error of ours on them
    :param theirs: and of the peer
    :param ms: of the peer, a task
    """

    name: str
    tasks: int
    failed: int
    ours: float
    theirs: float
    ms: float


def relative_errors(paths: np.ndarray, actual: np.ndarray, naive: np.ndarray) -> np.ndarray:
    """Mean absolute error of each task in parts of seasonal naive's; NaN where there is no forecast."""
    tiny = 1e-9 * np.nanmax(np.abs(actual), axis=1) + 1e-300  # a constant is forecast without error
    mean = [np.nanmean(np.abs(found - actual), axis=1) + tiny for found in (paths, naive)]
    return np.where(np.isnan(paths).any(axis=1), np.nan, mean[0] / mean[1])


def geometric_mean(values: np.ndarray) -> float:
    """Of what is not NaN."""
    return float(np.exp(np.nanmean(np.log(values))))


def compare(tasks: Tasks, ours: np.ndarray, peers: dict[str, Forecasts]) -> list[Beside]:
    """Ours beside each peer, on the tasks that it ran on."""
    naive = peers[NAIVE].paths
    own = relative_errors(ours, tasks.actual, naive)
    rows = []
    for name, peer in peers.items():
        theirs = relative_errors(peer.paths, tasks.actual[peer.tasks], naive[peer.tasks])
        both = ~np.isnan(theirs)
        rows.append(
            Beside(
                name=f"{name} ({peer.versions})" if peer.versions else name,
                tasks=int(both.sum()),
                failed=int((~both).sum()),
                ours=geometric_mean(own[peer.tasks][both]),
                theirs=geometric_mean(theirs[both]),
                ms=float(np.median(peer.ms)),
            )
        )
    return rows


@dataclass(frozen=True)
class Bounds:
    """How good the one-sided bound of 95 % was: share of hours below it, and its scaled pinball loss."""

    coverage: float
    pinball: float


def judge_bounds(tasks: Tasks, upper: np.ndarray) -> Bounds:
    """The bound of all tasks; pinball loss is in parts of the history's mean change from week to week."""
    known = np.isfinite(tasks.actual)
    touching = upper + 1e-9 * np.abs(upper)  # a constant touches its bound
    covered = [
        (truth[k] <= top[k]).mean() for truth, top, k in zip(tasks.actual, touching, known, strict=True)
    ]
    change = np.nanmean(np.abs(tasks.measured[:, 168:] - tasks.measured[:, :-168]), axis=1)
    off = tasks.actual - upper
    loss = np.nanmean(np.maximum(0.95 * off, -0.05 * off), axis=1)
    return Bounds(float(np.mean(covered)), float(np.mean(loss[change > 0] / change[change > 0])))


# -- figures ---------------------------------------------------------------------------------------


def accuracy_figures(days: int, rows: list[Beside], bounds: Bounds) -> list[Figure]:
    """Of one horizon: the best peer first, then seasonal naive, then the others."""
    best = max((row for row in rows if row.tasks), key=lambda row: row.ours / row.theirs)
    naive = next(row for row in rows if row.name == NAIVE)
    others = [row for row in rows if row not in (best, naive)]
    figures = []
    for label, target, row in [
        (f"error at {days} days beside the best peer", _BEST_PEER_TARGET, best),
        (f"error at {days} days", _NAIVE_TARGET, naive),
        *((f"error at {days} days", _BEST_PEER_TARGET, row) for row in others),
    ]:
        name = f"{label}, {row.name}, {row.tasks} tasks"
        figures.append(Figure(name, row.ours, "of seasonal naive's", target, row.name, row.theirs))
    off = abs(bounds.coverage * 100 - _COVERAGE)
    name = f"95 % bound at {days} days covers {bounds.coverage:.1%}: off by"
    return [*figures, Figure(name, off, "points", _COVERAGE_POINTS)]


def speed_figures(found: Machine) -> list[Figure]:
    """Of forecasts of 30 days from 90 days of history."""
    return [
        Figure("one series at a time, 30 days ahead", found.single_ms, "ms", _MOST_MS),
        Figure("series in shards of 300, on one core", found.batch_ms, "ms", _MOST_MS),
        Figure("series a minute, 2 processes", found.a_minute, "series", _LEAST_A_MINUTE, better="higher"),
        Figure("memory of such a process", found.memory_bytes / 2**20, "MiB", _MOST_MIB),
    ]


def rows_table(found: dict[int, list[Beside]]) -> list[tuple[str, ...]]:
    """All programs, horizon by horizon."""
    rows = [("program", "days ahead", "tasks", "failed", "error", "ours on them", "ratio", "ms")]
    for days, besides in found.items():
        for row in sorted(besides, key=lambda row: row.ours / row.theirs, reverse=True):
            numbers = (
                f"{row.theirs:.3f}",
                f"{row.ours:.3f}",
                f"{row.ours / row.theirs:.3f}",
                f"{row.ms:.1f}",
            )
            rows.append((row.name, str(days), str(row.tasks), str(row.failed), *numbers))
    return rows


# -- command line ----------------------------------------------------------------------------------


def run(series: dict[str, np.ndarray], work: Path, quick: bool) -> tuple[list[Figure], dict[str, Any], str]:
    """Run the benchmark: its figures, details, and the table of all programs."""
    load = load_average()
    warn_of_load(load)
    running = Machine(work)
    figures, besides, details = [], {}, {}
    absent: dict[str, str] = {}
    for days, horizon in HORIZONS.items():
        tasks = make_tasks(series, horizon)
        tasks = tasks.part(np.linspace(0, len(tasks.names) - 1, _QUICK_TASKS).astype(int)) if quick else tasks
        say(f"{days} days ahead: {len(tasks.names)} tasks of {len(set(tasks.names))} series; ours ...")
        ours = forecast_many(tasks.measured, horizon)
        peers = {}
        for name in PEERS:
            say(f"{days} days ahead: {name} ...")
            try:
                peers[name] = running.peer(name, tasks, horizon)
            except PeerFailedError as error:
                say(str(error))
                absent[name] = str(error)
        besides[days] = compare(tasks, np.array([found.mean for found in ours]), peers)
        bounds = judge_bounds(tasks, np.array([found.quantiles[LEVELS.index(0.95)] for found in ours]))
        figures += accuracy_figures(days, besides[days], bounds)
        figures += [
            Figure(
                f"error at {days} days", besides[days][0].ours, "of seasonal naive's", _BEST_PEER_TARGET, text
            )
            for text in absent.values()
        ]
        details[f"{days} days"] = {"programs": [vars(row) for row in besides[days]], "bound": vars(bounds)}
    say("speed and memory ...")
    running.measure_speed(_QUICK_SPEED if quick else _SPEED_SERIES)
    details |= {"series": sorted(series), "absent": absent, "machine": machine(), "load_average": load}
    return figures + speed_figures(running), details, table(rows_table(besides))


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, write its results and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of CSV files with the columns timestamp and value")
    parser.add_argument("--quick", action="store_true", help="few series and tasks; shows no accuracy")
    parser.add_argument("--output", type=Path, help="folder for the results (benchmarks/results)")
    options = parser.parse_args(arguments)
    output = options.output or (ROOT / "build" / "bench-quick" if options.quick else RESULTS)
    try:
        series = read_series(options.data) if options.data else make_series()
        if options.quick:
            series = dict(list(series.items())[:_QUICK_SERIES])
        with work_folder(ROOT / "build" / "bench-capacity") as work:
            figures, details, programs = run(series, work, options.quick)
    except (NoSeriesError, PeerFailedError) as error:
        print(f"\nbench-capacity: {error}", file=sys.stderr)
        return 1
    write_figures(figures, output / "capacity.json")
    write_json(details, output / "details" / "capacity.json")
    print(f"\n{programs}\n\n{textwrap.fill((__doc__ or '').rpartition('Rolling')[2], 100)}\n")
    print(figures_table(figures))
    print(f"Written to {output / 'capacity.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
