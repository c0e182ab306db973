"""Servers of every major version here, and a repository in an empty bucket."""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

from fastvlm_ops.core.backup.postgresql.programs import Programs, find_programs, run_as
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import MAJORS, client_programs, installed

# The same repository as the tests of the engine have.
from tests.integration.backup.conftest import repository, storage

__all__ = ["repository", "storage"]

MakeServer = Callable[..., PostgreSQL]


@pytest.fixture(scope="session")
def clients() -> Programs:
    """Client programs of the newest version, which work with all servers."""
    return find_programs(MAJORS[-1], folder=client_programs())


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Starts servers of a module's own: ``make_server(16, settings={…}, segment_mb=1)``."""
    with ExitStack() as servers:
        yield lambda major=MAJORS[-1], **options: servers.enter_context(
            _server(tmp_path_factory, major, options)
        )


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], PostgreSQL]]:
    """A server of each version for all tests, started by the first that wants it."""
    with ExitStack() as servers:
        yield functools.cache(lambda major: servers.enter_context(_server(tmp_path_factory, major, {})))


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"postgresql{major}")
def server(request: pytest.FixtureRequest, shared_server: Callable[[int], PostgreSQL]) -> PostgreSQL:
    """A server of each major version in turn, which is not empty: others use it too."""
    return shared_server(request.param)


@pytest.fixture(scope="session")
def newest(shared_server: Callable[[int], PostgreSQL]) -> PostgreSQL:
    """The server of the newest version, which is not empty: others use it too."""
    return shared_server(MAJORS[-1])


def _server(factory: pytest.TempPathFactory, major: int, options: dict[str, Any]) -> PostgreSQL:
    if installed(major) is None:
        pytest.skip(f"PostgreSQL {major} is not here; scripts/postgresql.sh fetches it")
    options = {"segment_mb": 1, **options}
    return PostgreSQL(factory.mktemp(f"postgres{major}"), major=major, die_with_parent=True, **options)


def url_of(server: PostgreSQL, database: str = "postgres") -> URL:
    """Address of a database, as the engine takes it."""
    return make_url(server.url(database))


def execute(server: PostgreSQL, statement: str, database: str = "postgres") -> list[Any]:
    """Run a statement by itself; returns its rows."""
    url = url_of(server, database).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def started(server: PostgreSQL, folder: Path) -> Iterator[psycopg.Connection[Any]]:
    """Start what was restored of a server, below its scratch folder, and connect to it by a Unix socket."""
    account = run_as()
    log = folder.with_suffix(".log")
    arguments = [
        *(server.programs / "postgres", "-D", folder, "-c", "listen_addresses=", "-c", "port=5432"),
        *("-c", f"unix_socket_directories={folder}", "-c", "fsync=off"),
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            arguments, stdout=output, stderr=output, cwd=folder, **account.popen_options()
        ) as process,
    ):
        try:
            yield _connect(folder, server, process, log)
        finally:
            process.send_signal(signal.SIGQUIT)


def _connect(
    folder: Path, server: PostgreSQL, process: subprocess.Popen[bytes], log: Path
) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(
                host=str(folder),
                port=5432,
                user=server.user,
                password=server.password,
                dbname="postgres",
                autocommit=True,
            )
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
