"""What the tasks of a drill do, by its plan alone: arm, break, watch and restore, take back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastvlm_ops.core.disaster_recovery.errors import (
    DrillAbortedError,
    DrillError,
    DrillRefusedError,
    InconclusiveError,
)
from fastvlm_ops.core.disaster_recovery.fault_entries import FaultEntry, entry_file, new_entry, read_entry
from fastvlm_ops.core.disaster_recovery.fault_rows import record_armed, sync_entries
from fastvlm_ops.core.disaster_recovery.faults import describe, is_left
from fastvlm_ops.core.disaster_recovery.guards import GuardResult
from fastvlm_ops.core.disaster_recovery.holding import arm, inject, release
from fastvlm_ops.core.disaster_recovery.observation import ObserverConfig
from fastvlm_ops.core.disaster_recovery.observing import (
    start_observer,
    stop_observer,
    wait_for_steady_state,
)
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult
from fastvlm_ops.core.disaster_recovery.planning import fault_id, scenario_of
from fastvlm_ops.core.disaster_recovery.steps import run_action, run_check
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.watching import failing_probes

#: How long the service may take to be in its steady state, before and after.
STEADY_SECONDS = 90.0
#: Check of ``undo_fault``.
STEADY_CHECK = "steady state again"
_STEPS = ("verify_failover", "restore_service", "validate_recovery")
#: What the tasks of a drill may take besides the time of their parts: the scheduler's, and retries.
_BETWEEN_TASKS_SECONDS = 900.0
_LONGEST_SECONDS = 86_400.0
_INJECT_SECONDS = 30.0
_RELEASE_SECONDS = 60.0


def outline(plan: DrillPlan) -> list[str]:
    """Return what a drill does, step by step, with its targets resolved.

    :param plan: of the drill
    """
    steps = scenario_of(plan).steps
    lines = [f"target: {plan.control or 'the backups'}, environment {plan.environment}, on {plan.host}"]
    if plan.fault is None:
        lines.append("simulate_failure: nothing is broken")
    else:
        lines += [f"simulate_failure: {line}" for line in describe(plan.fault)]
        lines.append(f"the fault ends by itself after {plan.time_to_live_seconds:g} s")
    for name, parts in _parts(steps).items():
        lines += [f"{name}: {_said(part)}" for part in parts]
    return lines


def parts_in_words(plan: DrillPlan, step: str) -> list[str]:
    """Return the checks or actions of a step.

    :param plan: of the drill
    :param step: its name
    """
    return [_said(part) for part in _parts(scenario_of(plan).steps)[step]]


def arm_fault(plan: DrillPlan, at: Surroundings) -> Path | None:
    """Record the fault, as a file and as a row, and touch nothing.

    :param plan: of the drill
    :param at: its surroundings
    :returns: the file; None where nothing is broken
    """
    if plan.fault is None:
        return None
    entry = new_entry(
        fault_id=plan.fault_id,
        run_key=plan.run_key,
        fault=plan.fault,
        time_to_live_seconds=plan.time_to_live_seconds,
    )
    # The file first: a row without one would be a fault that nobody can take back.
    file = arm(at.drill_dir, entry)
    record_armed(at.store, entry)
    return file


def break_it(
    plan: DrillPlan, at: Surroundings, *, guards: Callable[[], Sequence[GuardResult]]
) -> tuple[StepResult, FaultEntry | None]:
    """Start the observer, wait for the steady state, check every guard again, and have the fault injected.

    :param plan: of the drill
    :param at: its surroundings
    :param guards: checks them
    :returns: what was done, and the entry of the fault; None where nothing is broken
    :raises DrillRefusedError: a guard does not hold any more
    :raises InconclusiveError: there is no steady state, or nothing is being measured
    """
    if plan.fault is None:
        summary = "nothing is broken in this drill"
        checks = [_check("no fault", "passed", 0.0, summary, {})]
        return StepResult(
            step="simulate_failure", status="passed", summary=summary, checks=tuple(checks)
        ), None
    file = entry_file(at.drill_dir, plan.fault_id)
    checks = []
    if read_entry(file).state == "armed":  # else a retried task, whose fault is there already
        checks += _observe(plan, at)
        results = guards()
        checks += [result.as_dict() for result in results]
        if broken := [result for result in results if not result.ok]:
            raise DrillRefusedError("; ".join(f"{one.name}: {one.why} (read: {one.read})" for one in broken))
    entry = inject(file, _INJECT_SECONDS)
    sync_entries(at.store, at.drill_dir)
    what = describe(plan.fault)
    for line in what:
        at.say(f"done: {line}")
    return StepResult(
        step="simulate_failure",
        status="passed",
        summary=f"broken: {'; '.join(what)}",
        checks=tuple(checks),
        commands=tuple({"at_seconds": 0.0, "what": line} for line in what),
    ), entry


def run_parts(step: str, plan: DrillPlan, at: Surroundings, *, go_on: bool) -> StepResult:
    """Run the checks or actions of a step.

    :param step: ``verify_failover``, ``restore_service`` or ``validate_recovery``
    :param plan: of the drill
    :param at: its surroundings
    :param go_on: whether those behind one that did not pass are run as well
    """
    results: list[dict[str, Any]] = []
    status: Any = "passed"
    problems: list[str] = []
    for part in _parts(scenario_of(plan).steps)[step]:
        try:
            result = (run_action if hasattr(part, "action") else run_check)(part, plan, at)
        except DrillAbortedError as error:
            status, problems = "aborted", [*problems, str(error)]
            break
        results.append(result)
        if result["status"] != "passed":
            problems.append(f"{result['name']}: {result['detail']}")
            status = "failed" if "failed" in (status, result["status"]) else "inconclusive"
            if not go_on:
                break
    count = len(results)
    summary = (
        f"{count} of {count} passed" if status == "passed" else f"{status}: {problems[0] if problems else ''}"
    )
    return StepResult(
        step=step,
        status=status,
        summary=summary if count else f"nothing to do for {step}",
        problems=tuple(problems),
        checks=tuple(results) or ({"name": "nothing to do", "status": "passed", "seconds": 0.0},),
        commands=commands_since_fault(plan, at),
    )


def release_of_run(run_key: str, drill_dir: Path) -> str | None:
    """Have the fault of a run taken back, by nothing but the run's key.

    :param run_key: ``<dag id>/<run id>``
    :param drill_dir: of all drills of this worker
    :returns: what became of it; None where none was armed here
    :raises FaultError: something of it may be left
    """
    file = entry_file(drill_dir, fault_id(run_key))
    if not os.path.lexists(file):
        return None
    entry = release(file, _RELEASE_SECONDS)
    return f"{entry.fault_id}: {entry.state}, by {entry.undone_by}: {entry.undone_how or 'nothing to do'}"


def take_back(plan: DrillPlan, at: Surroundings) -> StepResult:
    """Take the fault back, and see that nothing of it is left and that the service is as before.

    :param plan: of the drill
    :param at: its surroundings
    :raises FaultError: it could not be taken back
    """
    if plan.fault is None:
        check = _check("no fault", "passed", 0.0, "nothing was broken", {})
        return StepResult(step="undo_fault", status="passed", summary="nothing was broken", checks=(check,))
    begun = time.monotonic()
    entry = release(entry_file(at.drill_dir, plan.fault_id), _RELEASE_SECONDS)
    left = is_left(entry.fault, entry.hit)
    sync_entries(at.store, at.drill_dir)
    checks = [
        _check(
            "nothing of the fault is left",
            "failed" if left else "passed",
            time.monotonic() - begun,
            left or (entry.undone_how or "it was never there"),
            {"state": entry.state, "undone_by": entry.undone_by, "undone_at": entry.undone_at},
        )
    ]
    if left:
        raise DrillError(f"the fault {plan.fault_id} is still there: {left}", retryable=True)
    if entry.state != "never_injected":
        checks.append(_steady_again(plan, at))
    stop_observer(Path(plan.folder))
    bad = [check for check in checks if check["status"] != "passed"]
    return StepResult(
        step="undo_fault",
        status="failed" if bad else "passed",
        summary=bad[0]["detail"] if bad else f"taken back by {entry.undone_by}: {checks[0]['detail']}",
        problems=tuple(f"{check['name']}: {check['detail']}" for check in bad),
        checks=tuple(checks),
        commands=commands_since_fault(plan, at),
    )


def commands_since_fault(plan: DrillPlan, at: Surroundings) -> tuple[dict[str, Any], ...]:
    """Return what was done to the target, with the seconds from the fault; without one, from the first.

    :param plan: of the drill
    :param at: its surroundings
    """
    if not at.done:
        return ()
    zero = fault_moment(plan, at.drill_dir) or at.done[0][0]
    return tuple({"at_seconds": round((when - zero) / 1e9, 3), "what": what} for when, what in at.done)


def fault_moment(plan: DrillPlan, drill_dir: Path) -> int | None:
    """Return when the fault was injected, by the monotonic clock; None where it was not.

    :param plan: of the drill
    :param drill_dir: of all drills of this worker
    """
    if plan.fault is None:
        return None
    return read_entry(entry_file(drill_dir, plan.fault_id)).fault_monotonic_ns


def _observe(plan: DrillPlan, at: Surroundings) -> list[dict[str, Any]]:
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    begun = time.monotonic()
    start_observer(folder, _observer_config(plan))
    wait_for_steady_state(folder, STEADY_SECONDS, pause=at.pause)
    detail = "requests are answered rightly, and the canary's writes are acknowledged"
    return [_check("steady state", "passed", time.monotonic() - begun, detail, {})]


def _observer_config(plan: DrillPlan) -> ObserverConfig:
    if plan.url is None:
        raise InconclusiveError(
            "the service did not say where its users reach it, so that nothing is measured"
        )
    steps = plan.definition["steps"]
    parts = [part for name in _STEPS for part in steps[name]]
    lasts = sum(part.get("within_seconds", 0.0) for part in parts) + plan.time_to_live_seconds
    return ObserverConfig(
        url=plan.url,
        prefix=plan.fault_id,
        time_to_live_seconds=min(lasts + _BETWEEN_TASKS_SECONDS, _LONGEST_SECONDS),
    )


def _steady_again(plan: DrillPlan, at: Surroundings) -> dict[str, Any]:
    """Wait until the service is as it was before: its probes, and what the observer sees."""
    begun = time.monotonic()
    probes = scenario_of(plan).steady_state
    while True:
        failing = failing_probes(probes, plan, at)
        if not failing:
            detail = f"{len(probes)} probes pass"
            return _check(STEADY_CHECK, "passed", time.monotonic() - begun, detail, {})
        if time.monotonic() - begun > STEADY_SECONDS:
            detail = f"not within {STEADY_SECONDS:g} s: {'; '.join(failing)}"
            return _check(STEADY_CHECK, "failed", time.monotonic() - begun, detail, {})
        time.sleep(0.5)


def _parts(steps: Any) -> dict[str, Sequence[Any]]:
    return {name: getattr(steps, name) for name in _STEPS}


def _said(part: Any) -> str:
    values = part.model_dump()
    name = values.pop("action", None) or values.pop("check", None)
    rest = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"{name} ({rest})" if rest else str(name)


def _check(name: str, status: str, seconds: float, detail: str, evidence: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "seconds": round(seconds, 3),
        "detail": detail,
        "evidence": evidence,
    }
