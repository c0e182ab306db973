"""Drills as rows of the operations database: plan, steps, verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update

from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.plan import STEPS, DrillPlan, StepResult, Verdict
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables import disaster_recovery as tables
from fastvlm_ops.core.store.upsert import upsert

#: Columns of ``drill`` that are figures of a verdict.
FIGURES = (
    "rto_seconds",
    "detection_seconds",
    "failover_seconds",
    "rpo_seconds",
    "lost_writes",
    "acknowledged_writes",
    "in_flight_writes",
)


@dataclass(frozen=True)
class StepRow:
    """A step as it was recorded.

    :param started_at: of its last attempt, by the clock of the worker
    :param finished_at: likewise
    :param result: what it found
    """

    started_at: datetime
    finished_at: datetime
    result: StepResult


@dataclass(frozen=True)
class Drill:
    """A drill as it was recorded.

    :param plan: made at its start
    :param rto_objective_seconds: of the scenario
    :param rpo_objective_seconds: of the scenario
    :param fault_at: when the fault was injected; None where it was not
    :param finished_at: None while it runs
    :param verdict: None while it runs
    :param reason: of the verdict
    :param figures: of :data:`FIGURES`; None: not measured
    :param summary: what a report shows besides
    :param steps: by their names, in the order of :data:`~.plan.STEPS`
    """

    plan: DrillPlan
    rto_objective_seconds: float
    rpo_objective_seconds: float
    fault_at: datetime | None
    finished_at: datetime | None
    verdict: Verdict | None
    reason: str | None
    figures: dict[str, Any]
    summary: dict[str, Any] | None
    steps: dict[str, StepRow] = field(default_factory=dict)


def record_plan(
    store: Store, plan: DrillPlan, *, rto_objective_seconds: float, rpo_objective_seconds: float
) -> None:
    """Record a plan. A retried guard replaces the plan that it made; once a fault is armed, nobody does.

    :param store: the operations database
    :param plan: of the drill
    :param rto_objective_seconds: of the scenario
    :param rpo_objective_seconds: of the scenario
    :raises DrillError: the run has armed a fault or has a verdict: it cannot be run again
    """
    row = {
        "run_key": plan.run_key,
        "scenario": plan.scenario,
        "environment": plan.environment,
        "dry_run": plan.dry_run,
        "planned_at": datetime.fromisoformat(plan.planned_at),
        "plan": plan.model_dump(mode="json"),
        "rto_objective_seconds": rto_objective_seconds,
        "rpo_objective_seconds": rpo_objective_seconds,
    }
    with store.write() as connection:
        armed = connection.execute(
            select(tables.faults.c.fault_id).where(tables.faults.c.run_key == plan.run_key)
        ).first()
        judged = connection.execute(
            select(tables.drills.c.verdict).where(
                tables.drills.c.run_key == plan.run_key, tables.drills.c.verdict.is_not(None)
            )
        ).first()
        if armed or judged:
            raise DrillError(f"{plan.run_key} has been drilled already: trigger a new run instead")
        upsert(connection, tables.drills, [row], key=["run_key"])


def record_step(
    store: Store, run_key: str, result: StepResult, *, started_at: datetime, finished_at: datetime
) -> None:
    """Record what a step has found, instead of what an earlier attempt did.

    :param store: the operations database
    :param run_key: of the drill
    :param result: what was found
    :param started_at: when the step began, aware
    :param finished_at: when it ended, aware
    """
    row = {
        "run_key": run_key,
        "step": result.step,
        "started_at": started_at,
        "finished_at": finished_at,
        "status": result.status,
        "result": result.model_dump(mode="json"),
    }
    with store.write() as connection:
        upsert(connection, tables.steps, [row], key=["run_key", "step"])


def record_fault_at(store: Store, run_key: str, moment: datetime) -> None:
    """Record when the fault was injected; the first such moment counts.

    :param store: the operations database
    :param run_key: of the drill
    :param moment: aware
    """
    statement = update(tables.drills).where(
        tables.drills.c.run_key == run_key, tables.drills.c.fault_at.is_(None)
    )
    with store.write() as connection:
        connection.execute(statement.values(fault_at=moment))


def record_verdict(
    store: Store,
    run_key: str,
    verdict: Verdict,
    reason: str,
    *,
    figures: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> None:
    """Record the verdict of a drill. A retried task leaves the moment of the first as it is, so that the
    same evidence is made of it.

    :param store: the operations database
    :param run_key: of the drill
    :param verdict: what it comes to
    :param reason: one sentence
    :param figures: of :data:`FIGURES`; what is absent was not measured
    :param summary: JSON that a report shows besides
    """
    this = tables.drills.c.run_key == run_key
    with store.write() as connection:
        finished_at = connection.execute(select(tables.drills.c.finished_at).where(this)).scalar()
        connection.execute(
            update(tables.drills)
            .where(this)
            .values(
                verdict=verdict,
                reason=reason,
                finished_at=finished_at or now(connection),
                summary=dict(summary),
                **{name: figures.get(name) for name in FIGURES},
            )
        )


def read_drill(store: Store, run_key: str) -> Drill | None:
    """Return a drill; None where no plan of it was recorded.

    :param store: the operations database
    :param run_key: of the drill
    """
    with store.read() as connection:
        row = connection.execute(select(tables.drills).where(tables.drills.c.run_key == run_key)).first()
        if row is None:
            return None
        steps = connection.execute(select(tables.steps).where(tables.steps.c.run_key == run_key)).all()
    return _drill(row, steps)


def read_plan(store: Store, run_key: str) -> DrillPlan:
    """Return the plan of a drill.

    :param store: the operations database
    :param run_key: of the drill
    :raises DrillError: none was recorded
    """
    drill = read_drill(store, run_key)
    if drill is None:
        raise DrillError(f"{run_key} has no plan in the operations database: its task guard_drill makes it")
    return drill.plan


def list_drills(store: Store, *, scenario: str | None = None, limit: int = 100) -> list[Drill]:
    """Return drills, newest first, without their steps.

    :param store: the operations database
    :param scenario: only those of it
    :param limit: how many at most
    """
    statement = select(tables.drills).order_by(tables.drills.c.planned_at.desc()).limit(limit)
    if scenario is not None:
        statement = statement.where(tables.drills.c.scenario == scenario)
    with store.read() as connection:
        return [_drill(row, ()) for row in connection.execute(statement).all()]


def _drill(row: Row[Any], steps: Any) -> Drill:
    found = {
        one.step: StepRow(one.started_at, one.finished_at, StepResult.model_validate(one.result))
        for one in steps
    }
    return Drill(
        plan=DrillPlan.model_validate(row.plan),
        rto_objective_seconds=row.rto_objective_seconds,
        rpo_objective_seconds=row.rpo_objective_seconds,
        fault_at=row.fault_at,
        finished_at=row.finished_at,
        verdict=row.verdict,
        reason=row.reason,
        figures={name: getattr(row, name) for name in FIGURES},
        summary=row.summary,
        steps={name: found[name] for name in STEPS if name in found},
    )
