"""Verifications, plans of pruning, windows of recovery, and what runs have cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_verifications()
    _create_prunings()
    _create_windows()
    _create_usages()


def _create_verifications() -> None:
    op.create_table(
        "backup_verification",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("run_key", sa.String, nullable=False),
        sa.Column("level", sa.String(40), nullable=False),
        sa.Column("share", sa.Integer),
        sa.Column("shares", sa.Integer),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("snapshots", sa.Integer, nullable=False),
        sa.Column("damaged_snapshots", sa.Integer, nullable=False),
        sa.Column("objects", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("read_bytes", sa.BigInteger),
        sa.Column("duration_seconds", sa.Double),
        sa.Column("damaged_objects", sa.BigInteger),
        sa.Column("named_objects", sa.JSON, nullable=False),
    )


def _create_prunings() -> None:
    op.create_table(
        "backup_pruning",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("planned_at", UtcDateTime, nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("forgotten_sets", sa.Integer, nullable=False),
        sa.Column("forgotten_snapshots", sa.Integer, nullable=False),
        sa.Column("packs", sa.Integer),
        sa.Column("total_bytes", sa.BigInteger),
        sa.Column("removed_bytes", sa.BigInteger),
        sa.Column("copied_bytes", sa.BigInteger),
        sa.Column("deleted_objects", sa.Integer),
        sa.Column("deleted_bytes", sa.BigInteger),
        sa.Column("locked_objects", sa.Integer),
        sa.Column("locked_until", UtcDateTime),
        sa.Column("plan", sa.JSON, nullable=False),
    )
    op.create_index("backup_pruning_by_time", "backup_pruning", ["planned_at"])


def _create_windows() -> None:
    op.create_table(
        "backup_wal_window",
        sa.Column("component", sa.String(255), primary_key=True),
        sa.Column("checked_at", UtcDateTime, nullable=False),
        sa.Column("system_id", sa.String(40)),
        sa.Column("timeline", sa.Integer),
        sa.Column("recoverable_from", UtcDateTime),
        sa.Column("recoverable_until", UtcDateTime),
        sa.Column("from_lsn", sa.String(40)),
        sa.Column("until_lsn", sa.String(40)),
        sa.Column("server_lsn", sa.String(40)),
        sa.Column("lag_bytes", sa.BigInteger),
        sa.Column("lag_seconds", sa.Double),
        sa.Column("segments", sa.Integer, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("gap", sa.String),
    )


def _create_usages() -> None:
    op.create_table(
        "backup_usage",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("task", sa.String(255), primary_key=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("puts", sa.BigInteger, nullable=False),
        sa.Column("gets", sa.BigInteger, nullable=False),
        sa.Column("heads", sa.BigInteger, nullable=False),
        sa.Column("lists", sa.BigInteger, nullable=False),
        sa.Column("deletes", sa.BigInteger, nullable=False),
        sa.Column("copies", sa.BigInteger, nullable=False),
        sa.Column("sent_bytes", sa.BigInteger, nullable=False),
        sa.Column("received_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("backup_usage_by_time", "backup_usage", ["at"])
