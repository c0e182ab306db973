"""Forgetting and collecting against a real server: what goes, what stays, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    open_repository,
    publish_set,
    verify_repository,
)
from fastvlm_ops.core.backup.collecting import plan_collection
from fastvlm_ops.core.backup.errors import PruningRefusedError
from fastvlm_ops.core.backup.index import ChunkIndex
from tests.conftest import ROOT
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import (
    AT_ONCE,
    NOW,
    back_up,
    forget_snapshots,
    gather,
    names,
    require_restores,
    unfinished,
    write_files,
)
from tests.trees import describe

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvlm_ops.core.backup.packs.PACK_BYTES", 256 << 10)


def again(storage: S3Storage) -> Repository:
    return open_repository(storage, PASSPHRASE, chunks=True)


def test_what_only_forgotten_snapshots_need_goes(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = tmp_path / "source"
    write_files(tree, [("kept", MIB), ("dropped", MIB)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    (tree / "dropped").unlink()
    write_files(tree, [("new", MIB)])
    second = back_up(repository, tree, "run-2").snapshot_id
    expected = {second: describe(tree)}
    before = sum(info.size_bytes for info in storage.list("packs/"))
    forget_snapshots(repository, first)

    no_waste = {**AT_ONCE, "max_waste": 0.0}  # else a pack with some of what is dropped may stay
    plan = plan_collection(repository, **no_waste)
    assert plan.refusal is None
    assert MIB <= plan.removed_bytes - plan.copied_bytes < 1.1 * MIB
    assert names(storage, "packs/") >= set(plan.packs), "a plan removes nothing"
    result = gather(repository, "collect-1", **no_waste)

    after = sum(info.size_bytes for info in storage.list("packs/"))
    assert MIB <= before - after < 1.1 * MIB
    assert result.deleted_objects >= len(plan.packs)
    assert names(storage, "packs/").isdisjoint(plan.packs)
    assert not names(storage, "snapshots/") - {repository.refresh().snapshots[second]["manifest"]}
    for opened in (repository, again(storage)):
        assert unfinished(opened) == []
        require_restores(opened, expected, tmp_path / "target")
        found = verify_repository(opened, level="full")
        assert (found.ok, found.problems) == (True, ())
    assert gather(again(storage), "collect-1").reused
    assert gather(again(storage), "collect-1").deleted_objects == result.deleted_objects
    assert gather(again(storage), "collect-2").deleted_objects <= 4, "segments that were superseded, at most"
    assert gather(again(storage), "collect-3").deleted_objects == 0


def test_live_chunks_leave_packs_that_are_mostly_dead(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = tmp_path / "source"
    write_files(tree, [(f"small-{number}", 5_000) for number in range(60)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    for number in range(50):
        (tree / f"small-{number}").unlink()
    second = back_up(repository, tree, "run-2").snapshot_id
    forget_snapshots(repository, first)
    before = names(storage, "packs/")
    kept = plan_collection(repository, **{**AT_ONCE, "max_waste": 0.95})
    assert not kept.emptied, "a waste of 83 % is below the limit"
    assert not plan_collection(repository, **{**AT_ONCE, "copy_limit_bytes": 1000}).emptied
    plan = plan_collection(repository, **AT_ONCE)
    assert 50_000 < plan.copied_bytes < 70_000
    result = gather(repository, "collect-1")
    assert 50_000 < result.copied_bytes < 80_000
    assert names(storage, "packs/").isdisjoint(plan.emptied)
    assert before - names(storage, "packs/") == set(plan.packs)
    for opened in (repository, again(storage)):
        require_restores(opened, {second: describe(tree)}, tmp_path / "target")
    assert plan_collection(again(storage), **AT_ONCE).packs == (), "nothing is emptied again and again"
    third = back_up(again(storage), tree, "run-3", kind="full")
    assert third.new_bytes < 20_000, "chunks that were copied are found"


def test_the_short_reader_restores_after_a_collection(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """restore_min.py looks into every segment, also those that name packs that are gone."""
    tree = tmp_path / "source"
    write_files(tree, [("kept", MIB), *((f"small-{number}", 5_000) for number in range(40))])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    for number in range(30):
        (tree / f"small-{number}").unlink()
    back_up(repository, tree, "run-2")
    publish_set(repository, set_id="set", kind="full", run_key="run-2", components=["models"], timestamp=NOW)
    forget_snapshots(repository, first)
    assert gather(repository, "collect-1").copied_bytes
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
        "AWS_ENDPOINT_URL": seaweedfs.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "FASTVLM_PASSPHRASE": PASSPHRASE,
    }
    reader = [sys.executable, "-I", ROOT / "restore_min.py", storage.bucket, "some/prefix"]
    named = {pack for one in again_index(storage).segments.values() for pack in one.packs}
    assert named - names(storage, "packs/"), "a segment yet names a pack that is gone"
    subprocess.run([*reader, tmp_path / "target"], env=environment, check=True, timeout=120)
    assert describe(tmp_path / "target" / "models") == describe(tree)


def again_index(storage: S3Storage) -> ChunkIndex:
    opened = again(storage)
    opened.refresh()
    return opened.load_index(print)


def test_what_is_young_is_spared_and_too_much_is_refused(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = tmp_path / "source"
    write_files(tree, [("kept", MIB), ("dropped", 3 * MIB)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    (tree / "dropped").unlink()
    second = back_up(repository, tree, "run-2").snapshot_id
    forget_snapshots(repository, first)
    before = names(storage, "")
    young = {"keep_unreferenced": timedelta(hours=1)}
    assert plan_collection(repository, **{**AT_ONCE, **young}).does_nothing
    assert gather(repository, "collect-1", **young).deleted_objects == 0
    with pytest.raises(PruningRefusedError, match=r"of 4\.\d MiB would go, which is 7\d%; at most 50%"):
        gather(repository, "collect-2", max_share=0.5)
    assert names(storage, "") - {f"log/{repository.log.state.seq:020d}.json"} <= before
    assert gather(repository, "collect-3", max_share=0.8).deleted_bytes > 2.9 * MIB
    require_restores(repository, {second: describe(tree)}, tmp_path / "target")


def test_a_snapshot_that_cannot_be_read_stops_the_collection(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """Also when it is one pack of contents that is gone: what is needed is not known any more."""
    tree = tmp_path / "source"
    write_files(tree, [("one", MIB)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    packs = names(storage, "packs/")
    write_files(tree, [("one", MIB)])
    second = back_up(repository, tree, "run-2", kind="full").snapshot_id
    lost = sorted(names(storage, "packs/") - packs)[0]
    storage.delete(lost)
    forget_snapshots(repository, first)
    opened = again(storage)
    assert second in (plan_collection(opened, **AT_ONCE).refusal or "")
    with pytest.raises(PruningRefusedError, match=f"snapshot {second} cannot be read whole"):
        gather(opened, "collect-1")
    assert names(storage, "packs/") >= packs
    third = back_up(opened, tree, "run-3", kind="full").snapshot_id
    forget_snapshots(opened, second)
    assert gather(opened, "collect-2").deleted_objects > 0
    require_restores(opened, {third: describe(tree)}, tmp_path / "target")


def test_of_two_copies_the_intact_one_stays(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """A full backup stores again what it finds damaged: the older copy may be the bad one."""
    tree = tmp_path / "source"
    write_files(tree, [("one", MIB)])
    back_up(repository, tree, "run-1", kind="full")
    damaged = max(storage.list("packs/"), key=lambda info: info.size_bytes)
    data = bytearray(storage.get(damaged.name, limit_bytes=1 << 30))
    data[len(data) // 2] ^= 1
    storage.put(damaged.name, bytes(data))
    second = back_up(again(storage), tree, "run-2", kind="full")
    assert second.warnings
    for number in range(3):
        result = gather(again(storage), f"collect-{number}")
        require_restores(again(storage), {second.snapshot_id: describe(tree)}, tmp_path / "target")
    assert result.deleted_objects == 0


def test_equal_copies_end_as_one(repository: Repository, storage: S3Storage, tmp_path: Path) -> None:
    """Two runs at once store the same chunks twice."""
    tree = tmp_path / "source"
    write_files(tree, [("one", MIB)])
    repository.refresh()
    one, other = repository.beside(2)
    first = back_up(one, tree, "run-1", kind="full").snapshot_id
    second = back_up(other, tree, "run-2", kind="full", component="others").snapshot_id
    assert sum(info.size_bytes for info in storage.list("packs/")) > 2 * MIB
    gather(again(storage), "collect-1")
    assert sum(info.size_bytes for info in storage.list("packs/")) < 1.2 * MIB
    expected = {first: describe(tree), second: describe(tree)}
    require_restores(again(storage), expected, tmp_path / "target")


def test_many_small_segments_become_one(
    repository: Repository, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvlm_ops.core.backup.segments._MANY", 5)
    tree = tmp_path / "source"
    tree.mkdir()
    expected = {}
    for number in range(6):
        (tree / f"file-{number}").write_bytes(os.urandom(3000))
        expected[back_up(repository, tree, f"run-{number}").snapshot_id] = describe(tree)
    assert len(names(storage, "index/")) == 6
    gather(repository, "collect-1")
    gather(again(storage), "collect-2")
    assert len(names(storage, "index/")) == 1
    require_restores(again(storage), dict(list(expected.items())[::3]), tmp_path / "target")
    assert verify_repository(again(storage), level="head").problems == ()
