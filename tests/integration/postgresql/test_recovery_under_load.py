"""A moment between two commits while several writers are at work: exactly its rows come back."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget
from tests.integration.postgresql.conftest import url_of
from tests.integration.postgresql.recovery_kit import SETTINGS, Original, folder_for_servers, new_repository

pytestmark = [pytest.mark.integration, pytest.mark.slow]
WRITERS = 4
CHANGES_AFTER_BASE = 1000
COMMIT = re.compile(r"rmgr: Transaction .* tx: +(\d+), .* desc: COMMIT (\S+ \S+) UTC")


@dataclass(frozen=True)
class Commit:
    """A commit, as the write-ahead log has it."""

    transaction: int
    time: datetime


@contextmanager
def writers(original: Original) -> Iterator[None]:
    """Writers that commit a row at a time, until the block ends."""
    stop = threading.Event()
    url = url_of(original.server).set(drivername="postgresql").render_as_string(hide_password=False)

    def write(writer: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                connection.execute(
                    "INSERT INTO load (writer, number, text) VALUES (%s, %s, repeat('x', 200))",
                    (writer, number),
                )
                if number % 10 == 9:  # also what a later moment has changed, and taken away
                    connection.execute("UPDATE load SET text = text || 'y' WHERE writer = %s", (writer,))
                    connection.execute(
                        "DELETE FROM load WHERE writer = %s AND number = %s", (writer, number - 5)
                    )
                number += 1

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def commits(original: Original, names: list[str]) -> list[Commit]:
    """Commits in the order of the log, which is the order in which they become visible to a recovery.

    :param names: of segments that follow one another; they are read as one, for records cross their borders
    """
    done = subprocess.run(
        [
            original.clients.path("pg_waldump"),
            "--rmgr=Transaction",
            f"--path={original.server.data / 'pg_wal'}",
            names[0],
            names[-1],
        ],
        env={"TZ": "UTC", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,  # it ends where the last segment does
    )
    return [
        Commit(int(transaction), datetime.fromisoformat(text).replace(tzinfo=UTC))
        for transaction, text in COMMIT.findall(done.stdout)
    ]


def between(found: list[Commit], after: datetime) -> tuple[datetime, set[int]]:
    """A moment in the middle, before which everything stands that the log has first; those transactions."""
    middle = len([commit for commit in found if commit.time <= after])
    middle += (len(found) - middle) // 2
    for count in range(middle, len(found)):
        last, following = max(c.time for c in found[:count]), min(c.time for c in found[count:])
        if last < following:
            return last + (following - last) / 2, {commit.transaction for commit in found[:count]}
    raise AssertionError("no moment is between two commits")


@pytest.fixture
def original(make_server: Any, seaweedfs: Any, s3_client: Any, clients: Any) -> Iterator[Original]:
    with new_repository(seaweedfs, s3_client) as repository:
        yield Original(make_server(settings=SETTINGS), repository, clients)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_servers() as parent:
        yield parent / "recovered"


def test_a_moment_between_two_commits_under_load(original: Original, folder: Path) -> None:
    # Each change leaves a row behind: what was there at a moment is what these transactions had done by then.
    original.sql("CREATE TABLE load (writer int, number int, text text)")
    original.sql("CREATE TABLE done (xid bigint, operation text, writer int, number int)")
    original.sql(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO done VALUES (pg_current_xact_id()::text::bigint, TG_OP,"
        " coalesce(NEW.writer, OLD.writer), coalesce(NEW.number, OLD.number)); RETURN NULL; END $$"
    )
    original.sql(
        "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON load FOR EACH ROW EXECUTE FUNCTION note()"
    )
    with writers(original):
        original.base()
        base_ended = original.now()
        wanted = original.sql("SELECT count(*) FROM done")[0][0] + CHANGES_AFTER_BASE
        deadline = time.monotonic() + 60
        while original.sql("SELECT count(*) FROM done")[0][0] < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    original.sql("CREATE TABLE later (id int)")
    names = [segment.name for segment in original.ship()]

    found = commits(original, names)
    moment, transactions = between(found, base_ended)
    done = original.sql("SELECT xid, operation, writer, number FROM done")
    expected = sorted(row for row in done if row[0] in transactions)
    assert len(expected) > 100
    assert len(done) - len(expected) > 100, "the load went on"
    inserted = {row[2:] for row in expected if row[1] == "INSERT"}
    deleted = {row[2:] for row in expected if row[1] == "DELETE"}

    trial = original.recovered(
        folder,
        RecoveryTarget(time=moment),
        "SELECT md5(string_agg(concat_ws(',', xid, operation, writer, number), ';'"
        " ORDER BY xid, operation, writer, number)) FROM done",
        "SELECT md5(string_agg(concat_ws(',', writer, number), ';' ORDER BY writer, number)) FROM load",
        "SELECT count(*) FROM load",
        "SELECT to_regclass('later')",
        "SELECT to_regclass('load')",
    )
    there = sorted(inserted - deleted)
    answers = [answer["row"][0] for answer in trial.queries]
    print(
        f"{len(found)} commits of {WRITERS} writers, {len(transactions)} of them by {moment.isoformat()}:"
        f" recovered in {trial.recovery_seconds} s, checked after {trial.duration_seconds} s"
    )
    assert answers[2:] == [str(len(there)), "None", "load"]
    assert answers[1] == digest(there)
    assert answers[0] == digest(expected)
    assert trial.stopped is not None
    stopped = re.search(r"before commit of transaction (\d+)", trial.stopped)
    assert stopped is not None
    assert int(stopped[1]) not in transactions


def digest(rows: list[Any]) -> str:
    """As the queries make it of rows."""
    import hashlib

    text = ";".join(",".join(map(str, row)) for row in rows)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
