"""Killed at every single request of a backup and of a restore, before the server sees it and after."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup import Repository, S3Storage, restore_snapshot
from tests.integration.backup import conftest
from tests.integration.backup.crashes import (
    ENTRY_BYTES,
    PACK_BYTES,
    SEGMENT_BYTES,
    Matrix,
    kind,
    on_copies,
    timed,
)
from tests.trees import describe, make_plain_tree

back_up = partial(conftest.back_up, kind="incremental")


def objects(storage: S3Storage) -> dict[str, int]:
    return {info.name: info.size_bytes for info in storage.list("")}


def pack_bytes(found: dict[str, int]) -> int:
    return sum(size for name, size in found.items() if name.startswith("packs/"))


def require_restores(repository: Repository, expected: dict[str, Any], target: Path, where: str) -> None:
    for snapshot_id, tree in expected.items():
        restore_snapshot(repository, snapshot_id, target)
        assert describe(target) == tree, f"{snapshot_id} after a kill {where}"
        shutil.rmtree(target)


def test_backup_killed_at_every_request(
    matrix: Matrix, storage: S3Storage, open_again: Callable[[S3Storage], Repository], tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=6, large_bytes=300_000)
    repository = open_again(storage)
    earlier = {back_up(repository, tree, "run-1", kind="full").snapshot_id: describe(tree)}
    (tree / "group-1" / "file-1.yaml").write_text("the second day\n")
    earlier[back_up(repository, tree, "run-2").snapshot_id] = describe(tree)
    (tree / "group-1" / "file-1.yaml").write_text("the third day\n")
    (tree / "new.bin").write_bytes(os.urandom(12 * PACK_BYTES))
    now = describe(tree)
    before = objects(storage)
    job = {"action": "backup", "folder": os.fspath(tree), "run_key": "run-3"}
    begin = on_copies(storage, job)
    with timed(matrix, "backup"):
        requests = matrix.learn(job)
        whole_bytes = pack_bytes(objects(storage))
        for where, copy in matrix.each(begin):
            left = objects(copy)
            assert left.items() >= before.items()
            is_changed = left.keys() != before.keys()
            if is_changed:  # else every earlier backup is what it was
                require_restores(open_again(copy), earlier, tmp_path / "target", where)
            again = open_again(copy)
            result = back_up(again, tree, "run-3")
            missing_bytes = whole_bytes - pack_bytes(left)
            assert result.new_bytes <= missing_bytes + PACK_BYTES + SEGMENT_BYTES + ENTRY_BYTES, where
            assert [*again.refresh().snapshots] == [*earlier, result.snapshot_id], where
            if is_changed:
                require_restores(again, {result.snapshot_id: now}, tmp_path / "target", where)
    kinds = Counter(map(kind, requests))
    assert kinds["PutObject packs"] >= 5
    assert kinds["PutObject index"] >= 2
    assert kinds["PutObject snapshots"] == kinds["PutObject log"] == 1
    assert matrix.kills == 2 * len(matrix.points)


def test_restore_killed_at_every_request(
    matrix: Matrix, storage: S3Storage, open_again: Callable[[S3Storage], Repository], tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=4, large_bytes=3 * PACK_BYTES)
    for number in range(5):
        (tree / f"model-{number}.bin").write_bytes(os.urandom(PACK_BYTES))
    os.link(tree / "model-1.bin", tree / "group-2" / "same-as-model-1.bin")
    expected = describe(tree)
    snapshot_id = back_up(open_again(storage), tree, "run-1", kind="full").snapshot_id
    fetched_bytes = restore_snapshot(open_again(storage), snapshot_id, tmp_path / "whole").fetched_bytes
    target = tmp_path / "target"
    job = {"action": "restore", "folder": os.fspath(target), "snapshot_id": snapshot_id}

    def begin() -> tuple[dict[str, Any], S3Storage]:
        shutil.rmtree(target)
        return job, storage

    kept = 0
    with timed(matrix, "restore"):
        requests = matrix.learn(job)
        for where, _ in matrix.each(begin):
            done = whole_files(target, expected, where)
            result = restore_snapshot(open_again(storage), snapshot_id, target)
            assert describe(target) == expected, where
            assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target", "whole"], where
            assert result.kept_files == len(done), where
            done_bytes = sum(expected[path]["size"] for path in done)
            assert result.fetched_bytes <= fetched_bytes - done_bytes + ENTRY_BYTES, where
            kept += len(done)
    assert Counter(map(kind, requests))["GetObject packs"] >= 10
    assert kept > len(matrix.points)
    assert matrix.kills > 1.5 * len(matrix.points)


def whole_files(target: Path, expected: dict[bytes, dict[str, Any]], where: str) -> list[bytes]:
    """Files that a killed restore has finished, each under one name; nothing else bears a final name."""
    done: dict[bytes, bytes] = {}
    for path, about in describe(target).items() if target.exists() else ():
        if path.rpartition(b"/")[2].startswith(b".fastvlm-restore-"):
            continue
        assert path in expected, where
        if "sha256" in about:
            assert about["sha256"] == expected[path]["sha256"], f"{path!r} is wrong after a kill {where}"
            assert about["mode"] == expected[path]["mode"], f"{path!r} is wrong after a kill {where}"
            done.setdefault(expected[path]["same_file_as"], path)
    return list(done.values())
