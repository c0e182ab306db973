"""The tables of the blocks that all domains build on: events, leases, outbox, artefacts.

A table whose rows may be removed says so in ``info["retention"]``; see ``core.store.retention``.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from fastvlm_ops.core.store.tables.columns import Identity, UtcDateTime, metadata

#: Append-only: triggers refuse UPDATE, and DELETE of what the permit below does not cover.
events = Table(
    "shared_event",
    metadata,
    Column("id", Identity, primary_key=True, autoincrement=True),
    Column("stream", String(100), nullable=False),
    Column("dedup_key", String(500), nullable=False),
    Column("subject", String(500), nullable=False),
    Column("kind", String(100), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("payload", JSON, nullable=False),
    UniqueConstraint("stream", "dedup_key", name="shared_event_is_recorded_once"),
    Index("shared_event_of_subject", "stream", "subject", "id"),
    Index("shared_event_by_age", "recorded_at"),
    info={"retention": ("recorded_at", timedelta(days=400))},
    sqlite_autoincrement=True,
)

#: One row, made by the migration. Retention sets it and clears it within one transaction, so that nobody
#: else ever sees it set: events recorded before ``remove_before`` may be deleted.
event_permit = Table(
    "shared_event_permit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("remove_before", UtcDateTime),
    CheckConstraint("id = 1", name="shared_event_permit_has_one_row"),
)

#: Rows are never removed: a token that started again at 1 would fence nobody.
leases = Table(
    "shared_lease",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("holder", String(500)),
    Column("acquired_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
)

messages = Table(
    "shared_message",
    metadata,
    Column("id", Identity, primary_key=True, autoincrement=True),
    Column("topic", String(100), nullable=False),
    Column("dedup_key", String(500), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("available_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("claim_token", String(32)),
    Column("claimed_until", UtcDateTime),
    Column("acknowledged_at", UtcDateTime),
    Column("gave_up_at", UtcDateTime),
    Column("last_error", Text),
    UniqueConstraint("topic", "dedup_key", name="shared_message_is_sent_once"),
    Index("shared_message_to_claim", "topic", "acknowledged_at", "gave_up_at", "available_at"),
    info={"retention": ("acknowledged_at", timedelta(days=90))},
    sqlite_autoincrement=True,
)

artefacts = Table(
    "shared_artefact",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("uri", String, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_type", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
