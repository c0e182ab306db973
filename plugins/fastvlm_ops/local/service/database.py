"""How a replica keeps records: in whichever of its databases takes writes. Every call is bounded in time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Literal

import psycopg

_MOST_CONNECTIONS = 12
_CALL_SECONDS = 5.0
_WAIT_SECONDS = 2.0
_LOCK = 727269

Stored = Literal["stored", "already", "differs"]


class DatabaseError(Exception):
    """The database cannot be used.

    :param message: for people
    :param unknown: whether what was to be written may have been written all the same
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class Database:
    """A few connections to the primary, made when they are needed and kept.

    :param conninfo: libpq's, with all hosts; only one that takes writes is used
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._idle: list[psycopg.Connection[Any]] = []
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def prepare(self) -> None:
        """Make the table, unless it is there; several replicas may do so at once.

        :raises DatabaseError: the database cannot be used
        """
        with self._connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute(
                "CREATE TABLE IF NOT EXISTS record (id text PRIMARY KEY, payload text NOT NULL,"
                " number bigint GENERATED ALWAYS AS IDENTITY,"
                " written_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )

    def check(self) -> None:
        """Commit something that leaves no row, so that what is found is that commits come back.

        :raises DatabaseError: the database cannot be used
        """
        with self._connection() as connection, connection.transaction():
            connection.execute("SELECT pg_logical_emit_message(true, 'fastvlm', 'ready')")

    def store(self, id: str, payload: str) -> Stored:
        """Store a record, and return when it is committed.

        :param id: that tells it from all others
        :param payload: what it holds
        :raises DatabaseError: it could not be stored, or that is not known
        """
        try:
            return self._store(id, payload)
        except _NotSentError:
            # A kept connection to a server that has gone: nothing was committed by it.
            self.close()
            return self._store(id, payload)

    def _store(self, id: str, payload: str) -> Stored:
        with self._connection() as connection:
            try:
                inserted = connection.execute(
                    "INSERT INTO record (id, payload) VALUES (%s, %s) ON CONFLICT DO NOTHING", [id, payload]
                ).rowcount
                found = connection.execute("SELECT payload FROM record WHERE id = %s", [id]).fetchone()
            except psycopg.OperationalError as error:
                raise _NotSentError(_words(error)) from error
            try:
                connection.commit()
            except psycopg.Error as error:
                raise DatabaseError(_words(error), unknown=True) from error
        if inserted:
            return "stored"
        return "already" if found == (payload,) else "differs"

    def records(self, prefix: str) -> list[dict[str, str]]:
        """Return records in the order in which they came.

        :param prefix: of their ids
        :raises DatabaseError: the database cannot be used
        """
        try:
            return self._records(prefix)
        except DatabaseError:
            self.close()  # as of store: kept connections to a server that has gone
            return self._records(prefix)

    def _records(self, prefix: str) -> list[dict[str, str]]:
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT id, payload FROM record WHERE starts_with(id, %s) ORDER BY number", [prefix]
            ).fetchall()
            connection.rollback()
        return [{"id": id, "payload": payload} for id, payload in rows]

    def close(self) -> None:
        """End all connections that nobody uses."""
        while self._idle:
            with contextlib.suppress(psycopg.Error):
                self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        if not self._room.acquire(timeout=_WAIT_SECONDS):
            raise DatabaseError("all connections to the database are in use")
        try:
            connection = self._take()
            try:
                with _cut_after(connection, _CALL_SECONDS):
                    yield connection
            except BaseException as error:
                connection.close()
                if isinstance(error, psycopg.Error):
                    raise DatabaseError(_words(error)) from error
                raise
            self._idle.append(connection)
        finally:
            self._room.release()

    def _take(self) -> psycopg.Connection[Any]:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was quicker
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        try:
            return psycopg.connect(
                self._conninfo,
                connect_timeout=2,
                target_session_attrs="read-write",
                application_name="replica",
            )
        except psycopg.Error as error:
            raise DatabaseError(_words(error)) from error


class _NotSentError(DatabaseError):
    """The connection ended before a commit was asked for."""


@contextlib.contextmanager
def _cut_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """End a connection whose server keeps silent, as behind a broken network: libpq would wait for ever."""
    handle = socket.socket(fileno=os.dup(connection.fileno()))
    timer = threading.Timer(seconds, _shut, [handle])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        handle.close()


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


def _words(error: psycopg.Error) -> str:
    """Return what went wrong in one line; libpq's messages hold no password."""
    return " ".join(str(error).split())[:300] or type(error).__name__
