"""The catalogue of backups: rows made from the log and manifests of one repository, and nothing else."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Double, ForeignKey, Index, Integer, String, Table

from fastvlm_ops.core.store.tables.columns import UtcDateTime, metadata

#: One row, made by the migration, so that whoever changes the catalogue has something to lock.
catalogue = Table(
    "backup_catalogue",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("repository_id", String(64)),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64)),
    Column("refreshed_at", UtcDateTime),
    CheckConstraint("id = 1", name="backup_catalogue_has_one_row"),
)

sets = Table(
    "backup_set",
    metadata,
    Column("set_id", String(255), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("timestamp", UtcDateTime, nullable=False),
    Column("published_at", UtcDateTime, nullable=False),
    Column("sequence", BigInteger, nullable=False, unique=True),
    Column("run_key", String, nullable=False),
)

snapshots = Table(
    "backup_snapshot",
    metadata,
    Column("snapshot_id", String(255), primary_key=True),
    Column("component", String(255), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("run_key", String, nullable=False),
    Column("sequence", BigInteger, nullable=False, unique=True),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("new_bytes", BigInteger, nullable=False),
    Column("warnings", Integer),
    Index("backup_snapshot_of_component", "component", "sequence"),
)

members = Table(
    "backup_set_member",
    metadata,
    Column("set_id", ForeignKey("backup_set.set_id", ondelete="CASCADE"), primary_key=True),
    Column("component", String(255), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("snapshot_id", ForeignKey("backup_snapshot.snapshot_id", ondelete="CASCADE"), nullable=False),
    Index("backup_set_member_of_snapshot", "snapshot_id"),
)

#: The last entry of each kind about a snapshot: verified, damaged, restored.
checks = Table(
    "backup_check",
    metadata,
    Column("snapshot_id", ForeignKey("backup_snapshot.snapshot_id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(40), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("run_key", String, nullable=False),
    Column("level_or_where", String(40), nullable=False),
    Column("share", Integer),
    Column("shares", Integer),
    Column("files", BigInteger),
    Column("size_bytes", BigInteger),
    Column("duration_seconds", Double),
)
