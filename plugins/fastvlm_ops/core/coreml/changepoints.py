"""When the level of a nightly metric changed for good.

Nights are read in order, as they come: a change that was found stays found, whatever later nights bring, so a
page and an alarm never disagree about the past. At each night the last few nights are held against those
before them, back to the last change. One bad night is no change, nor is one good night among bad ones.

The unit is the night. How much nights vary is estimated from them, robustly, and never taken to be less than
what their sessions alone explain. A night's level is a trimmed mean without its throttled sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.spread import Floats, find_near

# Each night makes about ten tests of two sides, which agree mostly: at this part of the rules' p value, fewer
# than one false alarm is left in a thousand nights.
_P_VALUE_PARTS = 0.02
_LONGEST_BEFORE = 40  # nights: older ones tell little of how the device is now
_FEWEST_BEFORE = 6  # nights, where nothing is known yet of how much they vary
_FEWEST_AFTER, _LONGEST_AFTER = 2, 12
_TRIM = 0.2
# Of the nights after a change, so many have to be beyond half the smallest effect.
_AGREEING = 0.75
# What was learnt of the nights' variation before a change counts like so many nights at most afterwards.
_REMEMBERED = 12.0


@dataclass(frozen=True)
class Night:
    """One run of the nightly history.

    :param values: one a session, above 0
    :param epoch: in which it ran; where it changes, a new history starts
    :param run_key: of the run
    """

    values: tuple[float, ...]
    epoch: str = ""
    run_key: str = ""


@dataclass(frozen=True)
class ChangePoint:
    """A night from which on the level is another one.

    :param index: of the first night after the change, in the history as it was given
    :param found_at: index of the night by which it was certain
    :param before: level before it
    :param after: level from it on, as it was known by then
    :param change: of the level in parts of what it was: 0.05 is 5 % more
    :param p_value: two-sided, of the night by which it was certain
    """

    index: int
    found_at: int
    before: float
    after: float
    change: float
    p_value: float


@dataclass(frozen=True)
class _Level:
    """What some nights say together: logarithms."""

    centre: float
    variance: float
    freedom: float
    weight: float


def find_change_points(
    series: Sequence[Night], rules: CompareRules, *, effect: float | None = None
) -> list[ChangePoint]:
    """Return where the level of a history changed, oldest first.

    :param series: nights, oldest first; nights without values are skipped
    :param rules: what counts as a change
    :param effect: changes below are none; the rules' ``minimum_effect`` by default
    """
    needed = float(np.log1p(rules.minimum_effect if effect is None else effect))
    kept = [index for index, night in enumerate(series) if night.values]
    found: list[ChangePoint] = []
    start = 0
    while start < len(kept):
        epoch = series[kept[start]].epoch
        end = next((n for n in range(start, len(kept)) if series[kept[n]].epoch != epoch), len(kept))
        indices = kept[start:end]
        scan = _Scan([series[index].values for index in indices], needed, rules.p_value * _P_VALUE_PARTS)
        found += [
            ChangePoint(
                index=indices[one.index],
                found_at=indices[one.found_at],
                before=one.before,
                after=one.after,
                change=one.change,
                p_value=one.p_value,
            )
            for one in scan.run()
        ]
        start = end
    return found


class _Scan:
    """Reads the nights of one epoch in order.

    :param nights: values of each night
    :param needed: smallest change that counts, as a logarithm
    :param p_value: that a change has to be below
    """

    def __init__(self, nights: Sequence[Sequence[float]], needed: float, p_value: float) -> None:
        levels = [_night(np.log(np.array(values, dtype=float)), needed) for values in nights]
        self._centres = np.array([centre for centre, _ in levels])
        self._errors = np.array([error for _, error in levels])
        self._needed = needed
        self._p_value = p_value
        self._start = 0
        self._remembered: _Level | None = None
        self._before: dict[int, _Level | None] = {}

    def run(self) -> list[ChangePoint]:
        """Return the changes, oldest first."""
        found = []
        for last in range(len(self._centres)):
            change = self._look(last)
            if change is not None:
                found.append(change)
                self._remembered = self._before[change.index]
                self._start = change.index
                self._before = {}
        return found

    def _look(self, last: int) -> ChangePoint | None:
        """The change that is certain by this night, or None."""
        best: ChangePoint | None = None
        for length in range(_FEWEST_AFTER, _LONGEST_AFTER + 1):
            split = last + 1 - length
            if split <= self._start:
                break
            before = self._before_split(split)
            if before is None:
                break
            change = self._test(before, split, last)
            if change is not None and (best is None or change.p_value < best.p_value):
                best = change
        return best

    def _before_split(self, split: int) -> _Level | None:
        if split not in self._before:
            nights = slice(max(self._start, split - _LONGEST_BEFORE), split)
            self._before[split] = _level(self._centres[nights], self._errors[nights], self._remembered)
        return self._before[split]

    def _test(self, before: _Level, split: int, last: int) -> ChangePoint | None:
        from scipy.special import stdtr

        after = self._centres[split : last + 1]
        centre = _trimmed(after)
        shift = centre - before.centre
        if abs(shift) < self._needed:
            return None
        agreeing = np.sign(shift) * (after - before.centre) > self._needed / 2
        if agreeing.sum() < max(_FEWEST_AFTER, _AGREEING * len(after)):
            return None
        error = np.sqrt(before.variance * (1 / len(after) + 1 / before.weight))
        p_value = 2 * float(stdtr(before.freedom, -abs(shift) / error)) if error > 0 else 0.0
        if p_value >= self._p_value:
            return None
        return ChangePoint(
            index=split,
            found_at=last,
            before=float(np.exp(before.centre)),
            after=float(np.exp(centre)),
            change=float(np.expm1(shift)),
            p_value=p_value,
        )


def _night(values: Floats, needed: float) -> tuple[float, float]:
    """Level of a night, and the variance that it has by its sessions alone."""
    near = values[find_near([values], 3 * needed)[0]]
    if len(near) < 2:
        return float(near[0]), 0.0
    return _trimmed(near), _winsorized(near) / len(near)


def _level(centres: Floats, errors: Floats, remembered: _Level | None) -> _Level | None:
    """What nights say together, or None where they are too few."""
    count = len(centres)
    if count < (_FEWEST_BEFORE if remembered is None else _FEWEST_AFTER):
        return None
    freedom, variance = float(count - 1 - 2 * int(_TRIM * count)), _winsorized(centres)
    if remembered is not None:
        weight = max(0.0, min(remembered.freedom, _REMEMBERED - freedom))
        variance = (freedom * variance + weight * remembered.variance) / (freedom + weight)
        freedom += weight
    return _Level(
        centre=_trimmed(centres),
        variance=max(variance, float(np.median(errors))),
        freedom=freedom,
        weight=float(count),
    )


def _trimmed(values: Floats) -> float:
    """Mean without the lowest and the highest fifth."""
    cut = int(_TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _winsorized(values: Floats) -> float:
    """Variance of the trimmed mean's kind, per value (Yuen)."""
    count = len(values)
    cut = int(_TRIM * count)
    ordered = np.sort(values)
    clipped = np.clip(values, ordered[cut], ordered[count - 1 - cut])
    kept = count - 2 * cut
    return float(clipped.var(ddof=1)) * (count - 1) / (kept - 1) * count / kept if kept > 1 else 0.0
