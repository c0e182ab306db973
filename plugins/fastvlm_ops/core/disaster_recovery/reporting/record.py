"""A drill as the operations database has it: all that its report is made of, besides the observer's ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.plan import STEPS, DrillPlan, StepResult

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fastvlm_ops.core.store import Store

EARLIER_DRILLS = 50


class UnknownDrillError(Exception):
    """The operations database has no such drill."""

    retryable = False


@dataclass(frozen=True)
class StepRecord:
    """A step that has ended."""

    started_at: datetime
    finished_at: datetime
    result: StepResult


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

    :param row: of table ``drill``
    :param steps: that have ended, in their order
    :param fault: row of table ``drill_fault``; None where nothing was armed
    :param earlier: oldest first, itself not among them
    """

    plan: DrillPlan
    row: Mapping[str, Any]
    steps: tuple[StepRecord, ...]
    fault: Mapping[str, Any] | None
    earlier: tuple[Earlier, ...] = ()

    @property
    def title(self) -> str:
        """What its scenario calls it."""
        return str(self.plan.definition.get("title") or self.plan.scenario)

    @property
    def description(self) -> str:
        """What its scenario says that it proves."""
        return str(self.plan.definition.get("description") or "").strip()

    def step(self, name: str) -> StepRecord | None:
        """Return a step; None where it has not ended, or was never begun.

        :param name: of :data:`~fastvlm_ops.core.disaster_recovery.plan.STEPS`
        """
        return next((one for one in self.steps if one.result.step == name), None)

    @property
    def undone_after_seconds(self) -> float | None:
        """From the fault until nothing of it was left; None where that is not known."""
        return (
            None
            if self.fault is None
            else seconds_between(self.fault["injected_at"], self.fault["undone_at"])
        )


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the time between two moments; None where one of them is not known."""
    return None if start is None or end is None else (end - start).total_seconds()


def read_record(store: Store, run_key: str) -> DrillRecord:
    """Read a drill.

    :param store: the operations database
    :param run_key: ``<dag id>/<run id>``
    :raises UnknownDrillError: there is none
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills, faults, steps

    with store.read() as connection:
        row = connection.execute(select(drills).where(drills.c.run_key == run_key)).mappings().first()
        if row is None:
            raise UnknownDrillError(f"no drill {run_key!r} is recorded; its guard_drill has to run first")
        plan = DrillPlan.model_validate(row["plan"])
        ended = connection.execute(select(steps).where(steps.c.run_key == run_key)).mappings().all()
        of_fault = select(faults).where(faults.c.fault_id == plan.fault_id)
        fault = connection.execute(of_fault).mappings().first()
        earlier = _earlier(connection, plan.scenario, row["planned_at"])
    return DrillRecord(
        plan=plan,
        row=dict(row),
        steps=tuple(sorted(map(_step, ended), key=_place)),
        fault=None if fault is None else dict(fault),
        earlier=earlier,
    )


def _step(row: Mapping[str, Any]) -> StepRecord:
    return StepRecord(row["started_at"], row["finished_at"], StepResult.model_validate(row["result"]))


def _place(step: StepRecord) -> tuple[int, str]:
    name = step.result.step
    return STEPS.index(name) if name in STEPS else len(STEPS), name


def _earlier(connection: Connection, scenario: str, before: datetime) -> tuple[Earlier, ...]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    columns = ("run_key", "planned_at", "verdict", "rto_seconds", "rpo_seconds")
    query = (
        select(*(drills.c[name] for name in columns))
        .where(drills.c.scenario == scenario, drills.c.dry_run.is_(False), drills.c.planned_at < before)
        .order_by(drills.c.planned_at.desc())
        .limit(EARLIER_DRILLS)
    )
    return tuple(Earlier(*row) for row in connection.execute(query))[::-1]
