"""A repository in an empty bucket of a real server."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    S3Storage,
    SnapshotResult,
    create_snapshot,
    initialise_repository,
    keys,
    open_repository,
)
from tests.fault_proxy import FaultProxy
from tests.integration.backup.crashes import SETTINGS, Forker, Matrix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

PASSPHRASE = "a passphrase of the tests"


@pytest.fixture
def storage(s3_client: S3Client, bucket: str) -> S3Storage:
    return S3Storage(s3_client, bucket, "some/prefix")


@pytest.fixture
def locking_bucket(seaweedfs: SeaweedFS) -> str:
    """A bucket that takes locks. It goes with the server: what is in it is locked."""
    return seaweedfs.make_bucket(f"locked-{uuid.uuid4().hex[:12]}", locks=True)


@pytest.fixture
def repository(storage: S3Storage) -> Repository:
    return initialise_repository(storage, PASSPHRASE)


def back_up(
    repository: Repository, folder: Path, run_key: str, kind: Any = "full", component: str = "models"
) -> SnapshotResult:
    """A snapshot of a folder."""
    return create_snapshot(repository, FolderSource(folder), component=component, kind=kind, run_key=run_key)


@pytest.fixture
def matrix(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Matrix]:
    """Kills a job at its requests, one after the other."""
    for name, value in SETTINGS.items():
        monkeypatch.setattr(f"fastvlm_ops.core.backup.{name}", value)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        forker = Forker(proxy, seaweedfs, storage, PASSPHRASE)
        try:
            yield Matrix(proxy, forker, storage)
        finally:
            forker.close()


@pytest.fixture
def open_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Storage], Repository]:
    """Opens a repository as a new process would, but derives the key from the passphrase only once."""
    derive = keys._passphrase_key
    remember = functools.cache(lambda passphrase, kdf: derive(passphrase, json.loads(kdf)))
    monkeypatch.setattr(
        keys, "_passphrase_key", lambda passphrase, kdf: remember(passphrase, json.dumps(kdf))
    )
    return lambda storage: open_repository(storage, PASSPHRASE)
