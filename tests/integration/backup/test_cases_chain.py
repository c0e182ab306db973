"""Parts of a repository are gone for good: what that hits is named, and nothing else is hit."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import (
    CorruptionError,
    FolderSource,
    Repository,
    S3Storage,
    SnapshotResult,
    create_snapshot,
    open_repository,
    restore_snapshot,
    verify_repository,
)
from fastvlm_ops.core.backup.journal import record_verified
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe

DAYS = 14


def fresh(repository: Repository) -> Repository:
    """As another process would have it, without deriving the key anew."""
    return Repository(repository.storage, repository.ring, repository.config_line)


def test_two_weeks_without_some_of_their_manifests_and_data(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """No snapshot needs another one: each of the others restores whole, the nearest intact one is offered."""
    tree, made, trees, packs = tmp_path / "source", [], [], []
    tree.mkdir()
    (tree / "weights.bin").write_bytes(random.Random(0).randbytes(400_000))
    before: set[str] = set()
    for day in range(DAYS):
        (tree / "today.bin").write_bytes(random.Random(day).randbytes((1 << 20) + day))
        made.append(back_up(repository, tree, f"day-{day}", "full" if day % 7 == 0 else "incremental"))
        trees.append(describe(tree))
        there = {info.name: info.size_bytes for info in storage.list("packs/")}
        packs.append(max(there.keys() - before, key=lambda name: there[name]))
        before = set(there)
    ids = [result.snapshot_id for result in made]
    assert [result.parent for result in made[1:7]] == ids[:6]
    for day in (0, 5, 13):  # the base of all, one in the middle, and the newest
        storage.delete(f"snapshots/models/{ids[day]}")
    storage.delete(packs[9])  # the file of a day that no other one has

    lost = {ids[day] for day in (0, 5, 9, 13)}
    for level in ("listing", "full"):
        found = verify_repository(fresh(repository), level=level)  # type: ignore[arg-type]
        assert not found.ok
        assert {hit.snapshot_id for hit in found.snapshots} == lost
        assert [file.path for file in found.files if file.snapshot_id == ids[9]] == ["today.bin"]
        assert found.nearest_intact == {"models": ids[12]}
    for snapshot_id, expected in zip(ids, trees, strict=True):
        target = tmp_path / "target"
        if snapshot_id in lost:
            with pytest.raises(CorruptionError, match=r"manifest .*does not exist|today\.bin cannot be rest"):
                restore_snapshot(fresh(repository), snapshot_id, target)
            assert not target.exists()
        else:
            restore_snapshot(fresh(repository), snapshot_id, target)
            assert describe(target) == expected
            shutil.rmtree(target)

    (tree / "today.bin").write_bytes(b"after it")
    later = back_up(open_repository(storage, PASSPHRASE), tree, "later", "incremental")
    assert any("the parent is damaged, everything is read again" in warning for warning in later.warnings)
    assert later.new_bytes < 50_000, "the data is there: only what describes it was not"
    restore_snapshot(fresh(repository), later.snapshot_id, tmp_path / "later")
    assert describe(tmp_path / "later") == describe(tree)
    assert verify_repository(fresh(repository), level="full").nearest_intact == {"models": later.snapshot_id}


@pytest.mark.parametrize("kind", ["incremental", "full"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_pack_that_is_gone_and_whose_data_is_gone_too(
    damage: str, kind: str, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """The next backup says so and is whole itself; what needs the data is marked damaged from then on."""
    tree = tmp_path / "source"
    tree.mkdir()
    (tree / "stays.bin").write_bytes(random.Random(1).randbytes(300_000))
    other = back_up(repository, tree, "run-0")
    packs = {info.name for info in storage.list("packs/")}
    (tree / "goes.bin").write_bytes(random.Random(2).randbytes(1_200_000))
    older = back_up(repository, tree, "run-1")
    new = [info for info in storage.list("packs/") if info.name not in packs]
    pack = max(new, key=lambda info: info.size_bytes).name
    data = storage.get(pack, limit_bytes=1 << 26)
    storage.delete(pack)
    if damage == "truncated":
        storage.put(pack, data[:-10])
    os.unlink(tree / "goes.bin")

    def run(run_key: str) -> SnapshotResult:
        return create_snapshot(
            open_repository(storage, PASSPHRASE),
            FolderSource(tree),
            component="models",
            kind=kind,  # type: ignore[arg-type]
            run_key=run_key,
        )

    newer = run("run-2")
    assert [warning for warning in newer.warnings if warning.startswith(f"{pack} is missing or truncated: ")]
    restore_snapshot(fresh(repository), newer.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)

    opened = fresh(repository)
    found = verify_repository(opened, level="listing")
    assert [hit.snapshot_id for hit in found.snapshots] == [older.snapshot_id]
    assert [file.path for file in found.files] == ["goes.bin"]
    assert found.nearest_intact == {"models": newer.snapshot_id}
    covered = [result.snapshot_id for result in (other, older, newer)]
    record_verified(opened, found, covered, run_key="check")
    checks = fresh(repository).refresh().checks
    assert [one for one in covered if "damaged" in checks.get(one, {})] == [older.snapshot_id]

    if damage == "missing":  # what comes back, from wherever, is used again
        storage.put(pack, data)
        assert not [warning for warning in run("run-3").warnings if "missing" in warning]
        assert verify_repository(fresh(repository), level="full").ok


def test_a_pack_whose_data_the_source_still_has_is_named_once(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = tmp_path / "source"
    tree.mkdir()
    (tree / "stays.bin").write_bytes(random.Random(1).randbytes(300_000))
    back_up(repository, tree, "run-1")
    pack = max(storage.list("packs/"), key=lambda info: info.size_bytes).name
    storage.delete(pack)
    warned = [
        list(back_up(fresh(repository), tree, key, "incremental").warnings) for key in ("run-2", "run-3")
    ]
    assert pack in "".join(warned[0])
    assert warned[1] == []
    assert verify_repository(fresh(repository), level="full").ok
