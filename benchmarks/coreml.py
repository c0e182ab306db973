"""How often regressions are called rightly and wrongly, beside what others go by, on the same sessions.

    make bench-coreml
    make bench-coreml ARGS=--quick         few trials and sessions, to see that it works

Beside ours: 5 % against the previous run, and Mozilla's Perfherder (a t test: 12 to 24 runs back, 12 fore,
t above 7). What is made up is drawn with seeds that nothing was tuned on. What is real are sessions of a
process of our own, one after the other on one core: nothing changes between them, so each alert is false;
as they came, they are read as nights of 12, of which eight to twelve are known.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from benchmarks.coreml_inspection import inspection_figures
from benchmarks.coreml_simulation import (
    JUDGES,
    WATCHERS,
    Floats,
    Sessions,
    draw_history,
    draw_trial,
    shares,
)
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.running import ROOT, load_average, machine, say, warn_of_load
from fastvlm_ops.core.coreml.verdicts import Verdict

_SEED = 6_041_989
_TRIALS, _QUICK_TRIALS = 1000, 40
_SERIES, _QUICK_SERIES = 300, 10
_FALSE_NIGHTS, _NIGHTS_BEFORE, _NIGHTS_AFTER, _IN_TIME = 120, 30, 20, 4
_SESSIONS, _QUICK_SESSIONS = 480, 124
_BASELINE, _CANDIDATE, _STRIDE = 40, 12, 2
_NIGHTS_LEAST, _NIGHTS_MOST = 8, 12
_QUARTILES_OF_NORMAL = 1.349
_WATCHES = {"clock": "by the clock", "processor": "by the time of the processor"}
_STEP = 0.05
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_OURS = "ours"


@dataclass(frozen=True)
class Scenario:
    """Trials of one kind.

    :param name: for people
    :param sizes: sessions of the baseline and of the candidate
    :param noise: of a session
    :param step: by which the candidate is slower
    :param throttled: share of sessions that are a quarter slower
    :param wanted: verdicts whose share is the figure
    :param target: for it, in per cent
    :param better: whether more or less of them is better
    :param nights_differ: by themselves, by so much
    """

    name: str
    sizes: tuple[int, int]
    noise: float
    step: float
    throttled: float
    wanted: tuple[Verdict, ...]
    target: float
    better: Literal["lower", "higher"]
    nights_differ: float = 0.0


_ALERTS = (Verdict.REGRESSION, Verdict.IMPROVEMENT)
_FOUND = (Verdict.REGRESSION,)
_UNSTABLE = (Verdict.UNSTABLE,)
SCENARIOS = (
    Scenario("unchanged, 3 % noise, 40/12 sessions: alerts", (40, 12), 0.03, 0, 0, _ALERTS, 1, "lower"),
    Scenario("unchanged, 1 % noise, 20/5: alerts", (20, 5), 0.01, 0, 0, _ALERTS, 1, "lower"),
    Scenario("+5 %, 3 % noise, 40/12: found", (40, 12), 0.03, _STEP, 0, _FOUND, 90, "higher"),
    Scenario("+5 %, 1 % noise, 20/5: found", (20, 5), 0.01, _STEP, 0, _FOUND, 97, "higher"),
    Scenario("unchanged, 20 % throttled, 40/12: alerts", (40, 12), 0.03, 0, 0.2, _ALERTS, 1, "lower"),
    Scenario("+5 %, 20 % throttled, 40/12: found", (40, 12), 0.03, _STEP, 0.2, _FOUND, 90, "higher"),
    Scenario("unchanged, 40 % throttled, 40/12: alerts", (40, 12), 0.03, 0, 0.4, _ALERTS, 1, "lower"),
    Scenario("unchanged, 40 % throttled, 40/12: UNSTABLE", (40, 12), 0.03, 0, 0.4, _UNSTABLE, 90, "higher"),
    Scenario("unchanged, nights differ by 1 %: alerts", (40, 12), 0.03, 0, 0, _ALERTS, 1, "lower", 0.01),
    Scenario("+10 %, nights differ by 1 %: found", (40, 12), 0.03, 0.10, 0, _FOUND, 90, "higher", 0.01),
)


def judge_all(trials: list[Sessions]) -> dict[str, dict[str, float]]:
    """Shares of the verdicts by each rule on the same trials."""
    return {name: shares([judge(seen) for seen in trials]) for name, judge in JUDGES.items()}


def _share(found: dict[str, float], wanted: tuple[Verdict, ...]) -> float:
    return sum(found.get(str(kind), 0.0) for kind in wanted)


def run_scenarios(trials: int) -> tuple[list[Figure], list[dict[str, Any]]]:
    """What is made up, one candidate at a time."""
    figures, rows = [], []
    for number, one in enumerate(SCENARIOS):
        generator = np.random.default_rng((_SEED, number))
        drawn = [
            draw_trial(
                generator,
                one.sizes,
                one.noise,
                step=one.step,
                throttled=one.throttled,
                nights_differ=one.nights_differ,
            )
            for _ in range(trials)
        ]
        found = judge_all(drawn)
        row = {"name": one.name, **{name: _share(share, one.wanted) for name, share in found.items()}}
        say(f"{one.name}: {row[_OURS]:.1f} %")
        figures.append(Figure(one.name, row[_OURS], "%", one.target, better=one.better))
        rows.append(row)
    return figures, rows


def run_histories(series: int) -> tuple[list[Figure], list[dict[str, Any]]]:
    """What is made up, night by night."""
    figures, rows = [], []
    kinds = [
        ("3 % noise, 12 sessions a night", 0.03, 12),
        ("3 % noise, 5 sessions a night", 0.03, 5),
        ("heavy noise, 12 sessions a night", None, 12),
    ]
    for number, (name, noise, sessions) in enumerate(kinds):
        generator = np.random.default_rng((_SEED, 100 + number))
        still = [
            draw_history(generator, _FALSE_NIGHTS, sessions, noise=noise, step=0, at=0) for _ in range(series)
        ]
        stepped = [
            draw_history(
                generator,
                _NIGHTS_BEFORE + _NIGHTS_AFTER,
                sessions,
                noise=noise,
                step=_STEP,
                at=_NIGHTS_BEFORE,
            )
            for _ in range(series)
        ]
        false, in_time, ever = {}, {}, {}
        for rule, watch in WATCHERS.items():
            alarms = sum(len(watch(history)) for history in still)
            false[rule] = 1000 * alarms / (series * _FALSE_NIGHTS)
            delays = [_delay(watch(history)) for history in stepped]
            in_time[rule] = 100 * sum(delay is not None and delay <= _IN_TIME for delay in delays) / series
            ever[rule] = 100 * sum(delay is not None for delay in delays) / series
        titles = (
            f"{name}: false alarms in 1,000 nights",
            f"{name}: +5 % found within {_IN_TIME} nights",
            f"{name}: +5 % found within {_NIGHTS_AFTER} nights",
        )
        rows += [
            {"name": title, **found} for title, found in zip(titles, (false, in_time, ever), strict=True)
        ]
        figures += [
            Figure(titles[0], false[_OURS], "", 1.0),
            Figure(titles[1], in_time[_OURS], "%", 80.0, better="higher"),
        ]
        say(f"{name}: {false[_OURS]:.2f} false in 1,000 nights, {in_time[_OURS]:.1f} % found in time")
    return figures, rows


def _delay(alarms: list[int]) -> int | None:
    """Nights from the step to the first alarm after it, the night of the step being the first."""
    after = [alarm - _NIGHTS_BEFORE + 1 for alarm in alarms if alarm >= _NIGHTS_BEFORE]
    return after[0] if after else None


def measure_sessions(count: int) -> dict[str, Floats]:
    """Medians of real sessions, one process each, one after the other, by two watches."""
    environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
    command = [sys.executable, "-m", "benchmarks.coreml_worker"]
    medians: dict[str, list[float]] = {watch: [] for watch in _WATCHES}
    for _ in range(count):
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
        found = json.loads(done.stdout)
        for watch, kept in medians.items():
            kept.append(float(np.median(found[f"{watch}_ms"])))
    return {watch: np.array(kept) for watch, kept in medians.items()}


def in_order(medians: Floats) -> Iterator[Sessions]:
    """Each stretch of sessions as they came: up to a dozen nights before, the first look, the second."""
    for now in range(_NIGHTS_LEAST * _CANDIDATE, len(medians) - 2 * _CANDIDATE + 1, _STRIDE):
        yield _trial(medians[max(0, now - _NIGHTS_MOST * _CANDIDATE) : now + 2 * _CANDIDATE])


def resampled(medians: Floats, trials: int) -> Iterator[Sessions]:
    """The same sessions in random order, so that no other program's work falls on one side alone."""
    generator = np.random.default_rng((_SEED, 200))
    for _ in range(trials):
        yield _trial(generator.permutation(medians)[: (_NIGHTS_LEAST + 2) * _CANDIDATE])


def _trial(medians: Floats) -> Sessions:
    before, candidate, spare = np.split(medians, [-2 * _CANDIDATE, -_CANDIDATE])
    nights = np.split(before, range(len(before) % _CANDIDATE, len(before), _CANDIDATE))
    return Sessions(before[-_BASELINE:], candidate, spare, tuple(nights))


def _slowed(seen: Sessions, step: float) -> Sessions:
    return replace(seen, candidate=seen.candidate * (1 + step), spare=seen.spare * (1 + step))


def run_real(sessions: int, trials: int) -> tuple[list[Figure], list[dict[str, Any]], dict[str, Any]]:
    """A/A, and a step of 5 % put onto the candidate, on sessions that are measured here."""
    say(f"measuring {sessions} real sessions")
    figures, rows, details = [], [], {}
    for watch, medians in measure_sessions(sessions).items():
        scatter = float(np.subtract(*np.quantile(np.log(medians), (0.75, 0.25))) / _QUARTILES_OF_NORMAL)
        details[watch] = {"noise": scatter, "medians_ms": [round(float(value), 4) for value in medians]}
        name = f"real processes, {_WATCHES[watch]}"
        ordered, mixed = list(in_order(medians)), list(resampled(medians, trials))
        for title, drawn, wanted in (
            (f"{name}, unchanged: alerts", ordered, _ALERTS),
            (f"{name}, unchanged, in random order: alerts", mixed, _ALERTS),
            (f"{name}, +5 %: found", [_slowed(one, _STEP) for one in ordered], _FOUND),
        ):
            verdicts = judge_all(drawn)
            row = {"name": title, **{rule: _share(share, wanted) for rule, share in verdicts.items()}}
            say(f"{title}: {row[_OURS]:.1f} %, {verdicts[_OURS]}")
            rows.append(row)
            if wanted is _ALERTS:
                figures.append(Figure(title, row[_OURS], "%", 1.0))
    return figures, rows, details


def main() -> None:
    """Run everything, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few trials, nothing is written")
    quick = parser.parse_args().quick
    load = load_average()
    warn_of_load(load)
    trials, series, sessions = (
        (_QUICK_TRIALS, _QUICK_SERIES, _QUICK_SESSIONS) if quick else (_TRIALS, _SERIES, _SESSIONS)
    )
    real_figures, real_rows, real = run_real(sessions, trials)
    figures, rows = run_scenarios(trials)
    night_figures, night_rows = run_histories(series)
    say("inspecting a package of 500 MiB")
    figures = [*figures, *night_figures, *real_figures, *inspection_figures()]
    rows = [*rows, *night_rows, *real_rows]
    head = ("", *JUDGES)
    print(table([head, *[(row["name"], *(f"{row[name]:.1f}" for name in JUDGES)) for row in rows]]))
    print(figures_table(figures))
    if not quick:
        write_figures(figures, RESULTS / "coreml.json")
        details = {"machine": machine(), "load_average": load, "trials": trials, "series": series}
        write_json({**details, "rows": rows, "real": real}, RESULTS / "details" / "coreml.json")
    sys.exit(0 if quick or all(figure.met for figure in figures) else 1)


if __name__ == "__main__":
    main()
