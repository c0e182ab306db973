"""What each database of a pair is right now: primary, standby, not running; and whether it streams."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastvlm_ops.core.backup.errors import BackupError
from fastvlm_ops.core.backup.postgresql.cluster import connected, identify_on
from fastvlm_ops.core.backup.postgresql.lsn import format_lsn, parse_lsn
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.1
_SENDERS = """
SELECT application_name, state, sync_state, replay_lsn::text FROM pg_stat_replication
ORDER BY application_name, pid
"""
_RECEIVER = """
SELECT (SELECT status FROM pg_stat_wal_receiver), (SELECT sender_host FROM pg_stat_wal_receiver),
       (SELECT sender_port FROM pg_stat_wal_receiver), pg_is_wal_replay_paused()
"""


@dataclass(frozen=True)
class Sender:
    """A connection that a server sends its write-ahead log on.

    :param name: that the other end gives itself
    :param state: ``streaming`` once it has caught up
    :param sync: ``async``, ``sync``, ``potential`` or ``quorum``
    :param replayed: up to where the other end says it has replayed; None before it said so
    """

    name: str
    state: str
    sync: str
    replayed: int | None


@dataclass(frozen=True)
class DatabaseState:
    """A database as it answers.

    :param name: of the instance
    :param role: ``unknown`` where it neither answers nor refuses: it may hang, start, or not let us in
    :param system_id: None, as all that follows, where it does not answer
    :param lsn: written up to, or replayed up to by a standby
    :param senders: connections that it sends its log on
    :param receiving: state of what receives the log; None where nothing does
    :param receives_from: host and port
    :param replay_paused: whether a standby has been told not to replay what it gets
    :param problem: why it is not known, for people
    """

    name: str
    role: Literal["primary", "standby", "not_running", "unknown"]
    system_id: str | None = None
    version: str | None = None
    timeline: int | None = None
    lsn: int | None = None
    senders: tuple[Sender, ...] = ()
    receiving: str | None = None
    receives_from: str | None = None
    replay_paused: bool = False
    problem: str = ""

    def evidence(self) -> dict[str, Any]:
        """Return it as JSON, for what a drill leaves."""
        said = asdict(self)
        said["lsn"] = None if self.lsn is None else format_lsn(self.lsn)
        for sender in said["senders"]:
            sender["replayed"] = None if sender["replayed"] is None else format_lsn(sender["replayed"])
        return {name: value for name, value in said.items() if value not in (None, "", [], ())}


def parse_address(dsn: str) -> URL:
    """Return an address of one server.

    :param dsn: as ``postgresql://user:password@host:port/database``
    :raises DatabaseError: it is none, without showing it
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(dsn)
        port = url.port  # of something else than a number, it is told only now
    except (ArgumentError, ValueError):
        raise DatabaseError("an address of a database is not of the form postgresql://…") from None
    if url.get_backend_name() not in {"postgresql", "postgres"} or url.host is None or port is None:
        raise DatabaseError("an address of a database must be postgresql://, with host and port")
    return url


def read_state(name: str, dsn: str, *, seconds: float = _ANSWER_SECONDS) -> DatabaseState:
    """Ask a database what it is. Whatever goes wrong is in the answer.

    :param name: of the instance
    :param dsn: its address
    :param seconds: that it has for its answer
    """
    url = parse_address(dsn)
    quick = url.update_query_dict({"connect_timeout": str(max(2, round(seconds)))})
    try:
        with connected(quick, seconds=seconds) as connection:
            return _read(name, connection)
    except BackupError as error:
        if _refuses(url, seconds):
            return DatabaseState(name, "not_running", problem=f"nothing listens on {url.host}:{url.port}")
        return DatabaseState(name, "unknown", problem=str(error))


def only_primary(states: Iterable[DatabaseState]) -> DatabaseState | None:
    """Return the primary among databases; None where there is none.

    :param states: of the databases of one service
    :raises SplitBrainError: there is more than one
    """
    found = [one for one in states if one.role == "primary"]
    if len(found) > 1:
        names = " and ".join(
            f"{one.name} (timeline {one.timeline}, {format_lsn(one.lsn or 0)})" for one in found
        )
        raise SplitBrainError(
            f"{names} are both primary, so that both take writes and one history will be lost; stop one of"
            " them before anything else"
        )
    return found[0] if found else None


def not_streaming(primary: DatabaseState, standby: DatabaseState) -> str | None:
    """Say why a standby does not follow a primary; None where it does, as both of them say.

    :param primary: which must be one
    :param standby: which must be one
    """
    if primary.role != "primary":
        return f"{primary.name} is {_said(primary)}, not primary"
    if standby.role != "standby":
        return f"{standby.name} is {_said(standby)}, not standby"
    if standby.system_id != primary.system_id:
        return f"{standby.name} belongs to another cluster than {primary.name}"
    if standby.receiving != "streaming":
        state = f"its receiver is {standby.receiving}" if standby.receiving else "it receives nothing"
        return f"{standby.name} is up but not streaming: {state}"
    # What copies or archives the log streams too, but replays nothing.
    if not any(one.state == "streaming" and one.replayed is not None for one in primary.senders):
        return f"{standby.name} streams, but {primary.name} streams to nobody: not from it"
    if standby.timeline != primary.timeline:
        return (
            f"{standby.name} is on timeline {standby.timeline}, {primary.name} on timeline {primary.timeline}"
        )
    if standby.replay_paused:
        return f"{standby.name} receives, but its replay is paused"
    return None


def wait_until_streaming(
    read_primary: Callable[[], DatabaseState],
    read_standby: Callable[[], DatabaseState],
    *,
    seconds: float,
) -> tuple[DatabaseState, DatabaseState]:
    """Wait until a standby streams and has replayed what the primary had written when this was called.

    :param read_primary: reads the primary anew
    :param read_standby: reads the standby anew
    :param seconds: how long
    :returns: both, as they were then
    :raises DatabaseError: not in time; the message says what it lacks
    """
    deadline = time.monotonic() + seconds
    wanted: int | None = None
    while True:
        primary, standby = read_primary(), read_standby()
        lacks = not_streaming(primary, standby)
        if primary.role == "primary" and wanted is None:
            wanted = primary.lsn
        if lacks is None:
            if wanted is not None and standby.lsn is not None and standby.lsn >= wanted:
                return primary, standby
            lacks = (
                f"{standby.name} streams, but has replayed {format_lsn(standby.lsn or 0)} of"
                f" {format_lsn(wanted or 0)}"
            )
        if time.monotonic() > deadline:
            raise DatabaseError(f"not within {seconds:g} s: {lacks}", retryable=True)
        time.sleep(_POLL_SECONDS)


def _read(name: str, connection: Connection[Any]) -> DatabaseState:
    cluster = identify_on(connection)
    senders = tuple(
        Sender(who, state, sync, parse_lsn(lsn) if lsn else None)
        for who, state, sync, lsn in connection.execute(_SENDERS)
    )
    said = {
        "system_id": cluster.system_id,
        "version": cluster.version,
        "timeline": cluster.timeline,
        "lsn": cluster.current_lsn,
        "senders": senders,
    }
    if not cluster.in_recovery:
        return DatabaseState(name, "primary", **said)  # type: ignore[arg-type]
    row = connection.execute(_RECEIVER).fetchone()
    assert row is not None  # noqa: S101 - a row of functions
    status, host, port, paused = row
    return DatabaseState(
        name,
        "standby",
        receiving=status,
        receives_from=f"{host}:{port}" if host else None,
        replay_paused=paused,
        **said,  # type: ignore[arg-type]
    )


def _refuses(url: URL, seconds: float) -> bool:
    """Whether nothing listens there; a machine that does not answer at all does not say so."""
    if (url.host or "").startswith("/"):
        return False
    try:
        socket.create_connection((url.host or "", url.port or 0), timeout=seconds).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _said(state: DatabaseState) -> str:
    return state.role.replace("_", " ") + (f" ({state.problem})" if state.problem else "")
