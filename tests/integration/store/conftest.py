"""The same operations database in SQLite and in PostgreSQL: a new one for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.store import Store, migrate, open_store
from fastvlm_ops.local.postgres import PostgreSQL


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'operations.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield server.make_database(name)
    server.drop_database(name)


@pytest.fixture
def store_url(empty_url: str) -> str:
    """Address of a database with its tables."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open operations database."""
    with open_store(store_url) as opened:
        yield opened
