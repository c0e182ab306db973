"""What the tests of pruning share: histories that leave something to remove, and what must hold after it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup import Repository, S3Storage, SnapshotResult, create_snapshot, restore_snapshot
from fastvlm_ops.core.backup.collecting import CollectionResult, collect
from fastvlm_ops.core.backup.sources import FolderSource
from tests.trees import describe

NOW = datetime(2026, 3, 1, tzinfo=UTC)

AT_ONCE: dict[str, Any] = {
    "keep_unreferenced": timedelta(0),
    "max_waste": 0.3,
    "copy_limit_bytes": 1 << 30,
    "max_share": 1.0,
}


def gather(repository: Repository, run_key: str, **changed: Any) -> CollectionResult:
    """A collection that spares nothing for its youth."""
    return collect(repository, **{**AT_ONCE, **changed}, run_key=run_key)


def forget_snapshots(repository: Repository, *snapshot_ids: str) -> None:
    """The entry itself, whatever a policy would say."""
    repository.refresh()
    repository.log.append("forget", {"snapshots": list(snapshot_ids), "sets": []})


def back_up(
    repository: Repository, folder: Path, run_key: str, kind: Any = "incremental", component: str = "models"
) -> SnapshotResult:
    return create_snapshot(repository, FolderSource(folder), component=component, kind=kind, run_key=run_key)


def names(storage: S3Storage, below: str) -> set[str]:
    return {info.name for info in storage.list(below)}


def require_restores(
    repository: Repository, expected: dict[str, dict[bytes, Any]], target: Path, where: str = ""
) -> None:
    """Each snapshot brings back its moment."""
    for snapshot_id, tree in expected.items():
        restore_snapshot(repository, snapshot_id, target)
        assert describe(target) == tree, f"{snapshot_id} {where}"
        shutil.rmtree(target)


def write_files(folder: Path, names_and_bytes: Iterable[tuple[str, int]]) -> None:
    """Files of noise, so that nothing of them is the same as anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size_bytes in names_and_bytes:
        (folder / name).write_bytes(os.urandom(size_bytes))


def unfinished(repository: Repository) -> list[dict[str, Any]]:
    """Entries of the state that still wait for somebody to delete what they name."""
    return [entry for entry in repository.refresh().condemned if not entry.get("finished")]
