"""Whether a metric of a new version got worse, from one value a session.

Sessions are the unit: thousands of predictions within one launch share its luck, and a test that counts them
as thousands finds differences between equal models in every second case. So each session gives one value, and
the groups are compared by ranks (Mann-Whitney), which no outlier upsets. A difference counts once it is both
improbable and large enough to matter.

A first look may only ask for more sessions (:func:`sessions_to_add`). An alarm then needs all sessions
together *and* the added ones by themselves, so that looking twice makes no false alarms, nor does what was
only wrong with the device during the first look.

Values are times or bytes: above 0, and higher is worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.ranks import Shift, shift
from fastvlm_ops.core.coreml.spread import (
    Bools,
    Floats,
    find_near,
    has_two_speeds,
    too_many_far,
    variation_of_nights,
)
from fastvlm_ops.core.coreml.verdicts import Verdict

FEWEST_SESSIONS = 5  # of a group: 5 against 5 is the least that can reach p < 0.01 by ranks

# A first look asks for more from here on: well below an alarm, so that hardly a true one is turned away.
_SUSPICIOUS_P, _SUSPICIOUS_EFFECT = 0.02, 0.6
_SUSPICIOUS_FAR = 0.6  # of the share of throttled sessions with which nothing is concluded
# What the added sessions by themselves must show: they are few, and the alarm is already held by all.
_CONFIRMING_P, _CONFIRMING_EFFECT = 0.05, 0.5
# Sessions within so many effects of their group's centre are never taken for throttled ones.
_NEVER_FAR_EFFECTS = 3.0
# An interval that reaches further than so many effects, and further than the change is large, says nothing:
# OK would promise too much, and on so restless a device a rare chance is none.
_WIDEST_EFFECTS = 4.0


@dataclass(frozen=True)
class Comparison:
    """A candidate beside its baseline.

    :param verdict: what is said of it
    :param change: of the candidate in parts of the baseline: 0.05 is 5 % more; None where it is not known
    :param low: lower end of the confidence interval of the change
    :param high: upper end
    :param p_value: one-sided, in the direction of the change
    :param baseline_value: median of the sessions that were compared
    :param candidate_value: likewise
    :param n_baseline: sessions that were compared
    :param n_candidate: likewise
    :param reason: one sentence for a person
    :param left_out: sessions of the baseline and of the candidate that were far from the others of their
        group, and were not compared
    """

    verdict: Verdict
    change: float | None
    low: float | None
    high: float | None
    p_value: float | None
    baseline_value: float | None
    candidate_value: float | None
    n_baseline: int
    n_candidate: int
    reason: str
    left_out: tuple[int, int] = (0, 0)


def compare_metric(
    baseline: Sequence[float],
    candidate: Sequence[float],
    rules: CompareRules,
    *,
    confirming: Sequence[float] = (),
    effect: float | None = None,
    nights: Sequence[Sequence[float]] = (),
) -> Comparison:
    """Say whether a candidate is worse than its baseline, from one value a session.

    :param baseline: of the accepted sessions
    :param candidate: of the sessions of the first look
    :param rules: what counts as worse
    :param confirming: of the sessions that were added to confirm a suspicion
    :param effect: changes below are none; the rules' ``minimum_effect`` by default
    :param nights: of the sessions of each accepted run, as many runs as are known; where those differ from
        each other by more than their sessions explain, a candidate has to differ from them by more than that
    """
    effect = rules.minimum_effect if effect is None else effect
    refused = _refusal(baseline, [*candidate, *confirming])
    if refused is not None:
        return refused
    before, after = (
        np.log(np.array(values, dtype=float)) for values in (baseline, [*candidate, *confirming])
    )
    smallest = _NEVER_FAR_EFFECTS * float(np.log1p(effect))
    near = find_near((before, after), smallest)
    kept = (before[near[0]], after[near[1]])
    found = shift(*kept, rules.p_value)
    said = _describe(found, kept, near)
    slower = 0 if found.estimate < 0 else 1
    two_speeds = has_two_speeds((before, after)[slower], near[slower], rules.unstable_share)
    if two_speeds or too_many_far(near, rules.unstable_share):
        return replace(said, verdict=Verdict.UNSTABLE, reason=_far_in_words(near))
    needed = float(np.log1p(effect))
    width = found.high - found.low
    if width > max(2 * _WIDEST_EFFECTS * needed, abs(found.estimate)):
        return replace(said, verdict=Verdict.UNSTABLE, reason=f"too scattered to tell: {said.reason}")
    varies = variation_of_nights(
        _nights(nights, smallest), found.error, rules.p_value / 2, compared=len(kept[0])
    )  # half of it: a night may be off either way
    if found.p_value < rules.p_value and abs(found.estimate) >= needed:
        if abs(found.estimate) < varies:
            reason = f"{said.reason}; nights differ by up to {np.expm1(varies):.1%} by themselves"
            return replace(said, verdict=Verdict.UNSTABLE, reason=reason)
        fresh = after[len(candidate) :][near[1][len(candidate) :]]
        if not _confirmed(kept[0], fresh, found, needed, rules):
            return replace(said, reason=f"{said.reason}; the sessions that were added did not confirm it")
        worse = Verdict.REGRESSION if found.estimate > 0 else Verdict.IMPROVEMENT
        return replace(said, verdict=worse)
    return said


def sessions_to_add(
    baseline: Sequence[float], candidate: Sequence[float], rules: CompareRules, *, effect: float | None = None
) -> int:
    """Return how many sessions a first look asks for; 0 where it saw nothing that needs another look.

    :param baseline: of the accepted sessions
    :param candidate: of the first look's sessions
    :param rules: what counts as worse
    :param effect: as for :func:`compare_metric`
    """
    effect = rules.minimum_effect if effect is None else effect
    seen = compare_metric(baseline, candidate, rules, effect=effect)
    far = sum(seen.left_out) / max(1, len(baseline) + len(candidate))
    if seen.verdict is Verdict.UNSTABLE or far > _SUSPICIOUS_FAR * rules.unstable_share:
        return len(candidate)
    if seen.change is None or seen.p_value is None:
        lacking = FEWEST_SESSIONS - len(candidate)
        return max(0, lacking) if len(baseline) >= FEWEST_SESSIONS else 0
    suspicious = abs(np.log1p(seen.change)) >= _SUSPICIOUS_EFFECT * np.log1p(effect)
    return len(candidate) if suspicious and seen.p_value < _SUSPICIOUS_P else 0


def _refusal(baseline: Sequence[float], candidate: Sequence[float]) -> Comparison | None:
    """Why nothing can be compared, or None."""
    reason = ""
    if not all(0 < value < np.inf for value in (*baseline, *candidate)):
        reason = "a session's value is not above 0"
    for name, values in (("baseline", baseline), ("candidate", candidate)):
        if len(values) < FEWEST_SESSIONS:
            reason = f"the {name} has {len(values)} sessions, at least {FEWEST_SESSIONS} are needed"
    if not reason:
        return None
    return Comparison(
        verdict=Verdict.INSUFFICIENT,
        change=None,
        low=None,
        high=None,
        p_value=None,
        baseline_value=float(np.median(baseline)) if baseline else None,
        candidate_value=float(np.median(candidate)) if candidate else None,
        n_baseline=len(baseline),
        n_candidate=len(candidate),
        reason=reason,
    )


def _describe(found: Shift, kept: tuple[Floats, Floats], near: Sequence[Bools]) -> Comparison:
    """The comparison in figures and words; its verdict is OK so far."""
    change, low, high = (float(np.expm1(value)) for value in (found.estimate, found.low, found.high))
    left_out = (int((~near[0]).sum()), int((~near[1]).sum()))
    far = f"; left out as far from the others: {sum(left_out)}" if any(left_out) else ""
    return Comparison(
        verdict=Verdict.OK,
        change=change,
        low=low,
        high=high,
        p_value=found.p_value,
        baseline_value=float(np.exp(np.median(kept[0]))),
        candidate_value=float(np.exp(np.median(kept[1]))),
        n_baseline=len(kept[0]),
        n_candidate=len(kept[1]),
        reason=(
            f"{change:+.1%} ({low:+.1%} to {high:+.1%}), {len(kept[1])} sessions against {len(kept[0])}{far}"
        ),
        left_out=left_out,
    )


def _nights(nights: Sequence[Sequence[float]], smallest: float) -> list[Floats]:
    """Logarithms of the sessions of each night that are near."""
    logs = [np.log(np.array(values, dtype=float)) for values in nights if values]
    return [one[keep] for one, keep in zip(logs, find_near(logs, smallest), strict=True)] if logs else []


def _confirmed(before: Floats, fresh: Floats, found: Shift, needed: float, rules: CompareRules) -> bool:
    """Whether the added sessions by themselves show it too; where there are none, nothing denies it."""
    if not len(fresh):
        return True
    again = shift(before, fresh, rules.p_value)
    same_way = again.estimate * found.estimate > 0
    large = abs(again.estimate) >= _CONFIRMING_EFFECT * needed
    return same_way and large and (again.p_value < _CONFIRMING_P or len(fresh) < FEWEST_SESSIONS)


def _far_in_words(near: Sequence[Bools]) -> str:
    far = [int((~keep).sum()) for keep in near]
    return (
        f"{far[1]} of {len(near[1])} sessions, and {far[0]} of the baseline's {len(near[0])}, are far from"
        " the others, as on a throttled or busy device"
    )
