"""The verdict of a drill. PASS needs positive evidence of every step; what is not known is never passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from fastvlm_ops.core.disaster_recovery.fault_types import Recorded
from fastvlm_ops.core.disaster_recovery.measuring import Measures
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult, Verdict

#: Steps that a drill needs, in their order; and those of them that a test which breaks nothing needs.
_OF_A_DRILL = (
    "guard",
    "simulate_failure",
    "verify_failover",
    "restore_service",
    "validate_recovery",
    "undo_fault",
)
_OF_A_TEST = ("guard", "restore_service", "validate_recovery")
#: Steps whose every part is named by the scenario → the key that names it there.
_PARTS = {"verify_failover": "check", "restore_service": "action", "validate_recovery": "check"}


class Ending(Recorded):
    """How a drill was left.

    :param fault: ``undone``: nothing of it is left, which was looked at; ``never_injected``: there was none;
        ``left``: something of it is; ``unknown``: it could not be looked at
    :param detail: what is left, or why it is not known
    :param steady_again: whether the steady state held afterwards; None where it was not looked at
    :param observed: whether the observer ran until it was stopped in order; None where there was none
    """

    fault: Literal["undone", "never_injected", "left", "unknown"]
    detail: str = ""
    steady_again: bool | None = None
    observed: bool | None = None


def judge(
    plan: DrillPlan, steps: Iterable[StepResult], measures: Measures | None, ending: Ending
) -> tuple[Verdict, str]:
    """Give the verdict of a drill, and the reason for it, for people.

    :param plan: of the drill
    :param steps: what its steps have found, in any order; those that did not run are absent
    :param measures: None where nothing was measured
    :param ending: how it was left
    """
    results = {result.step: result for result in steps}
    if plan.dry_run:
        return "INCONCLUSIVE", "a dry run: nothing was broken, and so nothing was proven"
    left = [f"the fault is still there: {ending.detail}"] if ending.fault == "left" else []
    refused = _summaries(results, "refused")
    if refused and not left and ending.fault != "unknown":
        return "REFUSED", _joined(refused)
    failed = [*left, *_failed(results), *_missed(plan, measures, ending)]
    aborted = _summaries(results, "aborted")
    if aborted and not left:
        return "ABORTED", _joined([*aborted, *_failed(results), *_unknown_fault(ending)])
    if failed:
        return "FAIL", _joined([*failed, *aborted, *refused, *_unknown_fault(ending)])
    unclear = [
        *refused,
        *_unclear_steps(plan, results),
        *_unclear_measures(measures),
        *_unclear_ending(plan, ending),
    ]
    if unclear:
        return "INCONCLUSIVE", _joined(unclear)
    return "PASS", _praise(plan, measures)


def over_objective(what: str, seconds: float, objective: float) -> str | None:
    """Say that a figure is over its objective, as ``RTO 61.0 s is over the objective of 60 s``; else None.

    :param what: ``RTO`` or ``RPO``
    """
    if seconds <= objective:
        return None
    digits = next((number for number in range(1, 9) if round(seconds, number) > objective), 9)
    return f"{what} {seconds:.{digits}f} s is over the objective of {objective:g} s"


def _failed(results: Mapping[str, StepResult]) -> list[str]:
    found = []
    for result in results.values():
        if result.status == "failed":
            problems = "; ".join(result.problems) or result.summary
            found.append(f"{result.step} failed: {problems}")
    return found


def _missed(plan: DrillPlan, measures: Measures | None, ending: Ending) -> list[str]:
    """What the figures and the end of the drill hold against the service."""
    found: list[str] = []
    if measures is not None:
        rto, rpo = _objectives(plan)
        found += measures.problems
        for what, value, objective in (
            ("RTO", measures.rto_seconds, rto),
            ("RPO", measures.rpo_seconds, rpo),
        ):
            over = None if value is None else over_objective(what, value, objective)
            if over and what == "RPO" and measures.lost:
                over = f"{over}: {_count(len(measures.lost), 'acknowledged write')} lost"
            found += [over] if over else []
    if ending.steady_again is False:
        found.append("the steady state does not hold again")
    return found


def _unclear_steps(plan: DrillPlan, results: Mapping[str, StepResult]) -> list[str]:
    """Steps without evidence that they passed."""
    found = []
    needed = _OF_A_TEST if plan.fault is None else _OF_A_DRILL
    for step in (*needed, *(step for step in results if step not in needed)):
        result = results.get(step)
        if result is None:
            found.append(f"{step} did not run")
        elif result.status != "passed":
            problems = "; ".join(result.problems) or result.summary
            found.append(f"{step} is {result.status.replace('_', ' ')}: {problems}")
        elif step in needed:
            found += _without_evidence(plan, result)
    return found


def _without_evidence(plan: DrillPlan, result: StepResult) -> list[str]:
    """What a step that says it passed does not show."""
    if not result.checks and not result.commands:
        return [f"{result.step} has no evidence"]
    passed = {str(check.get("name")) for check in result.checks if check.get("status") == "passed"}
    found = [
        f"{result.step} passed, but its {check.get('name')} is {check.get('status')}"
        for check in result.checks
        if check.get("status") != "passed"
    ]
    wanted = [str(part[_PARTS[result.step]]) for part in _parts(plan, result.step)]
    missing = [name for name in dict.fromkeys(wanted) if name not in passed]
    return found + [f"{result.step} has no evidence of {name}" for name in missing]


def _parts(plan: DrillPlan, step: str) -> Sequence[Mapping[str, Any]]:
    if step not in _PARTS:
        return ()
    parts: Sequence[Mapping[str, Any]] = plan.definition.get("steps", {}).get(step) or ()
    return parts


def _unclear_measures(measures: Measures | None) -> list[str]:
    if measures is None:
        return ["RTO and RPO were not measured"]
    missing = [
        f"{what} was not measured"
        for what, value in (("RTO", measures.rto_seconds), ("RPO", measures.rpo_seconds))
        if value is None and not any(what in unknown for unknown in measures.unknowns)
    ]
    return [*measures.unknowns, *missing]


def _unknown_fault(ending: Ending) -> list[str]:
    if ending.fault != "unknown":
        return []
    detail = f": {ending.detail}" if ending.detail else ""
    return [f"it is not known whether the fault is undone{detail}"]


def _unclear_ending(plan: DrillPlan, ending: Ending) -> list[str]:
    found = _unknown_fault(ending)
    if plan.fault is None:
        return found
    if ending.fault == "never_injected":
        found.append("the fault was never injected")
    if ending.steady_again is None and plan.definition.get("steady_state"):
        found.append("it was not looked at whether the steady state holds again")
    if not ending.observed:
        found.append("the observer did not run to the end")
    return found


def _praise(plan: DrillPlan, measures: Measures | None) -> str:
    rto, rpo = _objectives(plan)
    if measures is None or measures.rto_seconds is None or measures.rpo_seconds is None:
        raise ValueError("a drill without RTO or RPO cannot have passed")
    lost = f", {_count(len(measures.lost), 'acknowledged write')} lost" if measures.lost else ""
    return (
        f"RTO {measures.rto_seconds:.1f} s of at most {rto:g} s,"
        f" RPO {measures.rpo_seconds:.1f} s of at most {rpo:g} s{lost}; every step passed"
    )


def _objectives(plan: DrillPlan) -> tuple[float, float]:
    objectives = plan.definition["objectives"]
    return float(objectives["rto_seconds"]), float(objectives["rpo_seconds"])


def _summaries(results: Mapping[str, StepResult], status: str) -> list[str]:
    return [
        "; ".join(result.problems) or result.summary for result in results.values() if result.status == status
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _joined(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reasons))
