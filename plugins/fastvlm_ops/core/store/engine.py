"""Opening the operations database, and its transactions.

SQLite: WAL, every commit flushed to the disk, and writing transactions that take the write lock when they
begin, so that none fails halfway because another wrote first. PostgreSQL: READ COMMITTED for writing (blocks
lock the rows they decide on), a read-only snapshot for reading.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from fastvlm_ops.core.store.address import checked_url, shown
from fastvlm_ops.core.store.errors import StoreUnavailableError, StoreUrlError

#: How long a transaction waits for another, in seconds. Far longer than any of ours takes.
LOCK_TIMEOUT_SECONDS = 30
_CONNECT_TIMEOUT_SECONDS = 10
_ABANDONED_AFTER_SECONDS = 120


class Store:
    """The operations database. Serves all threads of a process; a forked child gets connections of its own.

    :param engine: as :func:`create_store_engine` makes it
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._pid = os.getpid()

    def __str__(self) -> str:
        return shown(self.engine.url)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back when anything is raised.

        :raises StoreUnavailableError: the database does not answer
        """
        with self._transaction(store_begin="IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that reads: all it reads is of one moment, and writing is refused.

        :raises StoreUnavailableError: the database does not answer
        """
        if self.dialect == "postgresql":
            with self._transaction(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
                yield connection
            return
        with self._transaction(store_begin="DEFERRED") as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("PRAGMA query_only = OFF")

    def close(self) -> None:
        """Close all connections; the store can be used again afterwards."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        if self._pid != os.getpid():  # forked: the parent's connections are not ours to use or to close
            self.engine.dispose(close=False)
            self._pid = os.getpid()
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self.engine.connect()).execution_options(**options)
                stack.enter_context(connection.begin())
            except OperationalError as error:
                raise StoreUnavailableError(
                    f"the operations database {self} does not let us in: {_first_line(error)}. Check that it"
                    " is there and runs, and the user and password of the connection fastvlm_ops_db"
                ) from None
            yield connection


def open_store(url: str | URL, *, migrate_first: bool = False) -> Store:
    """Open the operations database.

    :param url: ``sqlite:///<file>`` or ``postgresql://user:password@host/database``
    :param migrate_first: bring its tables up to date first
    :raises StoreUrlError: the address cannot be used
    :raises StoreUnavailableError: the database does not answer
    :raises SchemaVersionError: its tables are older or newer than this code; the message says what to do
    """
    from fastvlm_ops.core.store.migrate import check_schema, migrate

    if migrate_first:
        migrate(url)
    store = Store(create_store_engine(url, create=False))
    try:
        check_schema(store)
    except BaseException:
        store.close()
        raise
    return store


def create_store_engine(url: str | URL, *, create: bool) -> Engine:
    """Return an engine with our transactions.

    :param url: of the database
    :param create: whether a SQLite file that is not there is made
    :raises StoreUrlError: the address cannot be used, or the file's folder does not exist
    """
    checked = checked_url(url)
    options: dict[str, Any] = {
        "json_serializer": functools.partial(json.dumps, allow_nan=False, ensure_ascii=False),
    }
    if checked.drivername == "sqlite":
        _check_file(checked, create=create)
        options["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
        engine = create_engine(checked, **options)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_TIMEOUT_SECONDS}}
    engine = create_engine(checked, **options)
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _check_file(url: URL, *, create: bool) -> None:
    file = Path(url.database or "")
    if not file.parent.is_dir():
        raise StoreUrlError(f"the folder {file.parent} of the operations database {file} does not exist")
    if not create and not file.exists():
        # SQLite would make an empty file here, and a wrong path would pass for a new database.
        from fastvlm_ops.core.store.errors import SchemaVersionError
        from fastvlm_ops.core.store.migrate import REMEDY

        raise SchemaVersionError(f"there is no operations database at {file}. {REMEDY}")


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_sqlite does
    _switch_to_wal(connection)
    for setting in ("synchronous = FULL", "foreign_keys = ON", "recursive_triggers = ON"):
        connection.execute(f"PRAGMA {setting}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # Two processes that switch a new file at once: one is told "locked" at once, whatever the time-out.
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"SQLite cannot use a write-ahead log here (mode {mode!r})")
        return


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("store_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {kind}")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    settings = {
        "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
        # A worker whose machine is gone must not hold its locks until the network notices.
        "idle_in_transaction_session_timeout": f"{_ABANDONED_AFTER_SECONDS}s",
        "timezone": "UTC",
    }
    with connection.cursor() as cursor:
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()


def _first_line(error: OperationalError) -> str:
    return str(error.orig).strip().partition("\n")[0]
