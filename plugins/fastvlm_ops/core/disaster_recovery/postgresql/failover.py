"""Making a standby the primary, and proving that it takes writes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import BackupError
from fastvlm_ops.core.backup.postgresql.cluster import Cluster, connected, identify, identify_on
from fastvlm_ops.core.backup.postgresql.lsn import format_lsn
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.disaster_recovery.postgresql.state import parse_address

if TYPE_CHECKING:
    from psycopg import Connection

_MARK = "fastvlm-ops"


@dataclass(frozen=True)
class Promotion:
    """A standby that has become the primary.

    :param already: whether it was the primary before
    :param timeline_before: that it followed
    :param timeline: that it writes now
    :param replayed: up to where it had replayed when it was asked
    :param seconds: until it was out of recovery
    """

    already: bool
    timeline_before: int
    timeline: int
    replayed: str
    seconds: float


def promote(dsn: str, *, seconds: float = 60) -> Promotion:
    """Make a standby the primary, and have it note its new timeline where pg_rewind looks.

    Whoever calls this knows that the old primary is gone, and stays so: the standby cannot know.

    :param dsn: address of the standby
    :param seconds: that it may take
    :raises DatabaseError: it cannot be reached, or was not promoted in time
    """
    url = parse_address(dsn)
    began = time.monotonic()
    try:
        with connected(url, seconds=seconds + 5) as connection:
            before = identify_on(connection)
            if before.in_recovery:
                _promote(connection, seconds)
            took = time.monotonic() - began
            # Until a checkpoint, the control file names the old timeline: pg_rewind would find an old primary
            # to be on the same one, and leave it as it is.
            connection.execute("CHECKPOINT")
        after = identify(url)
    except BackupError as error:
        raise DatabaseError(f"the standby was not promoted: {error}", retryable=True) from None
    return _promotion(before, after, took)


def prove_writable(dsn: str, *, seconds: float = 10) -> dict[str, Any]:
    """Commit a transaction that is written to the log, though to no table; returns where it stands there.

    Where commits wait for a standby, this waits too.

    :param dsn: address of a database
    :param seconds: that it may take
    :raises DatabaseError: it takes no writes, or not in time
    """
    url = parse_address(dsn)
    began = time.monotonic()
    try:
        with connected(url, seconds=seconds) as connection:
            row = connection.execute(
                "SELECT pg_logical_emit_message(true, %s, 'writable')::text,"
                " current_setting('transaction_read_only')",
                [_MARK],
            ).fetchone()
    except BackupError as error:
        raise DatabaseError(f"the database takes no writes: {error}", retryable=True) from None
    if row is None or row[1] != "off":
        raise DatabaseError("the database takes no writes: its transactions are read-only", retryable=True)
    return {"written_at": row[0], "seconds": round(time.monotonic() - began, 3)}


def _promote(connection: Connection[Any], seconds: float) -> None:
    row = connection.execute(
        "SELECT pg_promote(wait => true, wait_seconds => %s)", [max(1, int(seconds))]
    ).fetchone()
    if row is None or not row[0]:
        raise DatabaseError(f"the standby was not out of recovery within {seconds:g} s", retryable=True)


def _promotion(before: Cluster, after: Cluster, seconds: float) -> Promotion:
    if after.in_recovery:
        raise DatabaseError("the standby says that it was promoted, and is still in recovery", retryable=True)
    if before.in_recovery and after.timeline <= before.timeline:
        raise DatabaseError(f"the standby was promoted, and is still on timeline {after.timeline}")
    return Promotion(
        already=not before.in_recovery,
        timeline_before=before.timeline,
        timeline=after.timeline,
        replayed=format_lsn(before.current_lsn),
        seconds=round(seconds, 3),
    )
