"""Events, leases, outbox, retention and upserts, the same on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Table, delete, insert, select, text, update
from sqlalchemy.exc import DatabaseError, StatementError

from fastvlm_ops.core.store import Store, leases, outbox
from fastvlm_ops.core.store.errors import ClaimLostError, LeaseLostError, RetentionError, UpsertError
from fastvlm_ops.core.store.events import append_event, list_events
from fastvlm_ops.core.store.retention import remove_old_rows, retained_tables
from fastvlm_ops.core.store.tables.shared import artefacts, event_permit, events, messages
from fastvlm_ops.core.store.tables.shared import leases as lease_rows
from fastvlm_ops.core.store.upsert import upsert

pytestmark = pytest.mark.integration

MINUTE = timedelta(minutes=1)
BRIEF = timedelta(milliseconds=1)


def record(store: Store, key: str, at: datetime | None = None) -> bool:
    with store.write() as connection:
        payload = {"text": "é\u2028", "number": 1}
        return append_event(
            connection, stream="test", dedup_key=key, subject="thing", kind="seen", at=at, payload=payload
        )


def send(store: Store, key: str, *, max_attempts: int = 10) -> bool:
    with store.write() as connection:
        return outbox.enqueue(
            connection, topic="test", dedup_key=key, payload={"key": key}, max_attempts=max_attempts
        )


def make_old(store: Store, table: Table, column: str, days: int) -> None:
    """Make all rows old by one of their times."""
    moment = datetime.now(UTC) - timedelta(days=days)
    with store.write() as connection:
        connection.execute(update(table).values({column: moment}))


def insert_old_events(store: Store, count: int, days: int) -> None:
    moment = datetime.now(UTC) - timedelta(days=days)
    row = {"stream": "test", "subject": "thing", "kind": "seen", "at": moment, "recorded_at": moment}
    with store.write() as connection:
        rows = [{**row, "dedup_key": f"old-{days}-{number}", "payload": {}} for number in range(count)]
        connection.execute(insert(events), rows)


def test_times_come_back_in_utc(store: Store) -> None:
    at = datetime(2026, 3, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    record(store, "a", at)
    with store.read() as connection:
        (event,) = list_events(connection, "test")
    assert event.at == at
    assert event.at.tzinfo is UTC
    assert event.recorded_at.tzinfo is UTC
    assert event.payload == {"text": "é\u2028", "number": 1}


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(StatementError, match="has no time zone; pass an aware time"):
        record(store, "a", datetime(2026, 3, 1))
    with store.read() as connection:
        assert list_events(connection, "test") == []


def test_an_event_is_recorded_once_and_the_first_stays(store: Store) -> None:
    first = datetime(2026, 3, 1, tzinfo=UTC)
    assert record(store, "a", first) is True
    assert record(store, "a", first + MINUTE) is False
    with store.read() as connection:
        assert [event.at for event in list_events(connection, "test")] == [first]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shared_event SET kind = 'other'",
        "DELETE FROM shared_event",
        # Which SQLite carries out as a deletion, and without recursive_triggers past the trigger.
        "INSERT OR REPLACE INTO shared_event SELECT * FROM shared_event",
        "TRUNCATE shared_event",
    ],
)
def test_the_database_itself_keeps_events(store: Store, statement: str) -> None:
    only_on = {"INSERT OR": "sqlite", "TRUNCATE": "postgresql"}
    for beginning, dialect in only_on.items():
        if statement.startswith(beginning) and store.dialect != dialect:
            pytest.skip(f"{dialect} only")
    record(store, "a")
    with pytest.raises(DatabaseError, match="shared_event is append-only"), store.write() as connection:
        connection.execute(text(statement))
    with store.read() as connection:
        (event,) = list_events(connection, "test")
    assert event.kind == "seen"


def test_reading_cannot_write(store: Store) -> None:
    with pytest.raises(DatabaseError, match=r"read-?only"), store.read() as connection:
        connection.execute(insert(lease_rows).values(name="a", token=1))
    with store.write() as connection:  # and the connection can write again afterwards
        connection.execute(insert(lease_rows).values(name="a", token=1))


def test_what_is_raised_rolls_back(store: Store) -> None:
    def enqueue_and_fail() -> None:
        with store.write() as connection:
            outbox.enqueue(connection, topic="test", dedup_key="a", payload={})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        enqueue_and_fail()
    assert outbox.claim(store, "test") == []


def test_retention_removes_old_events_in_batches_and_leaves_no_permit(store: Store) -> None:
    insert_old_events(store, 7, days=401)
    insert_old_events(store, 2, days=399)
    assert remove_old_rows(store, events, dry_run=True).rows == 7
    assert remove_old_rows(store, events, dry_run=False, batch=3).rows == 7
    assert remove_old_rows(store, events, dry_run=False, batch=3).rows == 0
    with store.read() as connection:
        assert len(list_events(connection, "test")) == 2
        assert connection.execute(select(event_permit.c.remove_before)).scalar_one() is None
    with pytest.raises(DatabaseError, match="append-only"), store.write() as connection:
        connection.execute(delete(events))


def test_retention_under_a_permit_keeps_younger_events(store: Store) -> None:
    insert_old_events(store, 1, days=399)
    with store.write() as connection:
        cutoff = datetime.now(UTC) - timedelta(days=400)
        connection.execute(update(event_permit).values(remove_before=cutoff))
    with pytest.raises(DatabaseError, match="append-only"), store.write() as connection:
        connection.execute(delete(events))


def test_retention_keeps_messages_that_are_not_done(store: Store) -> None:
    send(store, "done")
    (message,) = outbox.claim(store, "test")
    with store.write() as connection:
        outbox.acknowledge(connection, message)
    make_old(store, messages, "acknowledged_at", 91)
    send(store, "waiting")
    make_old(store, messages, "created_at", 1000)
    assert remove_old_rows(store, messages, dry_run=False).rows == 1
    assert [message.dedup_key for message in outbox.claim(store, "test", limit=9)] == ["waiting"]


def test_tables_without_an_age_are_refused(store: Store) -> None:
    for table in (lease_rows, artefacts):
        with pytest.raises(RetentionError, match=f"table {table.name} does not say how old"):
            remove_old_rows(store, table, dry_run=False)
    assert {events, messages} <= set(retained_tables())
    assert lease_rows not in retained_tables()


def test_the_end_of_retention_is_never_in_the_future(store: Store) -> None:
    record(store, "new")
    far = datetime.now(UTC) + timedelta(days=4000)
    assert remove_old_rows(store, events, dry_run=False, at=far).rows == 0


def test_a_lease_has_one_holder_until_it_is_released_or_expires(store: Store) -> None:
    first = leases.acquire(store, "a", holder="one", time_to_live=MINUTE)
    assert first is not None
    assert leases.acquire(store, "a", holder="one", time_to_live=MINUTE) is None
    assert leases.acquire(store, "b", holder="two", time_to_live=MINUTE) is not None
    assert leases.release(store, first) is True
    assert leases.release(store, first) is False
    second = leases.acquire(store, "a", holder="two", time_to_live=BRIEF)
    assert second is not None
    third = leases.acquire(store, "a", holder="three", time_to_live=MINUTE)
    while third is None:  # the second expires
        third = leases.acquire(store, "a", holder="three", time_to_live=MINUTE)
    assert first.token < second.token < third.token
    assert leases.release(store, second) is False
    with store.write() as connection:
        leases.require(connection, third)


def test_a_lost_lease_is_neither_renewed_nor_written_under(store: Store) -> None:
    lost = leases.acquire(store, "a", holder="one", time_to_live=MINUTE)
    assert lost is not None
    assert leases.renew(store, lost, time_to_live=2 * MINUTE).expires_at > lost.expires_at
    with store.write() as connection:
        connection.execute(update(lease_rows).values(expires_at=datetime.now(UTC) - MINUTE))
    with pytest.raises(LeaseLostError, match=r"lease 'a', token 1, expired at .*; acquire it again"):
        leases.renew(store, lost, time_to_live=MINUTE)
    assert leases.acquire(store, "a", holder="two", time_to_live=MINUTE) is not None
    with pytest.raises(LeaseLostError, match="was lost to 'two', token 2"), store.write() as connection:
        leases.require(connection, lost)
    with store.write() as connection:
        connection.execute(delete(lease_rows))  # as a database that was restored to an earlier state
    with pytest.raises(LeaseLostError, match="does not know lease 'a'"), store.write() as connection:
        leases.require(connection, lost)


def test_a_message_is_enqueued_once_even_when_it_is_done(store: Store) -> None:
    assert send(store, "a") is True
    (message,) = outbox.claim(store, "test", limit=5)
    assert outbox.claim(store, "test", limit=5) == []
    with store.write() as connection:
        outbox.acknowledge(connection, message)
    assert send(store, "a") is False
    assert outbox.claim(store, "test") == []


def test_an_overtaken_claim_settles_nothing(store: Store) -> None:
    send(store, "a")
    (overtaken,) = outbox.claim(store, "test", visibility=BRIEF)
    later: list[outbox.Message] = []
    while not later:
        later = outbox.claim(store, "test", visibility=MINUTE)
    for settle in (lambda c: outbox.acknowledge(c, overtaken), lambda c: outbox.fail(c, overtaken, "x")):
        with pytest.raises(ClaimLostError, match="message 'a' of 'test'"), store.write() as connection:
            settle(connection)
    with store.write() as connection:
        outbox.acknowledge(connection, later[0])
    assert later[0].attempt == 2


def test_a_late_acknowledgement_of_a_claim_that_nobody_took_is_fine(store: Store) -> None:
    send(store, "a")
    (message,) = outbox.claim(store, "test", visibility=BRIEF)
    with store.write() as connection:
        connection.execute(update(messages).values(claimed_until=datetime.now(UTC) - MINUTE))
        outbox.acknowledge(connection, message)
    assert outbox.claim(store, "test") == []


def test_failures_wait_longer_each_time_and_are_given_up(store: Store) -> None:
    send(store, "a", max_attempts=2)
    (message,) = outbox.claim(store, "test")
    with store.write() as connection:
        outbox.fail(connection, message, "no answer", first_delay=MINUTE)
    assert outbox.claim(store, "test") == []  # not yet
    with store.write() as connection:
        row = connection.execute(select(messages)).one()
        assert timedelta(seconds=50) < row.available_at - datetime.now(UTC) <= MINUTE
        connection.execute(update(messages).values(available_at=datetime.now(UTC) - MINUTE))
    (message,) = outbox.claim(store, "test")
    with store.write() as connection:
        outbox.fail(connection, message, "no answer again", first_delay=BRIEF)
        assert outbox.backlog(connection, "test") == outbox.Backlog(0, 0, 0, given_up=1)
        assert connection.execute(select(messages.c.last_error)).scalar_one() == "no answer again"
    assert outbox.claim(store, "test") == []
    with store.write() as connection:
        assert outbox.revive(connection, "test", "a") is True
        assert outbox.revive(connection, "test", "a") is False
    assert [message.attempt for message in outbox.claim(store, "test")] == [1]


def test_a_message_that_kills_its_workers_is_given_up(store: Store) -> None:
    send(store, "a", max_attempts=1)
    assert len(outbox.claim(store, "test")) == 1
    with store.write() as connection:
        connection.execute(update(messages).values(claimed_until=datetime.now(UTC) - MINUTE))
    assert outbox.claim(store, "test") == []
    with store.read() as connection:
        assert outbox.backlog(connection, "test") == outbox.Backlog(0, 0, 0, given_up=1)


def test_upsert_writes_once_and_keeps_what_is_to_be_kept(store: Store) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    row = {
        "run_key": "run",
        "name": "a",
        "uri": "s3://b/a",
        "sha256": "0",
        "size_bytes": 1,
        "content_type": "text/plain",
        "created_at": moment,
    }
    key = ("run_key", "name")
    changed = {**row, "size_bytes": 2, "created_at": moment + MINUTE}
    with store.write() as connection:
        for rows in ([row], [row], [changed, {**row, "name": "b"}], []):
            upsert(connection, artefacts, rows, key=key, keep=("created_at",))
        stored = connection.execute(select(artefacts).order_by(artefacts.c.name)).all()
    assert [(one.name, one.size_bytes, one.created_at) for one in stored] == [
        ("a", 2, moment),
        ("b", 1, moment),
    ]
    for rows, message in (
        ([{**row, "name": None}], "row 0 lacks its key name"),
        ([row, {"run_key": "run", "name": "c"}], "row 1 and row 0 differ in the columns"),
        ([{**row, "colour": "red"}], "shared_artefact has no column colour"),
    ):
        with pytest.raises(UpsertError, match=message), store.write() as connection:
            upsert(connection, artefacts, rows, key=key)
