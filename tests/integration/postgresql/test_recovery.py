"""Recovery of a cluster by its base backups and WAL, each target replayed by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import Repository, S3Storage, initialise_repository
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget
from fastvlm_ops.local.postgres import PostgreSQL
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.postgresql.recovery_kit import (
    SETTINGS,
    Original,
    folder_for_servers,
    recovered,
    texts,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_servers() as parent:
        yield parent / 'it\'s a "folder" $(touch x)'


def test_quick(make_server, repository, clients, folder):
    server = make_server(settings=SETTINGS)
    original = Original(server, repository, clients)
    original.sql("CREATE TABLE item (id serial, text text)")
    original.insert("a")
    original.base()
    original.insert("b")
    moment = original.now()
    original.insert("c")
    original.ship()
    plan, trial = recovered(
        original, folder, RecoveryTarget(time=moment), queries=["SELECT count(*) FROM item"]
    )
    print(plan, trial.as_dict())
    assert texts(folder) == ["a", "b"]
