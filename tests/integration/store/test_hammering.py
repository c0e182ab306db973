"""Eight processes on one lease, one set of dedup keys, one outbox; some are killed at random."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from fastvlm_ops.core.store import Store, migrate, open_store
from fastvlm_ops.core.store.migrate import current_version, head_version
from fastvlm_ops.core.store.outbox import backlog, enqueue
from tests.integration.store.workers import COUNT, Crew

pytestmark = pytest.mark.integration


def run(store: Store, *statements: str) -> None:
    with store.write() as connection:
        for statement in statements:
            connection.execute(text(statement))


def rows(store: Store, query: str) -> list[tuple[int | str, ...]]:
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_one_lease_has_one_holder(store: Store, store_url: str, tmp_path: Path) -> None:
    run(
        store,
        "CREATE TABLE test_counter (value INTEGER)",
        "INSERT INTO test_counter VALUES (0)",
        "CREATE TABLE test_hold (value INTEGER, token INTEGER)",
    )
    goal = 80
    with Crew("count", store_url, tmp_path, goal) as crew:
        crew.start()
        crew.kill_some(6)
        lines = crew.finish()
    # Two holders at once would have counted from the same value, or under an older token after a newer one.
    holds = rows(store, "SELECT value, token FROM test_hold ORDER BY value, token")
    assert [value for value, _ in holds] == list(range(1, goal + 1))
    assert rows(store, "SELECT value FROM test_counter") == [(goal,)]
    tokens = [token for _, token in holds]
    assert tokens == sorted(set(tokens))
    acquired = Counter(token for word, token in lines if word == "acquired")
    assert set(acquired.values()) == {1}  # no token was given out twice
    assert crew.killed >= 3
    assert any(word == "fenced" for word, _ in lines)  # a holder that paused too long was kept out


def test_one_key_is_recorded_once(store: Store, store_url: str, tmp_path: Path) -> None:
    run(store, "CREATE TABLE test_won (number INTEGER PRIMARY KEY, pid INTEGER)")
    goal = 60
    with Crew("record", store_url, tmp_path, goal) as crew:
        crew.start()
        crew.kill_some(5)
        lines = crew.finish()
    for table in ("shared_event WHERE stream = 'test'", "shared_message WHERE topic = 'test'", "test_won"):
        assert rows(store, f"SELECT count(*) FROM {table}") == [(goal,)]  # noqa: S608 - the table is ours
    recorded = Counter(number for _, number in lines)
    assert len(recorded) == goal
    assert min(recorded.values()) >= COUNT  # all of them tried all of it
    assert crew.killed >= 2


def test_one_outbox_loses_and_doubles_nothing(store: Store, store_url: str, tmp_path: Path) -> None:
    goal = 120
    run(store, "CREATE TABLE test_done (key VARCHAR(20), pid INTEGER)")
    with store.write() as connection:
        for number in range(goal):
            enqueue(connection, topic="test", dedup_key=f"key-{number}", payload={"number": number})
    with Crew("handle", store_url, tmp_path, goal) as crew:
        crew.start()
        crew.kill_some(6)
        lines = crew.finish()
    keys = {f"key-{number}" for number in range(goal)}
    assert {key for word, key in lines if word == "handled"} == keys
    assert sorted(key for (key,) in rows(store, "SELECT key FROM test_done")) == sorted(keys)
    with store.read() as connection:
        counts = backlog(connection, "test")
    assert (counts.acknowledged, counts.waiting, counts.claimed, counts.given_up) == (goal, 0, 0, 0)
    assert crew.killed >= 3
    assert any(word == "late" for word, _ in lines)  # a late acknowledgement was refused


def test_processes_that_migrate_at_once(database_url: str, tmp_path: Path) -> None:
    with Crew("migrate", database_url, tmp_path) as crew:
        crew.start(4)
        crew.wait_until_at_work()
        (tmp_path / "start").touch()
        crew.finish()
    with open_store(database_url) as store, store.read() as connection:
        assert current_version(connection) == head_version()
        # The row that a migration makes is there once.
        assert connection.execute(text("SELECT count(*) FROM shared_event_permit")).scalar_one() == 1


def test_a_migration_that_is_killed_changes_nothing(database_url: str, tmp_path: Path) -> None:
    with Crew("migrate", database_url, tmp_path) as crew:
        crew.start(4)
        crew.wait_until_at_work()
        (tmp_path / "start").touch()
        crew.kill_some(4)
    migrate(database_url)
    open_store(database_url).close()
