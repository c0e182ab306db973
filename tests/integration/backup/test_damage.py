"""Damaged and hostile repositories: refused, named, and nothing wrong is left behind."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import (
    BackupNotFoundError,
    CorruptionError,
    Repository,
    RestoreTargetError,
    S3Storage,
    open_repository,
    restore_snapshot,
)
from fastvlm_ops.core.backup.packs import FrameGrouper, encode_pack
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.tree import Entry, IdList, encode_entry
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe, make_plain_tree


def names(storage: S3Storage, prefix: str) -> list[str]:
    return [info.name for info in storage.list(prefix)]


def flip(storage: S3Storage, name: str, offset: int) -> None:
    data = bytearray(storage.get(name, limit_bytes=1 << 30))
    data[offset] ^= 1
    storage.put(name, bytes(data))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_pack_is_stored_again_by_the_next_backup(
    repository: Repository, storage: S3Storage, tmp_path: Path, number: int
) -> None:
    """Whichever it is: data, the tree and the lists are chunks alike."""
    tree = make_plain_tree(tmp_path / "source", large_bytes=36 << 20)
    first = back_up(repository, tree, "run-1")
    lost = sorted(storage.list("packs/"), key=lambda info: info.size_bytes)[number]
    storage.delete(lost.name)
    with pytest.raises(CorruptionError, match=r"chunk [0-9a-f]{64} is in no pack"):
        restore_snapshot(repository, first.snapshot_id, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    second = back_up(open_repository(storage, PASSPHRASE), tree, "run-2", "incremental")
    assert second.new_bytes > 0.9 * lost.size_bytes
    for snapshot in (first, second):  # what came back serves the old one too
        restore_snapshot(repository, snapshot.snapshot_id, tmp_path / snapshot.snapshot_id)
        assert describe(tmp_path / snapshot.snapshot_id) == describe(tree)


@pytest.mark.parametrize("prefix", ["snapshots/", "packs/"])
def test_a_damaged_parent_only_costs_time(
    repository: Repository, storage: S3Storage, tmp_path: Path, prefix: str
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=100_000)
    back_up(repository, tree, "run-1")
    for name in names(storage, prefix):
        for offset in range(100, storage.head(name).size_bytes, 500):
            flip(storage, name, offset)
    second = back_up(open_repository(storage, PASSPHRASE), tree, "run-2", "incremental")
    assert any("parent" in warning and "damaged" in warning for warning in second.warnings)
    third = back_up(open_repository(storage, PASSPHRASE), tree, "run-3")  # a full one heads the packs
    restore_snapshot(repository, third.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


def test_a_pack_with_another_checksum_is_stored_again_by_a_full(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=4 << 20)
    back_up(repository, tree, "run-1")
    largest = max(storage.list("packs/"), key=lambda info: info.size_bytes).name
    flip(storage, largest, 5000)  # same size: only the checksum tells
    second = back_up(repository, tree, "run-2")
    assert any("has another checksum than its name" in warning for warning in second.warnings)
    restore_snapshot(repository, second.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


def test_lost_indexes_are_rebuilt_from_footers(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=20 << 20)
    first = back_up(repository, tree, "run-1")
    for name in names(storage, "index/"):
        storage.delete(name)
    restore_snapshot(repository, first.snapshot_id, tmp_path / "one")
    assert describe(tmp_path / "one") == describe(tree)
    second = back_up(repository, tree, "run-2", "incremental")
    assert second.new_bytes < 100_000  # a segment, no data
    assert names(storage, "index/")
    restore_snapshot(repository, second.snapshot_id, tmp_path / "two")
    assert describe(tmp_path / "two") == describe(tree)


def test_a_damaged_index_segment_is_read_from_footers(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=20 << 20)
    first = back_up(repository, tree, "run-1")
    (segment,) = names(storage, "index/")
    flip(storage, segment, 100)
    restored = restore_snapshot(repository, first.snapshot_id, tmp_path / "one")
    assert any(segment in warning for warning in restored.warnings)
    second = back_up(repository, tree, "run-2", "incremental")
    assert second.new_bytes < 100_000
    assert any(segment in warning for warning in second.warnings)
    storage.delete(max(storage.list("packs/"), key=lambda info: info.size_bytes).name)
    with pytest.raises(CorruptionError, match="is in no pack"):
        restore_snapshot(repository, second.snapshot_id, tmp_path / "two")
    third = back_up(repository, tree, "run-3", "incremental")
    assert third.new_bytes > 100_000
    for snapshot in (first, second, third):
        restore_snapshot(repository, snapshot.snapshot_id, tmp_path / snapshot.snapshot_id)
        assert describe(tmp_path / snapshot.snapshot_id) == describe(tree)


def test_a_flipped_bit_in_a_pack_leaves_no_wrong_file(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=4 << 20)
    snapshot = back_up(repository, tree, "run-1")
    pack = max(storage.list("packs/"), key=lambda info: info.size_bytes).name
    flip(storage, pack, 2 << 20)
    with pytest.raises(CorruptionError, match=r"weight\.bin cannot be restored: .*frame \d+ is damaged"):
        restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target")
    original = describe(tree)
    for path, about in describe(tmp_path / "target").items():
        if "sha256" in about:
            assert about["sha256"] == original[path]["sha256"]
    assert not (tmp_path / "target" / "model.mlpackage" / "weight.bin").exists()


@pytest.mark.parametrize("prefix", ["config.json", "keys/", "snapshots/", "log/"])
def test_a_flipped_bit_elsewhere_is_found(
    repository: Repository, storage: S3Storage, tmp_path: Path, prefix: str
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run-1")
    name = names(storage, prefix)[0]
    size = storage.head(name).size_bytes
    for offset in (0, size // 3, size // 2, size - 2):
        flip(storage, name, offset)
        with pytest.raises(Exception, match=r".") as caught:  # which error depends on the byte
            restore_snapshot(open_repository(storage, PASSPHRASE), snapshot.snapshot_id, tmp_path / "target")
        assert type(caught.value).__module__ == "fastvlm_ops.core.backup.errors", repr(caught.value)
        assert not (tmp_path / "target").exists()
        flip(storage, name, offset)
    restore_snapshot(open_repository(storage, PASSPHRASE), snapshot.snapshot_id, tmp_path / "target")


def test_objects_cannot_be_swapped(repository: Repository, storage: S3Storage, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    first = back_up(repository, tree, "run-1")
    (tree / "group-1" / "file-1.yaml").write_text("changed")
    second = back_up(repository, tree, "run-2")
    old, new = (f"snapshots/models/{snapshot.snapshot_id}" for snapshot in (first, second))
    storage.put(new, storage.get(old, limit_bytes=1 << 20))
    with pytest.raises(CorruptionError, match="is not the manifest that was committed"):
        restore_snapshot(repository, second.snapshot_id, tmp_path / "target")
    first_entry, second_entry = names(storage, "log/")
    storage.put(second_entry, storage.get(first_entry, limit_bytes=1 << 20))
    with pytest.raises(CorruptionError, match="holds entry 1"):
        open_repository(storage, PASSPHRASE).refresh()
    storage.delete(first_entry)
    with pytest.raises(CorruptionError, match=r"log/0+1\.json is missing from the log"):
        open_repository(storage, PASSPHRASE).refresh()


def test_a_truncated_pack_is_found_before_writing(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run-1")
    pack = names(storage, "packs/")[0]
    storage.put(pack, storage.get(pack, limit_bytes=1 << 30)[:-1000])
    with pytest.raises(CorruptionError, match="is in no pack"):
        restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target")
    assert not (tmp_path / "target").exists()


# -- hostile: whoever holds the key writes what no backup would -----------------------------------------


def commit_tree(repository: Repository, parent: str, lines: list[Entry], totals: dict[str, int]) -> str:
    """A snapshot with a tree of our making, properly sealed and committed."""
    state = repository.refresh()
    manifest = read_manifest(repository, state.snapshots[parent])
    tree = b"".join(map(encode_entry, lines))
    from blake3 import blake3

    grouper = FrameGrouper()
    chunk_id = blake3(tree, key=repository.ring.chunk_id_key).digest()
    grouper.add(chunk_id, tree)
    pack = encode_pack(repository.ring, repository.repository_id, grouper.frames)
    repository.storage.put(pack.name, pack.data)
    snapshot_id = f"hostile-{hashlib.sha256(tree).hexdigest()[:8]}"
    manifest |= {"snapshot_id": snapshot_id, "tree": IdList((chunk_id,)).to_json()}
    manifest["totals"] = {"entries": len(lines), **totals}
    name = f"snapshots/models/{snapshot_id}"
    sealed = repository.seal("M", name, json.dumps(manifest).encode())
    repository.storage.put(name, sealed)
    body = {**state.snapshots[parent], "snapshot_id": snapshot_id, "manifest": name, "run_key": snapshot_id}
    repository.log.append("snapshot", body | {"sha256": hashlib.sha256(sealed).hexdigest()})
    return snapshot_id


def at(path: bytes) -> Callable[[list[Entry]], list[Entry]]:
    """The last file, under another path."""
    return lambda entries: [*entries[:-1], replace(entries[-1], path=path)]


def through_link(target: bytes) -> Callable[[list[Entry]], list[Entry]]:
    def change(entries: list[Entry]) -> list[Entry]:
        link = Entry(b"zz", "symlink", 0o777, 0, 0, 0, target=target)
        return [*entries, link, replace(entries[-1], path=b"zz/inside")]

    return change


HOSTILE: dict[str, tuple[Callable[[list[Entry]], list[Entry]], str]] = {
    "up": (at(b"../outside"), "unsafe path '../outside'"),
    "up within": (at(b"group-4/../../outside"), "unsafe path"),
    "absolute": (at(b"/outside"), "unsafe path '/outside'"),
    "dot": (at(b"zz/./x"), "unsafe path"),
    "empty component": (at(b"zz//x"), "unsafe path"),
    "zero byte": (at(b"zz\0x"), "unsafe path"),
    "no such folder": (at(b"zz/x"), "passes through something that is not a directory"),
    "through a link": (through_link(b"/"), "passes through something that is not a directory"),
    "through a file": (
        lambda entries: [*entries, replace(entries[-1], path=entries[-1].path + b"/x")],
        "passes through something that is not a directory",
    ),
    "twice": (lambda entries: [*entries, entries[-1]], "stands twice"),
    "out of order": (lambda entries: [*entries[:2], entries[3], entries[2]], "out of order"),
    "no root": (lambda entries: entries[1:], "does not begin with its root"),
    "hard link outside": (
        lambda entries: [*entries, replace(entries[-1], path=b"zz", hard_link=b"../../etc/passwd")],
        "hard link to something that is no earlier file",
    ),
    "larger than its chunks": (
        lambda entries: [*entries[:-1], replace(entries[-1], size=entries[-1].size + 1)],
        "states .* bytes, its chunks have",
    ),
    "bomb of holes": (
        lambda entries: [*entries[:-1], replace(entries[-1], size=1 << 63, extents=[(0, entries[-1].size)])],
        "impossible size",
    ),
    "overlapping extents": (
        lambda entries: [*entries[:-1], replace(entries[-1], size=100, extents=[(0, 60), (50, 10)])],
        "extents overlap",
    ),
    "unknown chunk": (
        lambda entries: [*entries[:-1], replace(entries[-1], contents=IdList((b"\1" * 32,)))],
        "is in no pack",
    ),
}


@pytest.fixture(scope="module")
def module_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plain_tree(tmp_path_factory.mktemp("hostile") / "source", files=6)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tree_is_refused_before_anything_is_written(
    repository: Repository, tmp_path: Path, module_tree: Path, case: str
) -> None:
    change, message = HOSTILE[case]
    snapshot = back_up(repository, module_tree, "run-1")
    reader = ChunkReader(repository, repository.load_index(print))
    manifest = read_manifest(repository, repository.refresh().snapshots[snapshot.snapshot_id])
    entries = list(read_tree(reader, manifest["tree"]))
    hostile = commit_tree(repository, snapshot.snapshot_id, change(entries), manifest["totals"])
    target = tmp_path / "inner" / "target"
    with pytest.raises(CorruptionError, match=message):
        restore_snapshot(repository, hostile, target)
    assert list(tmp_path.iterdir()) == []


def test_totals_that_lie_are_refused(repository: Repository, tmp_path: Path, module_tree: Path) -> None:
    snapshot = back_up(repository, module_tree, "run-1")
    reader = ChunkReader(repository, repository.load_index(print))
    manifest = read_manifest(repository, repository.refresh().snapshots[snapshot.snapshot_id])
    entries = list(read_tree(reader, manifest["tree"]))[:-1]
    shortened = commit_tree(repository, snapshot.snapshot_id, entries, manifest["totals"])
    with pytest.raises(CorruptionError, match="has not the files its manifest states"):
        restore_snapshot(repository, shortened, tmp_path / "target")


# -- targets ----------------------------------------------------------------------------------------------


def test_targets_that_hold_something_are_refused(
    repository: Repository, tmp_path: Path, module_tree: Path
) -> None:
    snapshot = back_up(repository, module_tree, "run-1")
    full, link, file = tmp_path / "full", tmp_path / "link", tmp_path / "file"
    full.mkdir()
    (full / "precious").write_text("do not touch")
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to("elsewhere")
    file.touch()
    for target, message in {full: "is not empty", link: "is not a folder", file: "is not a folder"}.items():
        for dry_run in (True, False):
            with pytest.raises(RestoreTargetError, match=f"{re.escape(target.name)} {message}"):
                restore_snapshot(repository, snapshot.snapshot_id, target, dry_run=dry_run)
    assert [path.name for path in full.iterdir()] == ["precious"]
    with pytest.raises(BackupNotFoundError, match="no snapshot 'gone'"):
        restore_snapshot(repository, "gone", tmp_path / "new")


def test_a_dry_run_writes_nothing(repository: Repository, tmp_path: Path, module_tree: Path) -> None:
    snapshot = back_up(repository, module_tree, "run-1")
    result = restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "a" / "target", dry_run=True)
    assert (result.dry_run, result.files, result.size_bytes) == (True, snapshot.files, snapshot.size_bytes)
    assert list(tmp_path.iterdir()) == []
