"""Steps of drills on a primary database and its standby."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.postgresql.equality import Equality, compare_databases
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError
from fastvlm_ops.core.disaster_recovery.postgresql.failover import prove_writable
from fastvlm_ops.core.disaster_recovery.postgresql.state import (
    DatabaseState,
    not_streaming,
    only_primary,
    read_state,
)
from fastvlm_ops.core.disaster_recovery.steps import CheckResult, Status
from fastvlm_ops.core.services.control import ServiceControl, ServiceControlError
from fastvlm_ops.core.services.instances import Instance

if TYPE_CHECKING:
    from fastvlm_ops.core.config.disaster_recovery_steps import (
        DatabasesEqual,
        RejoinDatabase,
        StandbyPromoted,
    )
    from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
    from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 3.0
_SHOWN = 5


def check_standby_promoted(step: StandbyPromoted, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """See that a standby has become the primary and takes writes; promote it where nothing else does."""
    began = time.monotonic()
    old = _hit(plan)
    before = _instances(at)
    candidates = [name for name, one in before.items() if name != old and one.role.startswith("database_")]
    if not candidates:
        return _result(step.check, "failed", began, f"there is no database besides {old}", {})
    asked, problem = False, ""
    while True:
        states = _states(at)
        evidence = _evidence_of(states)
        try:
            primary = only_primary(states.values())
        except SplitBrainError as error:
            return _result(step.check, "failed", began, str(error), evidence)
        if primary is not None and primary.name != old:
            try:
                evidence["write"] = prove_writable(_dsn(at, primary.name), seconds=_ANSWER_SECONDS)
                break
            except DatabaseError as error:
                problem = f"{primary.name} is the primary, but {error}"
        else:
            problem = _not_gone(states[old]) or _promote(at, candidates, states)
            asked = asked or not problem
        if time.monotonic() - began > step.within_seconds:
            detail = f"no standby took writes within {step.within_seconds:g} s: {problem}"
            return _result(step.check, "failed", began, detail, evidence)
        at.pause(_POLL_SECONDS)
    promoted_by = "the drill" if asked else "the service itself"
    evidence |= {"promoted": primary.name, "promoted_by": promoted_by, "old_primary": old}
    detail = (
        f"{primary.name} is the primary now, on timeline {primary.timeline}, promoted by {promoted_by}, and"
        f" takes writes; {old} is {states[old].role.replace('_', ' ')}"
    )
    return _result(step.check, "passed", began, detail, evidence)


def do_rejoin_database(step: RejoinDatabase, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Make the old primary a standby of the new one, and wait until it streams from it."""
    began = time.monotonic()
    old = _hit(plan)
    try:
        primary = only_primary(_states(at).values())
    except SplitBrainError as error:
        return _result(step.action, "failed", began, str(error), {})
    if primary is None or primary.name == old:
        what = "there is no primary" if primary is None else f"{old} is the primary itself"
        return _result(step.action, "failed", began, f"{what}, so that it cannot rejoin one", {})
    at.did(f"make {old} a standby of {primary.name}")
    try:
        _control(at).rejoin(old)
        problem = ""
    except ServiceControlError as error:
        # The answer may have been late; what counts is whether it streams.
        problem = f" ({error})"
    while True:
        states = _states(at)
        evidence = {"states": [one.evidence() for one in states.values()]}
        lacks = not_streaming(states[primary.name], states[old])
        if lacks is None:
            how = _instances(at)[old].detail
            evidence["how"] = [{"detail": how}] if how else []
            detail = f"{old} streams from {primary.name}" + (f": {how}" if how else "")
            return _result(step.action, "passed", began, detail, evidence)
        if time.monotonic() - began > step.within_seconds:
            detail = f"not within {step.within_seconds:g} s: {lacks}{problem}"
            return _result(step.action, "failed", began, detail, evidence)
        at.pause(_POLL_SECONDS)


def check_databases_equal(step: DatabasesEqual, plan: DrillPlan, at: Surroundings) -> CheckResult:
    """Compare every standby with the primary, row by row; one that only lags may catch up first."""
    began = time.monotonic()
    states = _states(at)
    try:
        primary = only_primary(states.values())
    except SplitBrainError as error:
        return _result(step.check, "failed", began, str(error), _evidence_of(states))
    if primary is None:
        return _result(step.check, "failed", began, "there is no primary", _evidence_of(states))
    standbys = [name for name in states if name != primary.name]
    if not standbys:
        return _result(step.check, "failed", began, f"there is no database besides {primary.name}", {})
    found = {name: _compare(step, at, primary.name, name, began) for name in standbys}
    evidence = {name: one.evidence() for name, one in found.items()}
    problems = [problem for one in found.values() for problem in one.problems]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        return _result(step.check, "failed", began, "; ".join(problems[:_SHOWN]) + more, evidence)
    rows = sum(one.rows for one in found.values())
    if not any(one.tables for one in found.values()):
        raise InconclusiveError("the database has no table, so that nothing shows that both are equal")
    names = " and ".join(standbys)
    detail = (
        f"{names} streams from {primary.name}, has replayed all, and every one of {rows} rows is the same"
    )
    return _result(step.check, "passed", began, detail, evidence)


def _compare(step: DatabasesEqual, at: Surroundings, primary: str, standby: str, began: float) -> Equality:
    while True:
        late = time.monotonic() - began > step.within_seconds
        try:
            found = compare_databases(_dsn(at, primary), _dsn(at, standby), names=(primary, standby))
        except DatabaseError as error:
            if late or not error.retryable:
                raise
        else:
            if late or found.lsn is not None:  # rows that differ do so for good
                return found
        at.pause(_POLL_SECONDS)


def _not_gone(old: DatabaseState) -> str:
    """Why an old primary cannot be taken for gone; nothing where it can."""
    if old.role == "primary":
        return f"{old.name} is still the primary"
    if old.role == "unknown":  # it may hang, and go on later beside the new one
        return f"it is not known whether {old.name} is gone: {old.problem}"
    return ""


def _promote(at: Surroundings, candidates: list[str], states: dict[str, DatabaseState]) -> str:
    """Promote the standby that has replayed most; returns why that was not possible, else nothing."""
    able = [states[name] for name in candidates if states[name].role == "standby"]
    if not able:
        return "; ".join(f"{name} is {states[name].role}: {states[name].problem}" for name in candidates)
    best = max(able, key=lambda one: one.lsn or 0)
    at.did(f"promote {best.name}")
    try:
        _control(at).promote(best.name)
    except ServiceControlError as error:
        return str(error)
    return ""


def _states(at: Surroundings) -> dict[str, DatabaseState]:
    """What each database is, as it says itself."""
    found = {}
    for name, one in _instances(at).items():
        if one.role not in ("database_primary", "database_standby"):
            continue
        if one.identity is None:
            found[name] = DatabaseState(name, "not_running", problem="its process does not run")
        else:
            found[name] = read_state(name, _dsn(at, name), seconds=_ANSWER_SECONDS)
    return found


def _instances(at: Surroundings) -> dict[str, Instance]:
    return {one.name: one for one in _control(at).view().instances}


def _control(at: Surroundings) -> ServiceControl:
    if at.control is None:
        raise InconclusiveError("the drill has no service, so that there is no database to look at")
    return at.control


def _dsn(at: Surroundings, name: str) -> str:
    if at.database_dsn is None:
        raise InconclusiveError(
            "it is not known how to connect to the databases; set database_conn_id in the extra of the"
            " target's connection"
        )
    return at.database_dsn(name)


def _hit(plan: DrillPlan) -> str:
    """Name of the instance that the fault hits."""
    name = getattr(plan.fault, "instance", None)
    if not isinstance(name, str):
        raise InconclusiveError("the fault hits no instance, so that it is not known which database was lost")
    return name


def _evidence_of(states: dict[str, DatabaseState]) -> dict[str, Any]:
    return {"states": [one.evidence() for one in states.values()]}


def _result(name: str, status: Status, began: float, detail: str, evidence: dict[str, Any]) -> CheckResult:
    return CheckResult(name, status, round(time.monotonic() - began, 3), detail, evidence)
