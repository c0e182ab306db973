"""Checks and actions of a running service: whether the fault is there, users are served, and all is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvlm_ops.core.config.disaster_recovery_steps import (
    CanaryRowsEqual,
    FaultVisible,
    InstanceOutOfRotation,
    InstancesHealthy,
    ReleaseFault,
    RequestsSucceed,
    RestartInstance,
    ServiceSays,
    WaitForInstance,
)
from fastvlm_ops.core.disaster_recovery import faults
from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.fault_entries import FaultEntry, entry_file, read_entry
from fastvlm_ops.core.disaster_recovery.fault_types import (
    ContainerFault,
    DatabaseFault,
    DiskFault,
    FileFault,
    ProcessFault,
)
from fastvlm_ops.core.disaster_recovery.holding import release
from fastvlm_ops.core.disaster_recovery.ledger import ProbeRecord
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure
from fastvlm_ops.core.disaster_recovery.observation import recorded_rows
from fastvlm_ops.core.disaster_recovery.observing import is_alive, look_at_rows, read_ledger
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.service_requests import ask
from fastvlm_ops.core.disaster_recovery.steps import CheckResult, Status
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.verdicts import over_objective
from fastvlm_ops.core.services.control import ServiceControl, ServiceControlError
from fastvlm_ops.core.services.instances import Instance

_POLL_SECONDS = 0.2
_ASK_SECONDS = 2.0
_LISTED = 20
#: Faults that hit one instance.
_OF_INSTANCES = (ProcessFault, ContainerFault, DatabaseFault)


@dataclass(frozen=True)
class _Found:
    """What one look has found.

    :param ok: whether it is what should be
    :param detail: for people
    :param evidence: small JSON
    """

    ok: bool
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)


def check_fault_visible(step: FaultVisible, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """The fault is there, as the target itself shows."""
    return _until(step.check, step.within_seconds, at, lambda: _fault_visible(plan, at))


def check_requests_succeed(step: RequestsSucceed, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Requests that were begun since now, in a row, were answered rightly, as the observer has seen."""
    since_ns = time.monotonic_ns()
    return _until(
        step.check, step.within_seconds, at, lambda: _requests_succeed(plan, since_ns, step.consecutive)
    )


def check_instance_out_of_rotation(
    step: InstanceOutOfRotation, plan: DrillPlan, at: Surroundings
) -> CheckResult:
    """The proxy sends nothing to what was hit."""
    return _until(step.check, step.within_seconds, at, lambda: _out_of_rotation(plan, at))


def check_service_says(step: ServiceSays, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """The service answers a request with a certain status."""
    return _until(step.check, step.within_seconds, at, lambda: _says(_url(plan), step.path, step.status))


def check_instances_healthy(step: InstancesHealthy, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """All instances that were healthy before the drill are."""
    return _until(step.check, step.within_seconds, at, lambda: _all_healthy(plan, at))


def check_canary_rows_equal(step: CanaryRowsEqual, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Every acknowledged write is there as it was written, but for those that the RPO allows to be lost.

    Only reading is tried again: what is missing or altered is.
    """
    folder, url = Path(plan.folder), _url(plan)
    _entry(plan, at)
    read: list[dict[str, str]] = []

    def look() -> _Found:
        read.append(look_at_rows(folder, url, plan.fault_id))
        return _Found(True, "")

    begun = time.monotonic()
    reading = _until(step.check, step.within_seconds, at, look)
    if reading.status != "passed":
        return reading
    status, detail, evidence = _rows_equal(plan, at)
    return CheckResult(step.check, status, round(time.monotonic() - begun, 3), detail, evidence)


def do_wait_for_instance(step: WaitForInstance, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Wait until whatever supervises the service has brought the instance back."""
    return _until(step.action, step.within_seconds, at, lambda: _back(plan, at))


def do_restart_instance(step: RestartInstance, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Restart the instance that was hit, and wait until it is healthy."""
    begun = time.monotonic()
    name = _hit(plan)
    before = _control(at).view().instance(name).identity
    try:
        _control(at).restart(name)
    except ServiceControlError as error:
        seconds = round(time.monotonic() - begun, 3)
        return CheckResult(step.action, "failed", seconds, f"{name} cannot be restarted: {error}")
    at.did(f"restart {name}")
    left = step.within_seconds - (time.monotonic() - begun)

    def look() -> _Found:
        found = _back(plan, at)
        now = _control(at).view().instance(name).identity
        return found if now != before else _Found(False, f"{name} is still the process that it was")

    return _until(step.action, left, at, look, begun)


def do_release_fault(step: ReleaseFault, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Have the fault taken back, and see that nothing of it is left."""
    begun = time.monotonic()
    try:
        entry = release(entry_file(at.drill_dir, plan.fault_id), step.within_seconds)
        left = faults.is_left(entry.fault, entry.hit)
    except faults.FaultError as error:
        return CheckResult(step.action, "failed", round(time.monotonic() - begun, 3), str(error))
    how = entry.undone_how or "it was never there"
    at.did(f"release the fault {plan.fault_id}: {how}")
    evidence = {"state": entry.state, "undone_by": entry.undone_by, "undone_at": entry.undone_at}
    status: Status = "failed" if left or entry.state != "undone" else "passed"
    detail = left or f"taken back by {entry.undone_by}: {how}"
    return CheckResult(step.action, status, round(time.monotonic() - begun, 3), detail, evidence)


def _until(
    name: str,
    within_seconds: float,
    at: Surroundings,
    look: Callable[[], _Found],
    begun: float | None = None,
) -> CheckResult:
    """Look until it is as it should be, or the time is over; what could not be looked at is inconclusive."""
    begun = time.monotonic() if begun is None else begun
    deadline = time.monotonic() + within_seconds
    while True:
        found, problem = None, ""
        try:
            found = look()
        except (ServiceControlError, InconclusiveError) as error:
            problem = str(error)
        seconds = round(time.monotonic() - begun, 3)
        if found is not None and found.ok:
            return CheckResult(name, "passed", seconds, found.detail, found.evidence)
        if time.monotonic() >= deadline:
            break
        at.pause(_POLL_SECONDS)
    if found is None:
        return CheckResult(name, "inconclusive", seconds, f"could not be told: {problem}")
    return CheckResult(
        name, "failed", seconds, f"not within {within_seconds:g} s: {found.detail}", found.evidence
    )


def _fault_visible(plan: DrillPlan, at: Surroundings) -> _Found:
    entry = _entry(plan, at)
    fault = entry.fault
    if fault.kind == "link":
        disturbed = _control(at).view().disturbed
        if disturbed is None:
            raise InconclusiveError("the service does not say which of its links are disturbed")
        how = disturbed.get(fault.link)
        evidence = {"link": fault.link, "disturbed": how}
        return _Found(how == fault.disturbance, f"the link {fault.link}: {how or 'passes all on'}", evidence)
    if isinstance(fault, FileFault | DiskFault):
        left = faults.is_left(fault)
        return _Found(left is not None, left or "nothing of the fault is there", {"left": left})
    instance = _control(at).view().instance(fault.instance)
    evidence = _evidence(instance) | {"hit": fault.identity.model_dump(mode="json")}
    if isinstance(fault, ProcessFault) and fault.how == "stop":
        # Stopped, which the kernel says, and found out, which the service says.
        left = faults.is_left(fault, entry.hit)
        said = f"{left or 'nothing of the fault is there'}; {_said(instance)}"
        return _Found(left is not None and instance.healthy is False, said, evidence)
    return _Found(_is_gone(fault, instance), f"{_said(instance)}; hit was {_named(fault)}", evidence)


def _is_gone(fault: ProcessFault | ContainerFault | DatabaseFault, instance: Instance) -> bool:
    """Whether the very process or container that was hit is not there any more."""
    if instance.identity == fault.identity:
        return False
    return fault.kind == "container" or not fault.identity.process.alive


def _requests_succeed(plan: DrillPlan, since_ns: int, consecutive: int) -> _Found:
    folder = Path(plan.folder)
    if not is_alive(folder):
        raise InconclusiveError("the observer of the drill does not run, so that nobody asks the service")
    probes = [one for one in read_ledger(folder)[0] if one.sent_ns >= since_ns]
    if not probes:
        raise InconclusiveError("the observer has seen no answer yet")
    run = _last_right(probes)
    wrong = [one for one in probes if not one.ok]
    evidence = {"requests": len(probes), "wrong": len(wrong), "right_in_a_row": len(run)}
    if len(run) >= consecutive:
        return _Found(True, f"{len(run)} requests in a row were answered rightly", evidence)
    last = f"; the last that was not: {wrong[-1].detail}" if wrong else ""
    return _Found(False, f"{len(run)} of {consecutive} in a row were answered rightly{last}", evidence)


def _last_right(probes: list[ProbeRecord]) -> list[ProbeRecord]:
    """The last requests in a row that were answered rightly. One that is not answered yet, a missing number,
    ends a row: it may hang.
    """
    run: list[ProbeRecord] = []
    for one in probes:
        follows = bool(run) and one.number == run[-1].number + 1
        run = [*run, one] if one.ok and follows else [one] if one.ok else []
    return run


def _out_of_rotation(plan: DrillPlan, at: Surroundings) -> _Found:
    fault = _entry(plan, at).fault
    instance = _control(at).view().instance(_hit(plan))
    evidence = _evidence(instance)
    if instance.healthy is False:
        return _Found(True, _said(instance), evidence)
    if isinstance(fault, _OF_INSTANCES) and _is_gone(fault, instance):
        return _Found(
            True, f"what was hit is gone, and another one is in its place: {_said(instance)}", evidence
        )
    if instance.healthy is None:
        raise InconclusiveError(f"the service does not know whether {instance.name} is healthy")
    return _Found(False, f"{_said(instance)}, and is sent requests", evidence)


def _says(url: str, path: str, status: int) -> _Found:
    import httpx

    try:
        response = ask(url, path, _ASK_SECONDS)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return _Found(False, f"{path} was not answered, expected {status}: {why}", {"status": None})
    said = f"{path} answered {response.status_code}"
    evidence = {"status": response.status_code, "answer": response.text[:500]}
    if response.status_code == status:
        return _Found(True, said, evidence)
    return _Found(False, f"{said}, expected {status}: {response.text[:200]}", evidence)


def _all_healthy(plan: DrillPlan, at: Surroundings) -> _Found:
    if not plan.instances_before:
        raise InconclusiveError("no instance was healthy before the drill")
    view = _control(at).view()
    now = {one.name: one for one in view.instances}
    found = {name: now.get(name) for name in plan.instances_before}
    ill = [
        f"{name}: {_said(one) if one else 'is no instance any more'}"
        for name, one in found.items()
        if one is None or not one.healthy
    ]
    evidence = {"instances": [_evidence(one) for one in found.values() if one]}
    if ill:
        return _Found(False, "; ".join(ill), evidence)
    return _Found(
        True, f"all {len(found)} that were healthy before are: {', '.join(sorted(found))}", evidence
    )


def _back(plan: DrillPlan, at: Surroundings) -> _Found:
    """Whether the instance that was hit is healthy again; one that had to die, as another process."""
    fault = _entry(plan, at).fault
    instance = _control(at).view().instance(_hit(plan))
    evidence = _evidence(instance)
    stays = isinstance(fault, ProcessFault) and fault.how == "stop"
    if isinstance(fault, _OF_INSTANCES) and not stays and instance.identity == fault.identity:
        return _Found(False, f"{instance.name} is still what was hit", evidence)
    return _Found(instance.healthy is True, _said(instance), evidence)


def _rows_equal(plan: DrillPlan, at: Surroundings) -> tuple[Status, str, dict[str, Any]]:
    entry = _entry(plan, at)
    fault_ns = entry.fault_monotonic_ns
    rows = recorded_rows(Path(plan.folder))
    if fault_ns is None or rows is None:
        return "inconclusive", "the fault was never injected, so that nothing can have been lost by it", {}
    _, writes = read_ledger(Path(plan.folder))
    found = measure(
        (),
        writes,
        rows.rows,
        fault_ns,
        injected_ns=entry.injected_monotonic_ns,
        rows_asked_ns=rows.asked_ns,
    )
    evidence = _rows_evidence(found, len(rows.rows))
    objective = float(plan.definition["objectives"]["rpo_seconds"])
    over = None if found.rpo_seconds is None else over_objective("RPO", found.rpo_seconds, objective)
    lost = ", ".join(one.id for one in found.lost[:_LISTED])
    problems = [*found.problems, *([f"{over}: lost are {lost}"] if over else [])]
    if problems:
        return "failed", "; ".join(problems), evidence
    if found.rpo_seconds is None:
        return "inconclusive", "; ".join(one for one in found.unknowns if "RPO" in one), evidence
    total = found.acknowledged + found.acknowledged_later
    if found.lost:
        return (
            "passed",
            f"{len(found.lost)} of {total} acknowledged writes are lost, which the RPO allows: {lost}",
            evidence,
        )
    return "passed", f"all acknowledged writes are there as they were written, {total} so far", evidence


def _rows_evidence(found: Measures, rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "acknowledged_before": found.acknowledged,
        "acknowledged_later": found.acknowledged_later,
        "in_flight": len(found.in_flight),
        "rpo_seconds": found.rpo_seconds,
        "lost": [one.id for one in (*found.lost, *found.lost_later)][:_LISTED],
    }


def _entry(plan: DrillPlan, at: Surroundings) -> FaultEntry:
    if plan.fault is None:
        raise InconclusiveError("nothing is broken in this drill, so that there is no fault to look at")
    return read_entry(entry_file(at.drill_dir, plan.fault_id))


def _hit(plan: DrillPlan) -> str:
    """Name of the instance that the fault hits: its own, or the one behind the link."""
    fault = plan.fault
    if fault is None or isinstance(fault, FileFault | DiskFault):
        raise InconclusiveError("the fault hits no instance")
    return fault.link if fault.kind == "link" else fault.instance


def _control(at: Surroundings) -> ServiceControl:
    if at.control is None:
        raise InconclusiveError("the target is no service, so that there are no instances")
    return at.control


def _url(plan: DrillPlan) -> str:
    if plan.url is None:
        raise InconclusiveError("the service did not say where its users reach it")
    return plan.url


def _named(fault: ProcessFault | ContainerFault | DatabaseFault) -> str:
    if fault.kind == "container":
        return f"container {fault.identity.id[:12]}"
    return f"process {fault.identity.pid}"


def _said(instance: Instance) -> str:
    how = {True: "is healthy", False: "is not healthy", None: "may be healthy or not"}[instance.healthy]
    return f"{instance.name} {how}{f' ({instance.detail})' if instance.detail else ''}"


def _evidence(instance: Instance) -> dict[str, Any]:
    kept = instance.model_dump(mode="json", include={"name", "role", "identity", "healthy", "detail"})
    return {"instance": kept}
