"""A repository in an empty bucket of a real server."""

from __future__ import annotations

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
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PASSPHRASE = "a passphrase of the tests"


@pytest.fixture
def storage(s3_client: S3Client, bucket: str) -> S3Storage:
    return S3Storage(s3_client, bucket, "some/prefix")


@pytest.fixture
def repository(storage: S3Storage) -> Repository:
    return initialise_repository(storage, PASSPHRASE)


def back_up(
    repository: Repository, folder: Path, run_key: str, kind: Any = "full", component: str = "models"
) -> SnapshotResult:
    """A snapshot of a folder."""
    return create_snapshot(repository, FolderSource(folder), component=component, kind=kind, run_key=run_key)
