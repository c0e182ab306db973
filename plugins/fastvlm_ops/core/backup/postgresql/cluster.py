"""Which PostgreSQL cluster answers at an address, and where it is in its write-ahead log."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.address import connect_parameters, shown
from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

OLDEST_MAJOR = 14
_QUERY_SECONDS = 60.0
# The name of a WAL file is of the timeline that is written; a checkpoint's may be behind after a promotion.
# A standby writes none: there the newest timeline is what it has replayed up to, or receives.
_IDENTIFY = """
SELECT system.system_identifier::text,
       current_setting('server_version'),
       current_setting('server_version_num')::int,
       (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'),
       pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END,
       greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline,
                (SELECT max(received_tli) FROM pg_stat_wal_receiver)),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
       ARRAY(SELECT spcname::text FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')
             ORDER BY spcname),
       clock_timestamp(),
       (SELECT rolname::text FROM pg_roles WHERE oid = 10)
FROM pg_control_system() AS system, pg_control_checkpoint() AS checkpoint, pg_control_recovery() AS recovery
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster as it answers.

    :param system_id: which never changes, and which no other cluster has
    :param version: as in ``16.14``
    :param timeline: that it writes, or replays where it is in recovery
    :param segment_bytes: size of its WAL segments
    :param current_lsn: up to which WAL is written, or replayed where it is in recovery
    :param tablespaces: names of those besides the two that every cluster has
    :param now: its clock
    :param superuser: name of the role that initdb made, which every cluster has
    """

    system_id: str
    version: str
    major: int
    timeline: int
    segment_bytes: int
    current_lsn: int
    in_recovery: bool
    tablespaces: tuple[str, ...]
    now: datetime
    superuser: str = "postgres"


def identify(url: URL) -> Cluster:
    """Ask a server which cluster it serves.

    :param url: address of any of its databases
    :raises DumpError: it does not answer
    :raises SourceError: it is older than version 14, or psycopg is not installed
    """
    with connected(url) as connection:
        return identify_on(connection)


def identify_on(connection: Connection[Any]) -> Cluster:
    """As :func:`identify`, on a connection that :func:`connected` has made."""
    number = connection.info.server_version
    if number // 10000 < OLDEST_MAJOR:
        raise SourceError(
            f"the server is PostgreSQL {number // 10000}; versions from {OLDEST_MAJOR} on are supported:"
            " back an older one up by pg_dump"
        )
    row = connection.execute(_IDENTIFY).fetchone()
    assert row is not None  # noqa: S101 - the three functions return a row each
    system_id, version, number, segment_bytes, in_recovery, wal_file, replayed, lsn, *rest = row
    tablespaces, now, superuser = rest
    return Cluster(
        system_id=system_id,
        version=version.split()[0],  # else with a distribution's own name for it
        major=number // 10000,
        timeline=int(wal_file[:8], 16) if wal_file else replayed,
        segment_bytes=segment_bytes,
        current_lsn=parse_lsn(lsn),
        in_recovery=in_recovery,
        tablespaces=tuple(tablespaces),
        now=now,
        superuser=superuser or "postgres",
    )


@contextlib.contextmanager
def connected(
    url: URL, *, replication: bool = False, seconds: float | None = _QUERY_SECONDS
) -> Iterator[Connection[Any]]:
    """Connect to a server for a short while: every statement a transaction of its own.

    A server that stops answering ends it, as a broken connection.

    :param url: address of a database
    :param replication: whether it is for commands of the replication protocol, which is allowed apart
    :param seconds: after which the connection is cut; None for never
    :raises DumpError: it cannot be reached, refuses, or does not answer in time
    :raises SourceError: psycopg is not installed
    """
    try:
        import psycopg
    except ImportError:
        raise SourceError(
            "psycopg is not installed, which PostgreSQL needs: pip install 'fastvlm-ops[postgres]'"
        ) from None
    parameters = connect_parameters(url)
    if replication:
        parameters["replication"] = "true"
    try:
        # Replication commands cannot be prepared; statements are not worth it.
        connection = psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise DumpError(f"{shown(url)} cannot be reached: {describe(error, url)}") from None
    try:
        with connection, _cut_after(seconds, connection.fileno()):
            yield connection
    except psycopg.Error as error:
        raise DumpError(f"{shown(url)} did not answer: {describe(error, url)}") from None


def describe(error: Exception, url: URL) -> str:
    """What an error of psycopg says, on one line and without the password."""
    said = " ".join(str(error).split())
    return said.replace(url.password, "***") if isinstance(url.password, str) and url.password else said


@contextlib.contextmanager
def _cut_after(seconds: float | None, descriptor: int) -> Iterator[None]:
    """Shut a socket down unless the block ends in time: libpq has no time-out for answers."""
    if seconds is None:
        yield
        return
    # Of its own descriptor, so that it never is another's socket, whoever has the number by then.
    ours = socket.socket(fileno=os.dup(descriptor))
    timer = threading.Timer(seconds, _shut_down, [ours])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        ours.close()


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by the server already
        connection.shutdown(socket.SHUT_RDWR)
