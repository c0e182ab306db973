"""The database's invariants hold while it is written to, and anything torn is found out."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from fastvlm_ops.local.writer import InconsistentDatabaseError, check_database, create_database, digest_at


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "application.db"
    create_database(path, seed=1, devices=50, events=200)
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_the_same_seed_gives_the_same_database(database: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.db"
    create_database(again, seed=1, devices=50, events=200)
    assert again.read_bytes() == database.read_bytes()
    create_database(tmp_path / "other.db", seed=2, devices=50, events=200)
    assert check_database(again) != check_database(tmp_path / "other.db")


def test_copies_taken_while_it_is_written_to_are_consistent(database: Path, tmp_path: Path) -> None:
    first = check_database(database)
    arguments = [sys.executable, "-m", "fastvlm_ops.local.writer", str(database)]
    with subprocess.Popen(arguments) as writer:
        deadline = time.monotonic() + 20
        while check_database(database).events < first.events + 50:
            assert time.monotonic() < deadline
        copy = tmp_path / "copy.db"
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target, pages=-1)
        writer.terminate()
        assert writer.wait(10) == 0
    chain, live = check_database(copy), check_database(database)
    assert first.events < chain.events <= live.events
    assert digest_at(database, chain.events) == chain.digest
    assert digest_at(database, live.events + 1) is None


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE events SET payload = 'x' WHERE id = 100", "event 100 does not follow"),
        ("DELETE FROM events WHERE id = 100", "event 101 does not follow"),
        ("DELETE FROM events WHERE id = 200", "counters say"),
        ("UPDATE counters SET total = total + 1 WHERE kind = 'error'", "counters say"),
        ("DROP TABLE counters", "no such table"),
    ],
)
def test_what_is_torn_is_found_out(database: Path, statement: str, message: str) -> None:
    change(database, statement)
    with pytest.raises(InconsistentDatabaseError, match=message):
        check_database(database)


def test_what_is_damaged_is_found_out(database: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    shutil.copy(database, damaged)
    content = bytearray(damaged.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    damaged.write_bytes(content)
    with pytest.raises(InconsistentDatabaseError):
        check_database(damaged)
