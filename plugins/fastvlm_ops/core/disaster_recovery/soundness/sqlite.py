"""SQLite databases that were restored: integrity, and the rows of each table."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from fastvlm_ops.core.disaster_recovery.soundness.findings import Soundness

_MAGIC = b"SQLite format 3\0"
_PROBLEMS = 5
_TABLES = 50


def is_sqlite(path: Path) -> bool:
    """Return whether a file says that it is an SQLite database.

    :param path: of the file
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def check_sqlite(path: Path, name: str, found: Soundness) -> None:
    """Check a database, read-only: every page and index, foreign keys, and how many rows each table has.

    :param path: of the database
    :param name: of it, for people
    :param found: where it is added
    """
    address = f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            damage = [row[0] for row in database.execute(f"PRAGMA integrity_check({_PROBLEMS})")]
            orphans = database.execute("PRAGMA foreign_key_check").fetchmany(_PROBLEMS)
            rows = _count_rows(database)
    except sqlite3.Error as error:
        found.problems.append(f"{name} cannot be used: {error}")
        return
    if damage != ["ok"]:
        found.problems.append(f"{name} is damaged, integrity_check says: {'; '.join(map(str, damage))}")
        return
    if orphans:
        found.evidence.setdefault("foreign_keys", {})[name] = f"rows of {orphans[0][0]} refer to none"
    found.counts["sqlite"] += 1
    found.evidence.setdefault("rows", {})[name] = rows


def _count_rows(database: sqlite3.Connection) -> dict[str, int]:
    query = (
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        " AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"  # whose modules only its own program has
    )
    names = [row[0] for row in database.execute(query)]
    counts = {}
    for name in names[:_TABLES]:
        quoted = name.replace('"', '""')
        counts[name] = int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608
    return counts
