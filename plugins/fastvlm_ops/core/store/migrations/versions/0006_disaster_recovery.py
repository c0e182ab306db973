"""Drills, their steps, and their faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_drills()
    _create_steps()
    _create_faults()
    _create_lever()


def _create_drills() -> None:
    op.create_table(
        "drill",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("scenario", sa.String(60), nullable=False),
        sa.Column("environment", sa.String(63), nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("planned_at", UtcDateTime, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("fault_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("verdict", sa.String(20)),
        sa.Column("reason", sa.String),
        sa.Column("rto_seconds", sa.Double),
        sa.Column("rto_objective_seconds", sa.Double, nullable=False),
        sa.Column("detection_seconds", sa.Double),
        sa.Column("failover_seconds", sa.Double),
        sa.Column("rpo_seconds", sa.Double),
        sa.Column("rpo_objective_seconds", sa.Double, nullable=False),
        sa.Column("lost_writes", sa.Integer),
        sa.Column("acknowledged_writes", sa.Integer),
        sa.Column("in_flight_writes", sa.Integer),
        sa.Column("summary", sa.JSON),
    )
    op.create_index("drill_by_time", "drill", ["planned_at"])
    op.create_index("drill_of_scenario", "drill", ["scenario", "planned_at"])


def _create_steps() -> None:
    op.create_table(
        "drill_step",
        sa.Column(
            "run_key", sa.String(500), sa.ForeignKey("drill.run_key", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("step", sa.String(40), primary_key=True),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
    )


def _create_faults() -> None:
    op.create_table(
        "drill_fault",
        sa.Column("fault_id", sa.String(64), primary_key=True),
        sa.Column("run_key", sa.String(500), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("fault", sa.JSON, nullable=False),
        sa.Column("time_to_live_seconds", sa.Double, nullable=False),
        sa.Column("armed_at", UtcDateTime, nullable=False),
        sa.Column("injected_at", UtcDateTime),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("undone_at", UtcDateTime),
        sa.Column("undone_by", sa.String(40)),
        sa.Column("problem", sa.String),
    )
    op.create_index("drill_fault_open", "drill_fault", ["undone_at", "host"])


def _create_lever() -> None:
    op.create_table(
        "drill_lever",
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
    )
