"""What a server says of its WAL: where it is, what its replication slot keeps, and finishing a segment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import DumpError
from fastvlm_ops.core.backup.postgresql.cluster import Cluster, connected, describe, identify_on
from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn
from fastvlm_ops.core.backup.postgresql.wal_pages import LastTransaction

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL

_SLOT = """
SELECT active, restart_lsn::text, wal_status, safe_wal_size
FROM pg_replication_slots WHERE slot_name = %s AND slot_type = 'physical'
"""
# The next transaction's id, which only grows; without its epoch, as WAL has it.
_NEXT_TRANSACTION = "SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::bigint"
_REPLAYED = "SELECT pg_last_xact_replay_timestamp()"
# A transaction of its own, so that the segment ends with one: recovery can stop only before one's end.
_MARK = "SELECT pg_logical_emit_message(true, 'fastvlm_ops', 'backup_wal')"
_CREATE_SECONDS = 60.0
_WAL_STATUS_LOST = "lost"


@dataclass(frozen=True)
class Slot:
    """A physical replication slot.

    ``wal_status`` is ``reserved``, ``extended`` (more than ``max_wal_size`` is kept), ``unreserved`` (about
    to be removed) or ``lost``; None before anything was received. ``safe_wal_bytes`` is how much may still
    be written before it is lost; None without a limit.
    """

    active: bool
    restart_lsn: int | None
    wal_status: str | None
    safe_wal_bytes: int | None

    @property
    def is_lost(self) -> bool:
        """Whether WAL that it should have kept is gone."""
        return self.wal_status == _WAL_STATUS_LOST


@dataclass(frozen=True)
class ServerWal:
    """Where a server is.

    :param cluster: which one, and where it is
    :param slot: None where there is none of that name
    :param next_transaction_id: without its epoch; None on a standby
    :param replayed_at: when the last transaction that a standby replayed had ended; None on no standby
    """

    cluster: Cluster
    slot: Slot | None
    next_transaction_id: int | None
    replayed_at: datetime | None

    def wrote_since(self, last: LastTransaction | None) -> bool:
        """Whether a transaction began, or on a standby ended, after this one; True where it is not known."""
        if last is None:
            return True
        if self.next_transaction_id is None:
            return self.replayed_at is None or self.replayed_at > last.ended_at
        following = last.transaction_id + 1
        if following > 0xFFFFFFFF:
            following = 3  # the first three are not given to transactions
        return self.next_transaction_id != following


def create_slot(url: URL, slot: str) -> None:
    """Make a replication slot where there is none of that name, which keeps WAL from this moment on.

    As ``pg_receivewal --create-slot`` makes one, it would keep none until it is told what was received: what
    is written until then could go, and whoever receives nothing at first would begin wherever the server is
    later.

    :param url: address of one of its databases; the user needs REPLICATION
    :raises DumpError: the server does not answer, or refuses
    """
    import psycopg
    from psycopg import sql

    with connected(url, replication=True, seconds=_CREATE_SECONDS) as connection:
        command = sql.SQL("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL").format(sql.Identifier(slot))
        try:
            connection.execute(command)
        except psycopg.errors.DuplicateObject:
            return
        except psycopg.Error as error:
            raise DumpError(f"the replication slot {slot!r} cannot be made: {describe(error, url)}") from None


def ask_server(url: URL, slot: str) -> ServerWal:
    """Ask a server where its WAL is.

    :param url: address of one of its databases
    :param slot: replication slot of the receiver
    :raises DumpError: it does not answer
    :raises SourceError: it is too old
    """
    with connected(url) as connection:
        return _ask(connection, slot)


def _ask(connection: Connection[Any], slot: str) -> ServerWal:
    cluster = identify_on(connection)
    row = connection.execute(_SLOT, [slot]).fetchone()
    found = connection.execute(_REPLAYED if cluster.in_recovery else _NEXT_TRANSACTION).fetchone()
    value = None if found is None else found[0]
    following, replayed_at = (None, value) if cluster.in_recovery else (value, None)
    return ServerWal(cluster, None if row is None else _slot(row), following, replayed_at)


def _slot(row: Any) -> Slot:
    active, restart_lsn, wal_status, safe = row
    return Slot(bool(active), None if restart_lsn is None else parse_lsn(restart_lsn), wal_status, safe)


def switch_wal(url: URL) -> int:
    """Have a server finish the segment it writes, after a transaction of our own.

    :returns: the LSN up to which there is WAL then
    :raises DumpError: it does not answer, or the user may not
    """
    with connected(url) as connection:
        import psycopg

        try:
            connection.execute(_MARK)
            row = connection.execute("SELECT pg_switch_wal()::text").fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            raise SwitchDeniedError(
                "the user of the connection may not finish a WAL segment; as a superuser: GRANT EXECUTE ON"
                f" FUNCTION pg_switch_wal() TO {url.username} ({describe(error, url)})"
            ) from None
        assert row is not None  # noqa: S101 - it returns a row
        return parse_lsn(row[0])


class SwitchDeniedError(DumpError):
    """The user lacks the permission to finish a segment."""

    retryable = False
