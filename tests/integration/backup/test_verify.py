"""Every kind of damage, at the level that has to find it, and what it hits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import (
    BackupNotFoundError,
    FolderSource,
    Repository,
    S3Storage,
    VerifyResult,
    create_snapshot,
    open_repository,
    restore_snapshot,
    verify_repository,
    verify_set_members,
)
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe, make_plain_tree


def back_up(repository: Repository, folder: Path, run_key: str, kind: str = "full", **more: Any) -> Any:
    return create_snapshot(
        repository,
        FolderSource(folder),
        component=more.get("component", "models"),
        kind=kind,  # type: ignore[arg-type]
        run_key=run_key,
    )


def names(storage: S3Storage, prefix: str) -> list[str]:
    return [info.name for info in storage.list(prefix)]


def flip(storage: S3Storage, name: str, offset: int) -> None:
    data = bytearray(storage.get(name, limit_bytes=1 << 30))
    data[offset] ^= 1
    storage.put(name, bytes(data))


@pytest.mark.parametrize("level", ["log", "listing", "head", "share", "full"])
def test_an_intact_repository_is_ok_at_every_level(
    repository: Repository, tmp_path: Path, level: Any
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=20 << 20)
    back_up(repository, tree, "run-1")
    (tree / "more").write_text("more")
    second = back_up(repository, tree, "run-2", "incremental")
    result = verify_repository(repository, level=level, share=(0, 2) if level == "share" else None)
    print(result.text())
    assert result.ok
    assert result.problems == ()
    assert result.nearest_intact == {"models": second.snapshot_id}
    assert result.checked_snapshots == 2


def test_members(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=20 << 20)
    first = back_up(repository, tree, "run-1")
    result = verify_set_members(repository, [first.snapshot_id], scratch_dir=tmp_path / "scratch")
    print(result.text(), result.as_dict())
    assert result.ok
    assert len(result.sampled) == 1
    assert list((tmp_path / "scratch").iterdir()) == []
