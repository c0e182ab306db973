"""Servers of every major version here, and a repository in an empty bucket."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

from fastvlm_ops.core.backup.postgresql.programs import Programs, find_programs
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
    """Starts servers of their own for a module: ``make_server(16, settings={…}, segment_mb=1)``."""
    with ExitStack() as servers:
        numbers = itertools.count(1)

        def make(major: int = MAJORS[-1], **options: Any) -> PostgreSQL:
            require_major(major)
            folder = tmp_path_factory.mktemp(f"postgres{major}-{next(numbers)}")
            options = {"segment_mb": 1, **options}
            return servers.enter_context(PostgreSQL(folder, major=major, die_with_parent=True, **options))

        yield make


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"postgresql{major}")
def server(request: pytest.FixtureRequest, make_server: MakeServer) -> PostgreSQL:
    """A server of each major version in turn, shared by the tests of a module."""
    return make_server(request.param)


@pytest.fixture(scope="module")
def newest(make_server: MakeServer) -> PostgreSQL:
    """A server of the newest version, shared by the tests of a module."""
    return make_server()


def require_major(major: int) -> None:
    """Skip the test where there is no server of that version."""
    if installed(major) is None:
        pytest.skip(f"PostgreSQL {major} is not here; scripts/postgresql.sh fetches it")


def url_of(server: PostgreSQL, database: str = "postgres") -> URL:
    """Address of a database, as the engine takes it."""
    return make_url(server.url(database))


def execute(server: PostgreSQL, statement: str, database: str = "postgres") -> list[Any]:
    """Run a statement by itself; returns its rows."""
    url = url_of(server, database).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def bin_folder(server: PostgreSQL) -> Path:
    """The folder of the server's own programs."""
    found = installed(server.major)
    assert found is not None
    return found
