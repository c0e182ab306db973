"""The catalogue of backups: rows made from the log and manifests of one repository, and nothing else.

Below it stands what the bucket does not say: plans of pruning, windows of recovery, what runs have cost.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
)

from fastvlm_ops.core.store.tables.columns import UtcDateTime, metadata

_KEPT = timedelta(days=800)  # two years of weeks, so that a year can be laid beside the one before

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

#: The last entry of each kind about a snapshot: verified, damaged, restored, restore_tested, restore_failed.
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

#: The newest verifications, one row each, whatever they covered. What an older version did not say is NULL.
verifications = Table(
    "backup_verification",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("run_key", String, nullable=False),
    Column("level", String(40), nullable=False),
    Column("share", Integer),
    Column("shares", Integer),
    Column("ok", Boolean, nullable=False),
    Column("snapshots", Integer, nullable=False),
    Column("damaged_snapshots", Integer, nullable=False),
    Column("objects", BigInteger),
    Column("size_bytes", BigInteger),
    Column("read_bytes", BigInteger),
    Column("duration_seconds", Double),
    Column("damaged_objects", BigInteger),
    Column("named_objects", JSON, nullable=False),
)

_planned_at = Column("planned_at", UtcDateTime, nullable=False)
#: One row a run that plans pruning, and what came of it. ``plan`` is what a page shows: the sets with their
#: reasons, packs by what becomes of them. What is not known yet is NULL.
prunings = Table(
    "backup_pruning",
    metadata,
    Column("run_key", String(500), primary_key=True),
    _planned_at,
    Column("status", String(40), nullable=False),
    Column("reason", String),
    Column("dry_run", Boolean, nullable=False),
    Column("forgotten_sets", Integer, nullable=False),
    Column("forgotten_snapshots", Integer, nullable=False),
    Column("packs", Integer),
    Column("total_bytes", BigInteger),
    Column("removed_bytes", BigInteger),
    Column("copied_bytes", BigInteger),
    Column("deleted_objects", Integer),
    Column("deleted_bytes", BigInteger),
    Column("locked_objects", Integer),
    Column("locked_until", UtcDateTime),
    Column("plan", JSON, nullable=False),
    Index("backup_pruning_by_time", "planned_at"),
    info={"retention": (_planned_at, _KEPT)},
)

#: One row a PostgreSQL component: what it can be recovered to, as it was last proven. NULL is unknown.
wal_windows = Table(
    "backup_wal_window",
    metadata,
    Column("component", String(255), primary_key=True),
    Column("checked_at", UtcDateTime, nullable=False),
    Column("system_id", String(40)),
    Column("timeline", Integer),
    Column("recoverable_from", UtcDateTime),
    Column("recoverable_until", UtcDateTime),
    Column("from_lsn", String(40)),
    Column("until_lsn", String(40)),
    Column("server_lsn", String(40)),
    Column("lag_bytes", BigInteger),
    Column("lag_seconds", Double),
    Column("segments", Integer, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("gap", String),
)

_used_at = Column("at", UtcDateTime, nullable=False)
#: One row a task that used the bucket: its requests by verb, and bytes.
usages = Table(
    "backup_usage",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("task", String(255), primary_key=True),
    _used_at,
    Column("puts", BigInteger, nullable=False),
    Column("gets", BigInteger, nullable=False),
    Column("heads", BigInteger, nullable=False),
    Column("lists", BigInteger, nullable=False),
    Column("deletes", BigInteger, nullable=False),
    Column("copies", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Index("backup_usage_by_time", "at"),
    info={"retention": (_used_at, _KEPT)},
)
