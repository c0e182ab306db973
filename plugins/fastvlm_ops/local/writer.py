"""A service that keeps writing to the kit's database, and what every consistent copy of it satisfies.

Each event carries a digest of itself and of the event before it, and counters are kept in the same
transaction. A copy that was torn between two transactions, or within one, is found out by
:func:`check_database`. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_START = "0" * 64
_KINDS = ("caption", "question", "detection", "feedback", "error")

_SCHEMA = """
CREATE TABLE devices (id INTEGER PRIMARY KEY, model TEXT NOT NULL, os TEXT NOT NULL, seen INTEGER NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, device INTEGER NOT NULL REFERENCES devices (id), kind TEXT NOT NULL,
    payload TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX events_by_device ON events (device, kind);
CREATE TABLE counters (kind TEXT PRIMARY KEY, total INTEGER NOT NULL);
"""


class InconsistentDatabaseError(Exception):
    """A database is not what one of its transactions left."""


@dataclass(frozen=True)
class Chain:
    """How far a database is.

    :param events: how many there are
    :param digest: of the last one, and so of all
    """

    events: int
    digest: str


def create_database(path: Path, *, seed: int, devices: int = 4000, events: int = 24000) -> None:
    """Create the kit's database in a new file, of about 8 MiB by default.

    :param path: of the file; its folder is made
    :param seed: of what is in it
    :param devices: rows
    :param events: rows
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    models = ("iPhone15,2", "iPhone16,1", "iPhone17,3", "Mac15,6", "iPad14,5")
    rows = [
        (chance.choice(models), f"{chance.randint(17, 19)}.{chance.randint(0, 6)}") for _ in range(devices)
    ]
    with closing(connect(path)) as database, database:
        database.executescript(_SCHEMA)
        database.executemany("INSERT INTO devices (model, os, seen) VALUES (?, ?, 0)", rows)
        database.executemany("INSERT INTO counters VALUES (?, 0)", [(kind,) for kind in _KINDS])
        _append(database, chance, events)


def connect(path: Path) -> sqlite3.Connection:
    """Open a database as the service does: write-ahead log, and patience with other writers."""
    database = sqlite3.connect(path, timeout=30)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def write(path: Path, *, seed: int, pause_seconds: float = 0.05, most_events: int = 100_000) -> None:
    """Commit transactions until SIGTERM.

    :param path: of the database
    :param seed: of what is written
    :param pause_seconds: between transactions
    :param most_events: from there on rows are changed and none are added, so that a demo left up for days
        does not fill the disk
    """
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, _frame: stopped.append(number))
    with closing(connect(path)) as database:
        while not stopped:
            with database:
                database.execute("BEGIN IMMEDIATE")
                _append(database, chance, chance.randint(1, 20), most_events)
            time.sleep(pause_seconds)


def check_database(path: Path) -> Chain:
    """Check a database and return how far it is.

    :raises InconsistentDatabaseError: SQLite finds it damaged, its digests do not follow from one another,
        or its counters do not fit its events
    """
    with closing(_read_only(path)) as database:
        try:
            found = [row[0] for row in database.execute("PRAGMA quick_check")]
            if found != ["ok"]:
                raise InconsistentDatabaseError(f"{path}: quick_check: {'; '.join(found[:3])}")
            return _check(path, database)
        except sqlite3.DatabaseError as error:
            raise InconsistentDatabaseError(f"{path}: {error}") from error


def digest_at(path: Path, event: int) -> str | None:
    """Return the digest of an event; None where the database has no such event yet."""
    with closing(_read_only(path)) as database:
        row = database.execute("SELECT digest FROM events WHERE id = ?", (event,)).fetchone()
    return str(row[0]) if row else None


def _check(path: Path, database: sqlite3.Connection) -> Chain:
    database.execute("BEGIN")  # one view of it, while the service goes on
    chain, totals = Chain(0, _START), dict.fromkeys(_KINDS, 0)
    for number, device, kind, payload, digest in _events(database):
        chain = Chain(chain.events + 1, _digest(chain.digest, chain.events + 1, device, kind, payload))
        totals[kind] += 1
        if (number, digest) != (chain.events, chain.digest):
            raise InconsistentDatabaseError(f"{path}: event {number} does not follow from the one before it")
    counters = dict(database.execute("SELECT kind, total FROM counters"))
    if counters != totals:
        raise InconsistentDatabaseError(f"{path}: counters say {counters}, there are {totals}")
    return chain


def _events(database: sqlite3.Connection) -> Iterator[tuple[int, int, str, str, str]]:
    yield from database.execute("SELECT id, device, kind, payload, digest FROM events ORDER BY id")


def _append(database: sqlite3.Connection, chance: random.Random, count: int, most: int | None = None) -> None:
    last = database.execute("SELECT id, digest FROM events ORDER BY id DESC LIMIT 1").fetchone()
    first, digest = (last[0] + 1, last[1]) if last else (1, _START)
    devices = database.execute("SELECT max(id) FROM devices").fetchone()[0]
    if most is not None and first > most:
        database.execute("UPDATE devices SET seen = seen + 1 WHERE id = ?", [chance.randint(1, devices)])
        return
    events, totals = [], dict.fromkeys(_KINDS, 0)
    for number in range(first, first + count):
        device, kind, payload = chance.randint(1, devices), chance.choice(_KINDS), _payload(chance)
        digest = _digest(digest, number, device, kind, payload)
        events.append((number, device, kind, payload, digest))
        totals[kind] += 1
    database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", events)
    database.executemany(
        "UPDATE counters SET total = total + ? WHERE kind = ?",
        [(total, kind) for kind, total in totals.items()],
    )
    database.executemany("UPDATE devices SET seen = ? WHERE id = ?", [row[:2] for row in events])


def _payload(chance: random.Random) -> str:
    words = ("cat", "street", "receipt", "screen", "person", "tree", "sign", "blurred", "red", "two", "left")
    text = " ".join(chance.choices(words, k=chance.randint(8, 40)))
    latency = round(chance.lognormvariate(4.5, 0.4), 1)
    return json.dumps({"text": text, "latency_ms": latency, "request": f"{chance.getrandbits(64):016x}"})


def _digest(previous: str, number: int, device: int, kind: str, payload: str) -> str:
    return hashlib.sha256(f"{previous}|{number}|{device}|{kind}|{payload}".encode()).hexdigest()


def _read_only(path: Path) -> sqlite3.Connection:
    # A file name may hold what has a meaning in a URI; as_uri() quotes it.
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep writing to the kit's database until SIGTERM.")
    parser.add_argument("database", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(arguments.database, seed=arguments.seed)
