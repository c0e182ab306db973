"""What has to hold before anything is broken. All of it is checked twice: when a drill is planned, and right
before its fault is injected. What cannot be read does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select

from fastvlm_ops.core.config.disaster_recovery import Scenario, ServiceTarget
from fastvlm_ops.core.config.disaster_recovery_policy import DisasterRecoveryPolicy
from fastvlm_ops.core.disaster_recovery.fault_types import (
    ContainerFault,
    DatabaseFault,
    DiskFault,
    FileFault,
    LinkFault,
    ProcessFault,
)
from fastvlm_ops.core.disaster_recovery.leasing import lease_holder
from fastvlm_ops.core.disaster_recovery.lever import read_lever
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.planning import DATABASES, Resolved
from fastvlm_ops.core.services.instances import Marker, ServiceView
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables.disaster_recovery import faults

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class GuardResult:
    """What a guard has found.

    :param name: of the guard
    :param ok: whether it holds
    :param read: what was read, for people
    :param why: why it does not hold, and the remedy; empty where it does
    """

    name: str
    ok: bool
    read: str
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a check of a step."""
        return {
            "name": self.name,
            "status": "passed" if self.ok else "failed",
            "seconds": 0.0,
            "detail": self.read if self.ok else f"{self.why} (read: {self.read})",
            "evidence": {},
        }


@dataclass(frozen=True)
class Situation:
    """What guards look at.

    :param scenario: of the drill
    :param run_key: of the drill
    :param view: the service as it is now; None where the backups are the target
    :param resolved: what would be hit
    :param allowed: environments in which drills may break anything
    :param policy: what is allowed beyond that
    :param store: the operations database
    :param moment: now, aware
    """

    scenario: Scenario
    run_key: str
    view: ServiceView | None
    resolved: Resolved
    allowed: Sequence[str]
    policy: DisasterRecoveryPolicy
    store: Store
    moment: datetime


def is_production(*names: str) -> bool:
    """Return whether something is called production, by any of its names."""
    return any("prod" in name.lower() or name.lower() == "live" for name in names)


def needs_approval(scenario: Scenario, view: ServiceView | None) -> bool:
    """Return whether a person has to be asked: the scenario says so, or it is production.

    :param scenario: of the drill
    :param view: of the service
    """
    return scenario.approval == "always" or is_production(*_names(scenario, view))


def check_guards(situation: Situation) -> list[GuardResult]:
    """Check every guard; all of them, so that a person sees all at once that has to change.

    :param situation: what they look at
    """
    guards = _OF_A_SERVICE if situation.scenario.target.kind == "service" else _OF_BACKUPS
    return [_checked(name, guard, situation) for name, guard in guards.items()]


def same_target(plan: DrillPlan, view: ServiceView | None) -> GuardResult:
    """Check that what was planned to be hit is still the very thing, and healthy.

    :param plan: of the drill
    :param view: the service as it is now
    """
    return _checked("target unchanged", lambda _: _unchanged(plan, view), None)


def _unchanged(plan: DrillPlan, view: ServiceView | None) -> tuple[str, str]:
    fault = plan.fault
    if fault is None:
        return "nothing is hit", ""
    if view is None:
        raise ValueError("the service did not say what it is")
    if isinstance(fault, ProcessFault | ContainerFault | DatabaseFault):
        instance = view.instance(fault.instance)
        read = f"{instance.name} is {'healthy' if instance.healthy else instance.detail or 'not healthy'}"
        if instance.identity != fault.identity:
            return read, f"{instance.name} is not the one that was planned: it was started again meanwhile"
        return read, "" if instance.healthy else f"{instance.name} is not healthy any more"
    if isinstance(fault, LinkFault):
        there = fault.link in view.links
        return f"links: {', '.join(view.links)}", "" if there else f"the link {fault.link} is gone"
    path = fault.place if isinstance(fault, FileFault) else fault.mount
    there = path in {str(Path(place).resolve()) for place in view.places.values()}
    return f"places: {', '.join(view.places)}", "" if there else f"{path} is no place of the service any more"


def _checked(name: str, guard: Callable[[Any], tuple[str, str]], situation: Situation | None) -> GuardResult:
    try:
        read, why = guard(situation)
    except Exception as error:  # of many kinds, by what the guard reads; none of them is a yes
        return GuardResult(name, False, "nothing", f"could not be read, so nothing may be broken: {error}")
    return GuardResult(name, not why, read, why)


def _environment(at: Situation) -> tuple[str, str]:
    view = _viewed(at)
    found, allowed = view.marker.environment, ", ".join(at.allowed) or "none"
    read = f"the target says it is {found}; allowed: {allowed}"
    if found not in at.allowed:
        return read, f"environment {found!r} is not on the list [fastvlm_ops] drill_environments"
    return read, ""


def _identity(at: Situation) -> tuple[str, str]:
    view, target = _viewed(at), _target(at)
    wanted = Marker(service=target.service, environment=at.scenario.environment)
    differing = [f"the service says {_said(view.marker)}"] if view.marker != wanted else []
    fault = at.resolved.fault
    if isinstance(fault, FileFault | DiskFault):
        from fastvlm_ops.core.services.places import read_place_marker

        place = Path(fault.place if isinstance(fault, FileFault) else fault.mount)
        if (found := read_place_marker(place)) != wanted:
            differing.append(f"the folder {place} says {_said(found)}")
    if differing:
        return "; ".join(differing), f"the target is not what the scenario says: {_said(wanted)}"
    return f"the target says {_said(view.marker)}", ""


def _production(at: Situation) -> tuple[str, str]:
    names = _names(at.scenario, at.view)
    if not is_production(*names):
        return f"nothing of it is called production: {', '.join(names)}", ""
    environment = _viewed(at).marker.environment
    today = at.moment.date()
    for permit in at.policy.production:
        if (
            permit.scenario == at.scenario.name
            and permit.environment == environment
            and today <= permit.until
        ):
            return f"permitted until {permit.until}: {permit.reason}; a person is asked", ""
    return f"called {', '.join(names)}", (
        f"production is not drilled unless {at.policy.file.name} permits {at.scenario.name!r} there"
    )


def _alone(at: Situation) -> tuple[str, str]:
    holder = lease_holder(at.store)
    if holder not in (None, at.run_key):
        return f"{holder} has the lease", f"{holder} is running: one drill at a time"
    return "no other drill has the lease", ""


def _nothing_left(at: Situation) -> tuple[str, str]:
    with at.store.read() as connection:
        rows = connection.execute(
            select(faults.c.run_key, faults.c.host).where(
                faults.c.undone_at.is_(None), faults.c.run_key != at.run_key
            )
        ).all()
    if rows:
        left = "; ".join(f"{row.run_key} on {row.host}" for row in rows)
        return left, "a fault of an earlier drill is not taken back yet: see disaster_recovery_reaper"
    return "no earlier fault is left", ""


def _window(at: Situation) -> tuple[str, str]:
    window = at.scenario.window
    if window is None:
        return "at any time", ""
    local = at.moment.astimezone(ZoneInfo(window.timezone))
    read = f"it is {_DAYS[local.weekday()]} {local:%H:%M} in {window.timezone}"
    begins, ends = time.fromisoformat(window.start), time.fromisoformat(window.end)
    if _DAYS[local.weekday()] in window.days and begins <= local.time() < ends:
        return read, ""
    return (
        read,
        f"outside the window: {', '.join(window.days)}, {window.start} to {window.end} {window.timezone}",
    )


def _lever(at: Situation) -> tuple[str, str]:
    lever = read_lever(at.store)
    if lever.state != "allowed":
        return lever.text, "the safety lever is pulled; when it is over: fastvlm-ops drills allow"
    return lever.text, ""


def _blast_radius(at: Situation) -> tuple[str, str]:
    view, hit, radius = _viewed(at), at.resolved.hit, at.scenario.blast_radius
    if not hit:
        return "no instance is hit", ""
    roles = {view.instance(name).role for name in hit}
    alike = roles | set(DATABASES) if roles & set(DATABASES) else roles
    left = [one.name for one in view.instances if one.role in alike and one.healthy and one.name not in hit]
    read = f"hit: {', '.join(hit)}; healthy then: {', '.join(left) or 'none'}"
    if len(hit) > radius.instances:
        return read, f"{len(hit)} instances would be hit, and blast_radius.instances is {radius.instances}"
    # The last healthy one is never hit by itself, whatever the file says; what all of them read may be.
    wanted = radius.healthy_left if at.resolved.is_shared else max(1, radius.healthy_left)
    if len(left) < wanted:
        return read, f"{len(left)} healthy ones would be left, and {wanted} have to be"
    return read, ""


def _conditions(at: Situation) -> tuple[str, str]:
    conditions = at.scenario.conditions
    wanted = [
        name
        for name, is_set in (
            ("no_open_incidents", conditions.no_open_incidents),
            ("error_budget_left", conditions.error_budget_left is not None),
        )
        if is_set
    ]
    if wanted:
        return "neither incidents nor error budgets are recorded here", (
            f"{' and '.join(wanted)} cannot be read, so nothing may be broken; take it out of"
            " conditions until they are recorded"
        )
    return "the scenario has none", ""


_OF_BACKUPS: dict[str, Callable[[Situation], tuple[str, str]]] = {
    "no other drill": _alone,
    "safety lever": _lever,
    "window": _window,
    "conditions": _conditions,
}
_OF_A_SERVICE: dict[str, Callable[[Situation], tuple[str, str]]] = {
    "environment allowed": _environment,
    "target is what the scenario says": _identity,
    "production": _production,
    **_OF_BACKUPS,
    "no fault left": _nothing_left,
    "blast radius": _blast_radius,
}


def _viewed(at: Situation) -> ServiceView:
    if at.view is None:
        raise ValueError("the service did not say what it is")
    return at.view


def _target(at: Situation) -> ServiceTarget:
    if not isinstance(at.scenario.target, ServiceTarget):
        raise ValueError("the target is no service")
    return at.scenario.target


def _names(scenario: Scenario, view: ServiceView | None) -> list[str]:
    names = [scenario.environment]
    if isinstance(scenario.target, ServiceTarget):
        names.append(scenario.target.service)
    if view is not None:
        names += [view.marker.environment, view.marker.service]
    return sorted(set(names))


def _said(marker: Marker) -> str:
    return f"service {marker.service!r}, environment {marker.environment!r}"
