"""Sessions of made-up devices, and the rules that others go by, for ``benchmarks/coreml.py``.

Noise is that of sessions, as a share: ordinary noise is normal, with 3 % of the sessions slower by 5 to 30 %;
heavy noise has Student's tails (3 degrees of freedom), differs from series to series as that of JMH
benchmarks does (median 1.7 %, a tenth of them above 7.9 %), and its nights differ by 1 % by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.changepoints import Night, find_change_points
from fastvlm_ops.core.coreml.comparing import compare_metric, sessions_to_add
from fastvlm_ops.core.coreml.verdicts import Verdict

Floats = NDArray[np.float64]

RULES = CompareRules()
THROTTLED_BY = 0.25
_NIGHTS_KNOWN = 12
_OUTLIERS, _OUTLIERS_FROM, _OUTLIERS_TO = 0.03, 0.05, 0.30
_HEAVY_MEDIAN, _HEAVY_SPREAD, _HEAVY_MOST, _HEAVY_NIGHTS = 0.017, 1.2, 0.2, 0.01

# Rules of others. Mozilla's Perfherder: back 12 to 24 runs, fore 12, t above 7, 2 % at least.
_PERCENT = 0.05
_PERFHERDER_BACK, _PERFHERDER_FORE, _PERFHERDER_T, _PERFHERDER_LEAST = 24, 12, 7.0, 0.02


@dataclass(frozen=True)
class Sessions:
    """What is known when a new version has been run.

    :param baseline: accepted sessions, oldest first
    :param candidate: of the first look
    :param spare: what a second look would see
    :param nights: sessions of each accepted run
    """

    baseline: Floats
    candidate: Floats
    spare: Floats
    nights: tuple[Floats, ...] = ()


Judge = Callable[[Sessions], Verdict]


def draw(generator: np.random.Generator, count: int, noise: float, *, throttled: float = 0.0) -> Floats:
    """Sessions of ordinary noise; of throttled devices, without other outliers."""
    logs = generator.normal(0, noise, count)
    slow = generator.random(count) < (throttled or _OUTLIERS)
    by = THROTTLED_BY if throttled else generator.uniform(_OUTLIERS_FROM, _OUTLIERS_TO, count)
    return 10 * np.exp(logs) * np.where(slow, 1 + by, 1)


def draw_trial(
    generator: np.random.Generator,
    sizes: tuple[int, int],
    noise: float,
    *,
    step: float = 0.0,
    throttled: float = 0.0,
    nights_differ: float = 0.0,
) -> Sessions:
    """A baseline and a candidate that is slower by a step.

    Where nights differ by themselves, a dozen of them are known, and the last sessions are the baseline.
    """
    before, after = sizes

    def night() -> Floats:
        level = np.exp(generator.normal(0, nights_differ))
        return level * draw(generator, 2 * after, noise, throttled=throttled)

    nights = tuple(night()[:after] for _ in range(_NIGHTS_KNOWN)) if nights_differ else ()
    baseline = (
        np.concatenate(nights)[-before:] if nights else draw(generator, before, noise, throttled=throttled)
    )
    candidate, spare = np.split((1 + step) * night(), 2)
    return Sessions(baseline, candidate, spare, nights)


def judge_ours(seen: Sessions) -> Verdict:
    """Ours: a first look that may ask for as many sessions again."""
    baseline, candidate = seen.baseline.tolist(), seen.candidate.tolist()
    more = seen.spare[: sessions_to_add(baseline, candidate, RULES)].tolist()
    nights = [night.tolist() for night in seen.nights]
    return compare_metric(baseline, candidate, RULES, confirming=more, nights=nights).verdict


def judge_percentage(seen: Sessions) -> Verdict:
    """5 % against the run before."""
    before = seen.baseline[-len(seen.candidate) :]
    return _by_change(seen.candidate.mean() / before.mean() - 1, _PERCENT)


def judge_perfherder(seen: Sessions) -> Verdict:
    """Perfherder's t test."""
    before, after = seen.baseline[-_PERFHERDER_BACK:], seen.candidate[:_PERFHERDER_FORE]
    change = after.mean() / before.mean() - 1
    return _by_change(change if _t(before, after) > _PERFHERDER_T else 0.0, _PERFHERDER_LEAST)


def _by_change(change: float, least: float) -> Verdict:
    if abs(change) < least:
        return Verdict.OK
    return Verdict.REGRESSION if change > 0 else Verdict.IMPROVEMENT


def _t(before: Floats, after: Floats) -> float:
    error = np.sqrt(before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after))
    return float(abs(after.mean() - before.mean()) / error)


JUDGES: dict[str, Judge] = {
    "ours": judge_ours,
    "5 % vs the previous run": judge_percentage,
    "Perfherder's t test": judge_perfherder,
}


def draw_history(
    generator: np.random.Generator, nights: int, sessions: int, *, noise: float | None, step: float, at: int
) -> Floats:
    """An array of nights and sessions, slower by a step from a night on; heavy noise where none is given."""
    if noise is None:
        own = min(_HEAVY_MOST, _HEAVY_MEDIAN * np.exp(_HEAVY_SPREAD * generator.normal()))
        logs = generator.standard_t(3, (nights, sessions)) * own / np.sqrt(3)
        values = np.exp(logs + generator.normal(0, _HEAVY_NIGHTS, (nights, 1)))
    else:
        values = draw(generator, nights * sessions, noise).reshape(nights, sessions)
    values[at:] *= 1 + step
    return values


Alarms = Callable[[Floats], list[int]]


def alarms_ours(history: Floats) -> list[int]:
    """Nights on which a change became certain."""
    return [one.found_at for one in find_change_points([Night(tuple(row)) for row in history], RULES)]


def alarms_percentage(history: Floats) -> list[int]:
    """Nights that differ by 5 % from the night before."""
    means = history.mean(axis=1)
    return (np.flatnonzero(np.abs(means[1:] / means[:-1] - 1) >= _PERCENT) + 1).tolist()


def alarms_perfherder(history: Floats) -> list[int]:
    """Nights on which Perfherder knows enough to call a change: the twelfth after it at the earliest."""
    means = history.mean(axis=1)
    splits = np.arange(_PERFHERDER_FORE, len(means) - _PERFHERDER_FORE + 1)
    t = np.array([_t(*_around(means, split)) for split in splits])
    changes = np.array([_change(*_around(means, split)) for split in splits])
    found = []
    for place in np.flatnonzero((t > _PERFHERDER_T) & (np.abs(changes) >= _PERFHERDER_LEAST)):
        around = t[max(0, place - _PERFHERDER_FORE) : place + _PERFHERDER_FORE]
        if t[place] == around.max():
            found.append(int(splits[place]) + _PERFHERDER_FORE - 1)
    return found


def _around(means: Floats, split: int) -> tuple[Floats, Floats]:
    return means[max(0, split - _PERFHERDER_BACK) : split], means[split : split + _PERFHERDER_FORE]


def _change(before: Floats, after: Floats) -> float:
    return float(after.mean() / before.mean() - 1)


WATCHERS: dict[str, Alarms] = {
    "ours": alarms_ours,
    "5 % vs the previous run": alarms_percentage,
    "Perfherder's t test": alarms_perfherder,
}


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of each verdict, in per cent."""
    return {str(kind): 100 * verdicts.count(kind) / len(verdicts) for kind in Verdict if kind in verdicts}
