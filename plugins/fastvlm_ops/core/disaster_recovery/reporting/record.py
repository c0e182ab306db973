"""A drill with its fault and those before it: what its report is made of, besides the observer's ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.drills import Drill, StepRow, read_drill
from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fastvlm_ops.core.store import Store

EARLIER_DRILLS = 50


@dataclass(frozen=True)
class Earlier:
    """An earlier drill of the same scenario that was no dry run.

    :param rto_seconds: None where it was not measured, as also for ``rpo_seconds``
    """

    run_key: str
    planned_at: datetime
    verdict: str | None
    rto_seconds: float | None
    rpo_seconds: float | None


@dataclass(frozen=True)
class DrillRecord:
    """A drill.

    :param fault: row of table ``drill_fault``; None where nothing was armed
    :param earlier: oldest first, itself not among them
    """

    drill: Drill
    fault: Mapping[str, Any] | None = None
    earlier: tuple[Earlier, ...] = ()

    @property
    def plan(self) -> DrillPlan:
        """What it was to do."""
        return self.drill.plan

    @property
    def title(self) -> str:
        """What its scenario calls it."""
        return str(self.plan.definition.get("title") or self.plan.scenario)

    @property
    def description(self) -> str:
        """What its scenario says that it proves."""
        return str(self.plan.definition.get("description") or "").strip()

    @property
    def planned_at(self) -> datetime:
        """When its plan was made."""
        return datetime.fromisoformat(self.plan.planned_at)

    @property
    def ended_at(self) -> datetime:
        """When its last step ended: the report itself is no part of it."""
        return max((one.finished_at for one in self.drill.steps.values()), default=self.planned_at)

    @property
    def zero(self) -> datetime:
        """What its times count from: the fault, or where there was none, its first step."""
        first = min((one.started_at for one in self.drill.steps.values()), default=self.planned_at)
        return self.drill.fault_at or first

    @property
    def undone_after_seconds(self) -> float | None:
        """From the fault until nothing of it was left; None where that is not known."""
        if self.fault is None or self.fault["undone_at"] is None or self.fault["injected_at"] is None:
            return None
        return float((self.fault["undone_at"] - self.fault["injected_at"]).total_seconds())

    @property
    def is_fault_left(self) -> bool:
        """Whether something was broken that is not known to be whole again."""
        return self.fault is not None and self.fault["undone_at"] is None

    def step(self, name: str) -> StepRow | None:
        """Return a step; None where it has not ended, or was never begun.

        :param name: of :data:`~fastvlm_ops.core.disaster_recovery.plan.STEPS`
        """
        return self.drill.steps.get(name)

    def checks(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what all steps have checked and done, each with the name of its step."""
        return [(name, check) for name, row in self.drill.steps.items() for check in row.result.checks]

    def commands(self) -> list[tuple[str, float, str]]:
        """Return what was done to the target: step, seconds from :attr:`zero`, and in words; in order."""
        found = [
            (name, float(one.get("at_seconds") or 0.0), str(one.get("what", "")))
            for name, row in self.drill.steps.items()
            for one in row.result.commands
        ]
        return sorted(found, key=lambda one: one[1])


def read_record(store: Store, run_key: str) -> DrillRecord:
    """Read a drill.

    :param store: the operations database
    :param run_key: ``<dag id>/<run id>``
    :raises DrillError: there is none
    """
    drill = read_drill(store, run_key)
    if drill is None:
        raise DrillError(f"no drill {run_key!r} is recorded: its task guard_drill records it")
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import faults

    with store.read() as connection:
        of_fault = select(faults).where(faults.c.fault_id == drill.plan.fault_id)
        fault = connection.execute(of_fault).mappings().first()
        earlier = _earlier(connection, drill.plan)
    return DrillRecord(drill, None if fault is None else dict(fault), earlier)


def _earlier(connection: Connection, plan: DrillPlan) -> tuple[Earlier, ...]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    columns = ("run_key", "planned_at", "verdict", "rto_seconds", "rpo_seconds")
    before = drills.c.planned_at < datetime.fromisoformat(plan.planned_at)
    query = (
        select(*(drills.c[name] for name in columns))
        .where(drills.c.scenario == plan.scenario, drills.c.dry_run.is_(False), before)
        .order_by(drills.c.planned_at.desc())
        .limit(EARLIER_DRILLS)
    )
    return tuple(Earlier(*row) for row in connection.execute(query))[::-1]
