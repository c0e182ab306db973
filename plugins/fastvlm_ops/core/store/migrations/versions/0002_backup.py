"""The catalogue of backups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and the one row of the catalogue."""
    catalogue = _create_catalogue()
    _create_sets_and_snapshots()
    _create_what_refers_to_them()
    op.bulk_insert(catalogue, [{"id": 1, "sequence": 0}])


def _create_catalogue() -> sa.Table:
    return op.create_table(
        "backup_catalogue",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("repository_id", sa.String(64)),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("refreshed_at", UtcDateTime),
        sa.CheckConstraint("id = 1", name="backup_catalogue_has_one_row"),
    )


def _create_sets_and_snapshots() -> None:
    op.create_table(
        "backup_set",
        sa.Column("set_id", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("published_at", UtcDateTime, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("run_key", sa.String, nullable=False),
    )
    op.create_table(
        "backup_snapshot",
        sa.Column("snapshot_id", sa.String(255), primary_key=True),
        sa.Column("component", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("run_key", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime, nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("new_bytes", sa.BigInteger, nullable=False),
        sa.Column("warnings", sa.Integer),
    )
    op.create_index("backup_snapshot_of_component", "backup_snapshot", ["component", "sequence"])


def _create_what_refers_to_them() -> None:
    to_set = sa.ForeignKey("backup_set.set_id", ondelete="CASCADE")
    op.create_table(
        "backup_set_member",
        sa.Column("set_id", sa.String(255), to_set, primary_key=True),
        sa.Column("component", sa.String(255), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("snapshot_id", sa.String(255), _to_snapshot(), nullable=False),
    )
    op.create_index("backup_set_member_of_snapshot", "backup_set_member", ["snapshot_id"])
    op.create_table(
        "backup_check",
        sa.Column("snapshot_id", sa.String(255), _to_snapshot(), primary_key=True),
        sa.Column("kind", sa.String(40), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("run_key", sa.String, nullable=False),
        sa.Column("level_or_where", sa.String(40), nullable=False),
        sa.Column("share", sa.Integer),
        sa.Column("shares", sa.Integer),
        sa.Column("files", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("duration_seconds", sa.Double),
    )


def _to_snapshot() -> sa.ForeignKey:
    return sa.ForeignKey("backup_snapshot.snapshot_id", ondelete="CASCADE")
