"""Which runs become what later ones are compared with, without asking anybody."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict

#: What keeps a run out of the baseline until a person accepts it.
_RED = frozenset({Verdict.REGRESSION, Verdict.UNSTABLE, Verdict.MISSING, Verdict.FAILED})
#: From the worst to the best, to name one for a whole run.
_ORDER = (
    Verdict.FAILED,
    Verdict.MISSING,
    Verdict.REGRESSION,
    Verdict.UNSTABLE,
    Verdict.INSUFFICIENT,
    Verdict.IMPROVEMENT,
    Verdict.OK,
)


@dataclass(frozen=True)
class Standing:
    """Whether a run may become part of the baseline by itself.

    :param green: whether it may
    :param reason: why, or why not, for a person
    """

    green: bool
    reason: str


def standing_of(record: RunRecord, judgements: Sequence[Judgement], accepted: Collection[str]) -> Standing:
    """Return whether a run is green.

    What could not be compared is green only where there is nothing new in it: a package that was accepted
    before, as after an update of the system, or the very first one. A new package on a new system could hide
    a regression behind the update, so that a person has to accept it.

    :param record: the run
    :param judgements: all of it
    :param accepted: digests of the packages that were accepted of this model, device and compute unit, ever
    """
    if record.failure is not None or not record.good_sessions:
        return Standing(False, "it was not measured in full")
    counted = [one for one in judgements if one.gate]
    if red := [one for one in counted if one.verdict in _RED]:
        return Standing(False, ", ".join(f"{one.metric} {one.verdict}" for one in red))
    unknown = [one for one in counted if one.verdict is Verdict.INSUFFICIENT]
    if not unknown:
        return Standing(True, "nothing got worse")
    if not accepted:
        return Standing(True, "it is the first")
    if record.digest in accepted:
        return Standing(True, "this package was accepted before")
    reasons = "; ".join(dict.fromkeys(f"{one.metric}: {one.reason}" for one in unknown))
    return Standing(False, f"a new package that cannot be compared ({reasons})")


def worst_of(judgements: Sequence[Judgement]) -> Verdict:
    """Return the one verdict that stands for a run: the worst of those that count for the release.

    :param judgements: all of it, at least one
    """
    counted = {one.verdict for one in judgements if one.gate or one.metric is Metric.STATUS}
    return next((verdict for verdict in _ORDER if verdict in counted), Verdict.OK)
