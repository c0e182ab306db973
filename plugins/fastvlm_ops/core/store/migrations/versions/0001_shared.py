"""The blocks that all domains build on: events, leases, outbox, artefacts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import Identity, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the one row of the permit, and the triggers that keep events as they are."""
    _create_events()
    _create_leases()
    _create_messages()
    _create_artefacts()
    if op.get_context().dialect.name == "sqlite":
        _guard_events_in_sqlite()
    else:
        _guard_events_in_postgresql()


def _create_events() -> None:
    op.create_table(
        "shared_event",
        sa.Column("id", Identity, primary_key=True, autoincrement=True),
        sa.Column("stream", sa.String(100), nullable=False),
        sa.Column("dedup_key", sa.String(500), nullable=False),
        sa.Column("subject", sa.String(500), nullable=False),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.UniqueConstraint("stream", "dedup_key", name="shared_event_is_recorded_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("shared_event_of_subject", "shared_event", ["stream", "subject", "id"])
    op.create_index("shared_event_by_age", "shared_event", ["recorded_at"])
    permit = op.create_table(
        "shared_event_permit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("remove_before", UtcDateTime),
        sa.CheckConstraint("id = 1", name="shared_event_permit_has_one_row"),
    )
    op.bulk_insert(permit, [{"id": 1}])


def _create_leases() -> None:
    op.create_table(
        "shared_lease",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.String(500)),
        sa.Column("acquired_at", UtcDateTime),
        sa.Column("expires_at", UtcDateTime),
    )


def _create_messages() -> None:
    op.create_table(
        "shared_message",
        sa.Column("id", Identity, primary_key=True, autoincrement=True),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("dedup_key", sa.String(500), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("available_at", UtcDateTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("claim_token", sa.String(32)),
        sa.Column("claimed_until", UtcDateTime),
        sa.Column("acknowledged_at", UtcDateTime),
        sa.Column("gave_up_at", UtcDateTime),
        sa.Column("last_error", sa.Text),
        sa.UniqueConstraint("topic", "dedup_key", name="shared_message_is_sent_once"),
        sqlite_autoincrement=True,
    )
    columns = ["topic", "acknowledged_at", "gave_up_at", "available_at"]
    op.create_index("shared_message_to_claim", "shared_message", columns)


def _create_artefacts() -> None:
    op.create_table(
        "shared_artefact",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("content_type", sa.String(100), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )


def _guard_events_in_sqlite() -> None:
    op.execute("""
        CREATE TRIGGER shared_event_no_update BEFORE UPDATE ON shared_event
        BEGIN SELECT RAISE(ABORT, 'shared_event is append-only: no UPDATE'); END
    """)
    op.execute("""
        CREATE TRIGGER shared_event_no_delete BEFORE DELETE ON shared_event
        WHEN NOT EXISTS (SELECT 1 FROM shared_event_permit WHERE OLD.recorded_at < remove_before)
        BEGIN SELECT RAISE(ABORT, 'shared_event is append-only: only retention may DELETE'); END
    """)


def _guard_events_in_postgresql() -> None:
    op.execute("""
        CREATE FUNCTION shared_event_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' AND EXISTS (
                SELECT 1 FROM shared_event_permit WHERE OLD.recorded_at < remove_before
            ) THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'shared_event is append-only: no %; only retention may DELETE', TG_OP;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER shared_event_no_change BEFORE UPDATE OR DELETE ON shared_event
        FOR EACH ROW EXECUTE FUNCTION shared_event_guard()
    """)
    op.execute("""
        CREATE TRIGGER shared_event_no_truncate BEFORE TRUNCATE ON shared_event
        FOR EACH STATEMENT EXECUTE FUNCTION shared_event_guard()
    """)
