"""The proof that a standby holds the same rows as its primary, at one moment, by key and by hash.

That a standby is up says nothing. It has to stream, to have replayed what the primary had written, and every
row of every table has to be the same on both. So that writers do not make the two differ, the tables are
locked against writes, for as long as it takes the standby to replay what was written before; what both then
hold is compared at leisure, in snapshots of that moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import BackupError
from fastvlm_ops.core.backup.postgresql.cluster import connected
from fastvlm_ops.core.backup.postgresql.lsn import format_lsn, parse_lsn
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.disaster_recovery.postgresql.rows import Comparison, compare_table, user_tables
from fastvlm_ops.core.disaster_recovery.postgresql.state import (
    DatabaseState,
    not_streaming,
    parse_address,
    read_state,
)

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

_LOCK_SECONDS = 5.0
_REPLAY_SECONDS = 10.0
_COMPARE_SECONDS = 1800.0
# The same text for the same value on both, whatever the sessions, the users and the databases are set to.
_SAME_TEXT = """
SELECT set_config(name, value, false)
FROM (VALUES ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'),
             ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('xmlbinary', 'base64'),
             ('row_security', 'off'), ('search_path', 'pg_catalog')) AS same (name, value)
"""


@dataclass(frozen=True)
class Equality:
    """What comparing a standby with its primary has found.

    :param equal: whether it streams, has replayed all, and every row is the same
    :param problems: each by name, of tables with the keys of the first rows that differ
    :param lsn: of the moment that was compared; None where it did not come to that
    :param locked_seconds: how long tables were locked against writes
    :param tables: one by one
    :param not_compared: tables that a standby never has the contents of, and why
    """

    equal: bool
    problems: tuple[str, ...]
    primary: DatabaseState
    standby: DatabaseState
    seconds: float
    lsn: str | None = None
    locked_seconds: float | None = None
    tables: tuple[Comparison, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows the primary had in the tables that were compared."""
        return sum(one.rows for one in self.tables)

    def evidence(self) -> dict[str, Any]:
        """Return it as JSON, for what a drill leaves."""
        return {
            "equal": self.equal,
            "problems": list(self.problems),
            "primary": self.primary.evidence(),
            "standby": self.standby.evidence(),
            "seconds": self.seconds,
            "lsn": self.lsn,
            "locked_seconds": self.locked_seconds,
            "rows": self.rows,
            "tables": [asdict(one) for one in self.tables],
            "not_compared": list(self.not_compared),
        }


class _ReplayError(Exception):
    """The standby did not replay what was written, in time."""


def compare_databases(
    primary: str,
    standby: str,
    *,
    names: tuple[str, str] = ("primary", "standby"),
    tables: Sequence[str] | None = None,
    replay_seconds: float = _REPLAY_SECONDS,
) -> Equality:
    """Compare the rows of a database on a primary and on its standby.

    Writers wait for at most ``replay_seconds`` and the time that a lock may take.

    :param primary: address of the database on the primary
    :param standby: address of the same database on the standby
    :param names: of the two, for people
    :param tables: only these, as ``schema.table``; all where None
    :param replay_seconds: that the standby has to replay what was written before
    :raises DatabaseError: it could not be told: one of them does not answer, or tables cannot be locked
    """
    began = time.monotonic()
    states = read_state(names[0], primary), read_state(names[1], standby)
    for state in states:
        if state.role == "unknown":
            raise DatabaseError(f"{state.name} cannot be asked: {state.problem}", retryable=True)
    lacks = not_streaming(*states)
    if lacks is not None:
        return Equality(False, (lacks,), *states, seconds=_since(began))
    try:
        with _moment(parse_address(primary), parse_address(standby), tables, replay_seconds) as moment:
            found = tuple(compare_table(moment.primary, moment.standby, one) for one in moment.tables)
    except _ReplayError as error:
        return Equality(False, (f"{names[1]} {error}",), *states, seconds=_since(began))
    except BackupError as error:
        raise DatabaseError(
            f"{names[0]} and {names[1]} cannot be compared: {error}", retryable=True
        ) from None
    problems = tuple(problem for one in found for problem in one.problems(*names))
    after = read_state(names[0], primary), read_state(names[1], standby)
    lacks = not_streaming(*after)  # it may have lost its connection while it was read
    if lacks is not None:
        problems = (*problems, lacks)
    return Equality(
        equal=not problems,
        problems=problems,
        primary=after[0],
        standby=after[1],
        seconds=_since(began),
        lsn=format_lsn(moment.lsn),
        locked_seconds=moment.locked_seconds,
        tables=found,
        not_compared=moment.not_compared,
    )


@dataclass
class _Moment:
    """Two transactions that see the same rows."""

    primary: Connection[Any]
    standby: Connection[Any]
    tables: list[str]
    not_compared: tuple[str, ...]
    lsn: int
    locked_seconds: float


@contextlib.contextmanager
def _moment(
    primary: URL, standby: URL, wanted: Sequence[str] | None, replay_seconds: float
) -> Iterator[_Moment]:
    with (
        connected(primary, seconds=_COMPARE_SECONDS) as left,
        connected(standby, seconds=_COMPARE_SECONDS) as right,
    ):
        for connection in (left, right):
            connection.execute(_SAME_TEXT)
        with connected(primary, seconds=_LOCK_SECONDS + replay_seconds + 10) as locking:
            found, not_compared = user_tables(locking, wanted)
            locked = time.monotonic()
            # A snapshot taken under the locks: whoever wrote to these tables has ended, and nobody writes.
            snapshot = _lock(locking, found)
            lsn = _written(left)
            left.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            left.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
            _wait_for_replay(right, lsn, replay_seconds)
            right.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            right.execute("SELECT 1")  # its snapshot is of now
            locking.execute("COMMIT")
            locked_seconds = _since(locked)
        yield _Moment(left, right, found, not_compared, lsn, locked_seconds)


def _lock(connection: Connection[Any], tables: Sequence[str]) -> str:
    """Lock tables against writes, and return a snapshot of what is in them.

    :raises BackupError: they are in use for too long
    """
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS:g}s'".encode())
    if tables:
        connection.execute(f"LOCK TABLE ONLY {', ONLY '.join(tables)} IN SHARE MODE".encode())
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None  # noqa: S101 - a function's row
    return str(row[0])


def _written(connection: Connection[Any]) -> int:
    """Have all written that was committed before, and return up to where that is.

    The place where the next record would go is not it: on a new page, that lies behind a header which nobody
    sends before there is a record, and a standby would never get there.
    """
    connection.execute("SET synchronous_commit = 'local'")  # whether the standby has it is what is asked next
    connection.execute("SELECT pg_logical_emit_message(true, 'fastvlm-ops', 'compared')")
    row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None  # noqa: S101 - a function's row
    return parse_lsn(row[0])


def _wait_for_replay(standby: Connection[Any], lsn: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        row = standby.execute("SELECT pg_last_wal_replay_lsn()::text").fetchone()
        replayed = parse_lsn(row[0]) if row and row[0] else 0
        if replayed >= lsn:
            return
        if time.monotonic() > deadline:
            raise _ReplayError(
                f"has replayed {format_lsn(replayed)} of {format_lsn(lsn)}, and no more within {seconds:g} s"
            )
        time.sleep(0.005)


def _since(moment: float) -> float:
    return round(time.monotonic() - moment, 3)
