"""Drills, their steps, and the faults that have to be taken back. What is not known is NULL."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table

from fastvlm_ops.core.store.tables.columns import UtcDateTime, metadata

_KEPT = timedelta(days=1200)  # three years of quarters

_planned_at = Column("planned_at", UtcDateTime, nullable=False)
#: One row a run. ``plan`` is all that its tasks go by; ``summary`` is what a report shows besides figures.
drills = Table(
    "drill",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("scenario", String(60), nullable=False),
    Column("environment", String(63), nullable=False),
    Column("dry_run", Boolean, nullable=False),
    _planned_at,
    Column("plan", JSON, nullable=False),
    Column("fault_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("verdict", String(20)),
    Column("reason", String),
    Column("rto_seconds", Double),
    Column("rto_objective_seconds", Double, nullable=False),
    Column("detection_seconds", Double),
    Column("failover_seconds", Double),
    Column("rpo_seconds", Double),
    Column("rpo_objective_seconds", Double, nullable=False),
    Column("lost_writes", Integer),
    Column("acknowledged_writes", Integer),
    Column("in_flight_writes", Integer),
    Column("summary", JSON),
    Index("drill_by_time", "planned_at"),
    Index("drill_of_scenario", "scenario", "planned_at"),
    info={"retention": (_planned_at, _KEPT)},
)

steps = Table(
    "drill_step",
    metadata,
    Column("run_key", ForeignKey("drill.run_key", ondelete="CASCADE"), primary_key=True),
    Column("step", String(40), primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("status", String(20), nullable=False),
    Column("result", JSON, nullable=False),
)

#: At most one row, ``drills``: the safety lever. While it is ``stopped``, nothing is broken.
lever = Table(
    "drill_lever",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("changed_by", String(255), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

_armed_at = Column("armed_at", UtcDateTime, nullable=False)
#: One row a fault, written before it is injected: enough to take it back without the drill or its scenario.
faults = Table(
    "drill_fault",
    metadata,
    Column("fault_id", String(64), primary_key=True),
    Column("run_key", String(500), nullable=False),
    Column("host", String(255), nullable=False),
    Column("fault", JSON, nullable=False),
    Column("time_to_live_seconds", Double, nullable=False),
    _armed_at,
    Column("injected_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("undone_at", UtcDateTime),
    Column("undone_by", String(40)),
    Column("problem", String),
    Index("drill_fault_open", "undone_at", "host"),
    info={"retention": (_armed_at, _KEPT)},
)
