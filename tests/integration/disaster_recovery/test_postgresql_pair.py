"""A real pair of PostgreSQL databases: never two primaries, and nothing passes for a standby that is none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastvlm_ops.core.config.disaster_recovery_steps import DatabasesEqual, StandbyPromoted
from fastvlm_ops.core.disaster_recovery.postgresql.equality import Equality, compare_databases
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError
from fastvlm_ops.core.disaster_recovery.postgresql.failover import prove_writable
from fastvlm_ops.core.disaster_recovery.postgresql.rejoin import unfinished_mark
from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import (
    LOCK_FILE,
    postmaster_of,
    server_processes,
)
from fastvlm_ops.core.disaster_recovery.steps.databases import check_databases_equal, check_standby_promoted
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.local.service.database_pair import DatabasePair
from tests.postgresql_drill import PairControl, plan_of, surroundings_of
from tests.postgresql_tampering import alter_row, hide_row

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabasePair]:
    with DatabasePair(tmp_path_factory.mktemp("pair"), die_with_parent=True) as pair:
        execute(pair, "CREATE TABLE record (id text PRIMARY KEY, payload text NOT NULL)")
        execute(pair, "INSERT INTO record SELECT 'r' || i, md5(i::text) FROM generate_series(1, 500) AS i")
        yield pair


@pytest.fixture
def pair(running: DatabasePair) -> Iterator[DatabasePair]:
    """The pair of the module, whole again afterwards."""
    yield running
    if running.identity(running.primary()) is None:
        running.start_instance(running.primary())
    running.rejoin(running.standby())


def execute(pair: DatabasePair, statement: str, name: str | None = None) -> list[Any]:
    with psycopg.connect(pair.dsn(name or pair.primary()), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def compare(pair: DatabasePair, **options: Any) -> Equality:
    names = (pair.primary(), pair.standby())
    return compare_databases(pair.dsn(names[0]), pair.dsn(names[1]), names=names, **options)


def equal_check(seconds: float = 1) -> DatabasesEqual:
    return DatabasesEqual(check="databases_equal", within_seconds=seconds)


def promoted_check(seconds: float = 1) -> StandbyPromoted:
    return StandbyPromoted(check="standby_promoted", within_seconds=seconds)


def test_both_are_equal_while_a_writer_writes(pair: DatabasePair) -> None:
    ended = threading.Event()

    def write() -> None:
        number = 0
        with psycopg.connect(pair.client_dsn(), autocommit=True) as connection:
            while not ended.is_set():
                number += 1
                connection.execute("UPDATE record SET payload = %s WHERE id = 'r7'", [str(number)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [compare(pair) for _ in range(3)]
    finally:
        ended.set()
        writer.join()

    assert [one.problems for one in found] == [(), (), ()]
    assert all(one.equal and one.rows == 500 for one in found)
    assert len({one.tables[0].sha256 for one in found}) == 3, "the writer wrote between them"


def test_tables_of_every_kind_are_compared(pair: DatabasePair) -> None:
    execute(pair, 'CREATE TABLE "odd %name" (a int, "b%c" text, PRIMARY KEY ("b%c", a))')
    execute(pair, """INSERT INTO "odd %name" SELECT i, 'x,"(' || i FROM generate_series(1, 9) AS i""")
    execute(pair, "CREATE TABLE without_key AS SELECT i % 3 AS a FROM generate_series(1, 30) AS i")
    execute(pair, "CREATE UNLOGGED TABLE unlogged (a int)")

    found = compare(pair)
    execute(pair, 'DROP TABLE "odd %name", without_key, unlogged')

    assert found.equal
    assert {one.table: one.rows for one in found.tables} == {
        'public."odd %name"': 9,
        "public.record": 500,
        "public.without_key": 30,
    }
    assert found.not_compared == ("public.unlogged is unlogged, so that a standby has no rows of it",)


def test_a_standby_that_is_up_but_does_not_stream_fails(pair: DatabasePair, tmp_path: Path) -> None:
    pair.pause_replication()
    try:
        plan, at = plan_of(pair, tmp_path), surroundings_of(pair, tmp_path)
        result = check_databases_equal(equal_check(), plan, at)
    finally:
        pair.resume_replication()

    assert (result.status, result.detail) == (
        "failed",
        "database-2 is up but not streaming: it receives nothing",
    )
    assert check_databases_equal(equal_check(20), plan, at).status == "passed"


def test_a_standby_that_receives_but_does_not_replay_fails(pair: DatabasePair) -> None:
    execute(pair, "SELECT pg_wal_replay_pause()", pair.standby())
    try:
        problems = compare(pair).problems
    finally:
        execute(pair, "SELECT pg_wal_replay_resume()", pair.standby())

    assert problems == ("database-2 receives, but its replay is paused",)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (alter_row, "1 of 500 rows differ on database-2: ({key}) in payload"),
        (hide_row, "1 of 500 rows of database-1 are missing on database-2: ({key})"),
    ],
)
def test_one_row_that_differs_is_found_and_named(
    pair: DatabasePair, tmp_path: Path, tamper: Callable[[DatabasePair], str], said: str
) -> None:
    key = tamper(pair)

    plan, at = plan_of(pair, tmp_path), surroundings_of(pair, tmp_path)
    result = check_databases_equal(equal_check(20), plan, at)
    pair.rejoin(pair.standby(), afresh="its files were tampered with")

    assert (result.status, result.detail) == ("failed", f"public.record: {said.format(key=key)}")
    assert compare(pair).equal


def test_nothing_is_promoted_while_the_primary_runs(pair: DatabasePair) -> None:
    with pytest.raises(SplitBrainError, match=r"database-1 still runs \(processes .*stop it first"):
        pair.promote("database-2")
    with pytest.raises(ServiceControlError, match="database-1 still runs"):
        PairControl(pair).promote("database-2")

    assert pair.read("database-2").role == "standby"


def test_a_primary_that_hangs_is_not_taken_for_gone(pair: DatabasePair, tmp_path: Path) -> None:
    plan, at = plan_of(pair, tmp_path), surroundings_of(pair, tmp_path)
    hung = server_processes(pair.data("database-1"))
    for one in hung:
        one.signal(signal.SIGSTOP)
    try:
        result = check_standby_promoted(promoted_check(), plan, at)
    finally:
        for one in hung:
            one.signal(signal.SIGCONT)

    assert result.status == "failed"
    assert "not known whether database-1 is gone" in result.detail
    assert pair.read("database-2").role == "standby"


def test_two_primaries_fail_every_check(pair: DatabasePair, tmp_path: Path) -> None:
    plan, at = plan_of(pair, tmp_path), surroundings_of(pair, tmp_path)
    execute(pair, "SELECT pg_promote()", "database-2")  # by somebody who does not ask the pair

    promoted = check_standby_promoted(promoted_check(), plan, at)
    assert promoted.status == "failed"
    assert "database-1 (timeline 1" in promoted.detail
    assert "are both primary" in promoted.detail
    equal = check_databases_equal(equal_check(), plan, at)
    assert equal.status == "failed"
    assert "are both primary" in equal.detail

    pair.rejoin("database-2")
    assert compare(pair).equal


def test_a_killed_server_that_nobody_waited_for_holds_no_lock(pair: DatabasePair) -> None:
    standby = pair.standby()
    leader = pair.identity(standby)
    assert leader is not None
    leader.signal(signal.SIGKILL)
    while leader.alive:
        time.sleep(0.01)

    # As PostgreSQL itself looks: there is a process with the number in the lock file.
    assert (pair.data(standby) / LOCK_FILE).read_text().startswith(f"{leader.pid}\n")
    os.kill(leader.pid, 0)
    assert postmaster_of(pair.data(standby)) is None

    pair.kill(standby)  # what it started, and has not noticed yet
    pair.start_instance(standby)
    assert pair.identity(standby) not in (None, leader)


def test_a_half_made_folder_is_not_started(pair: DatabasePair) -> None:
    standby = pair.standby()
    pair.stop_instance(standby)
    unfinished_mark(pair.data(standby)).touch()

    with pytest.raises(DatabaseError, match="half made; rejoin it"):
        pair.start_instance(standby)

    assert pair.rejoin(standby) is not None
    assert compare(pair).equal


def test_an_old_primary_is_no_second_one_and_is_copied_where_it_cannot_be_rewound(pair: DatabasePair) -> None:
    old, new = pair.primary(), pair.standby()
    pair.pause_replication()
    execute(pair, "INSERT INTO record VALUES ('only on the old one', '')")
    pair.kill(old)
    pair.promote(new)
    assert prove_writable(pair.dsn(new))["seconds"] < 10

    with pytest.raises(SplitBrainError, match=f"{old} was the primary before {new}.*rejoin it"):
        pair.start_instance(old)
    assert pair.identity(old) is None

    for segment in (pair.data(old) / "pg_wal").glob("0*"):
        segment.unlink()
    done = pair.rejoin(old)

    assert done is not None
    assert done.how == "copied"
    assert "pg_rewind ended with status 1" in done.why
    assert compare(pair).equal
    assert execute(pair, "SELECT count(*) FROM record WHERE id LIKE 'only%'") == [(0,)]
    assert pair.rejoin(old) is None, "it streams, and nothing has to be done"
