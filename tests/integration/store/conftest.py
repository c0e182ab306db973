"""The same operations database in SQLite and in PostgreSQL: a new one for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastvlm_ops.core.store import Store, migrate, open_store


@pytest.fixture
def store_url(database_url: str) -> str:
    """Address of a database with its tables."""
    migrate(database_url)
    return database_url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open operations database."""
    with open_store(store_url) as opened:
        yield opened
