"""A bucket written by somebody who has the key and means harm: names, sizes and lengths that lie."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from fastvlm_ops.core.backup import (
    CorruptionError,
    Repository,
    S3Storage,
    list_sets,
    packs,
    restore_snapshot,
    select_set,
    verify_repository,
)
from fastvlm_ops.core.backup.packs import STORED, ZSTD, FrameGrouper, encode_pack
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.tree import Entry, IdList
from tests.integration.backup.conftest import back_up
from tests.integration.backup.test_damage import commit_tree
from tests.trees import describe, make_plain_tree

MARK = b"these lie"
BOMB_BYTES = 1 << 28


def fresh(repository: Repository) -> Repository:
    return Repository(repository.storage, repository.ring, repository.config_line)


def entries_of(repository: Repository, snapshot_id: str) -> tuple[list[Entry], dict[str, int]]:
    """Entries and totals of a snapshot."""
    reader = ChunkReader(repository, repository.load_index(print))
    manifest = read_manifest(repository, repository.refresh().snapshots[snapshot_id])
    return list(read_tree(reader, manifest["tree"])), manifest["totals"]


def store(repository: Repository, *chunks: bytes) -> list[bytes]:
    """Put chunks into a pack of their own; returns their ids."""
    grouper = FrameGrouper()
    ids = [blake3(chunk, key=repository.ring.chunk_id_key).digest() for chunk in chunks]
    for chunk_id, chunk in zip(ids, chunks, strict=True):
        grouper.add(chunk_id, chunk)
    pack = encode_pack(repository.ring, repository.repository_id, grouper.frames)
    repository.storage.put(pack.name, pack.data)
    return ids


# -- names from the log -----------------------------------------------------------------------------------

OUTSIDE = ["../outside", "a/../../outside", "/outside", "..", ".", "", "a\0b", "a\nb", "x" * 300]


@pytest.fixture
def committed(repository: Repository, tmp_path: Path) -> tuple[Repository, dict[str, Any]]:
    """A repository and the body of its one snapshot."""
    made = back_up(repository, make_plain_tree(tmp_path / "source", files=3, large_bytes=1000), "run-1")
    return repository, repository.refresh().snapshots[made.snapshot_id]


def test_a_component_or_set_that_leads_elsewhere_is_refused_before_it_names_a_folder(
    committed: tuple[Repository, dict[str, Any]],
) -> None:
    repository, body = committed
    about = {"kind": "full", "run_key": "run-2", "timestamp": datetime.now(UTC).isoformat()}
    for name in OUTSIDE:
        repository.log.append("snapshot", {**body, "snapshot_id": "s", "component": name, "run_key": "run-2"})
        for set_id, snapshots in (("set", {name: "s"}), (name, {"models": "s"})):
            repository.log.append("backup-set", {"set_id": set_id, "snapshots": snapshots, **about})
            for look in (list_sets, lambda opened: select_set(opened, "latest")):
                with pytest.raises(CorruptionError, match=r"has an (unsafe|impossible) name"):
                    look(fresh(repository))
            repository.log.append("forget", {"snapshots": [], "sets": [set_id]})
    assert list_sets(fresh(repository)) == []


def test_a_snapshot_id_that_leads_elsewhere_is_refused_before_it_names_a_file(
    committed: tuple[Repository, dict[str, Any]], tmp_path: Path
) -> None:
    """Temporary files have it in their names."""
    repository, body = committed
    for name in OUTSIDE:
        repository.log.append("snapshot", {**body, "snapshot_id": name, "run_key": "run-2"})
        with pytest.raises(CorruptionError, match=r"a snapshot has an (unsafe|impossible) name"):
            restore_snapshot(fresh(repository), name, tmp_path / "inner" / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# -- frames that lie --------------------------------------------------------------------------------------

Encoded = tuple[bytes, int, int]


def zstd(size_bytes: int, *, states: bool = True) -> bytes:
    """So many zeros, packed, without ever holding them."""
    stream = zstandard.ZstdCompressor(write_content_size=states).compressobj(size=size_bytes)
    piece = bytes(1 << 20)
    parts = [
        stream.compress(piece[: min(len(piece), size_bytes - at)]) for at in range(0, size_bytes, 1 << 20)
    ]
    return b"".join([*parts, stream.flush()])


LIES: dict[str, tuple[Callable[[bytes], Encoded], str]] = {
    "a bomb that says what it is": (
        lambda raw: (zstd(BOMB_BYTES), ZSTD, 1),
        rf"states {BOMB_BYTES} bytes; at most",
    ),
    "a bomb that does not": (
        lambda raw: (zstd(BOMB_BYTES, states=False), ZSTD, 1),
        r"states -?\d+ bytes; at most|cannot be decompressed",
    ),
    "one byte more": (lambda raw: (zstd(len(raw) + 1), ZSTD, 1), r"states \d+ bytes; at most"),
    "one byte less": (lambda raw: (zstd(len(raw) - 1), ZSTD, 1), r"has \d+ bytes, not \d+"),
    "stored, but longer": (lambda raw: (raw + b"more", STORED, 1), r"has \d+ bytes, not \d+"),
    "stored, but shorter": (lambda raw: (raw[:-1], STORED, 1), r"has \d+ bytes, not \d+"),
    "nothing": (lambda raw: (b"", STORED, 1), r"has 0 bytes, not \d+"),
    "no zstd": (lambda raw: (raw, ZSTD, 1), r"cannot be decompressed|states -?\d+ bytes"),
    "an unknown codec": (lambda raw: (raw, 9, 1), "unknown codec 9"),
    "an unknown stride": (lambda raw: (raw, STORED, 3), "unknown stride 3"),
    "other contents": (lambda raw: (zstd(len(raw)), ZSTD, 1), "does not have its contents"),
}


def test_a_frame_that_lies_is_refused_and_leaves_no_file(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pack is authentic: made and named as it should be, but for what it says of itself."""
    tree = make_plain_tree(tmp_path / "source", files=3, large_bytes=1_200_000)
    for number in range(len(LIES)):
        (tree / f"lie-{number}.bin").write_bytes(MARK + bytes([number]) + os.urandom(100_000))
    makers = [make for make, _ in LIES.values()]
    encode = packs._encode_frame

    def lie(raw: bytes, compressor: Any) -> Encoded:
        return makers[raw[len(MARK)]](raw) if raw.startswith(MARK) else encode(raw, compressor)

    with monkeypatch.context() as patch:
        patch.setattr(packs, "_encode_frame", lie)
        made = back_up(repository, tree, "run-1")
    for number, (name, (_, message)) in enumerate(LIES.items()):
        target, file = tmp_path / f"target-{number}", f"lie-{number}.bin"
        with pytest.raises(CorruptionError, match=rf"{file} cannot be restored: .*({message})"):
            restore_snapshot(fresh(repository), made.snapshot_id, target, paths=[file])
        assert [path.name for path in target.iterdir()] == [], name
    found = verify_repository(fresh(repository), level="full")
    assert {file.path for file in found.files} == {f"lie-{number}.bin" for number in range(len(LIES))}
    restore_snapshot(fresh(repository), made.snapshot_id, tmp_path / "target", paths=["model.mlpackage"])
    weights = Path("model.mlpackage") / "weight.bin"
    assert (tmp_path / "target" / weights).read_bytes() == (tree / weights).read_bytes()


def test_a_manifest_that_is_a_bomb_is_not_unpacked(
    committed: tuple[Repository, dict[str, Any]], tmp_path: Path
) -> None:
    repository, body = committed
    name = "snapshots/models/bomb"
    sealed = repository.seal("M", name, bytes(BOMB_BYTES))
    assert len(sealed) < 1 << 20
    repository.storage.put(name, sealed)
    digest = hashlib.sha256(sealed).hexdigest()
    bomb = {**body, "snapshot_id": "bomb", "manifest": name, "sha256": digest, "run_key": "run-2"}
    repository.log.append("snapshot", bomb)
    with pytest.raises(CorruptionError, match=rf"bomb states {BOMB_BYTES} bytes; at most"):
        restore_snapshot(fresh(repository), "bomb", tmp_path / "target")
    found = verify_repository(fresh(repository), level="log")
    assert [hit.snapshot_id for hit in found.snapshots] == ["bomb"]
    assert found.nearest_intact == {"models": body["snapshot_id"]}


def test_an_index_that_is_a_bomb_is_left_aside(
    committed: tuple[Repository, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a segment is a lower one here, so that the test is quick."""
    monkeypatch.setattr("fastvlm_ops.core.backup.index._SEGMENT_LIMIT_BYTES", 1 << 20)
    repository, body = committed
    name = f"index/models/{body['snapshot_id']}/99999"
    repository.storage.put(name, repository.seal("I", name, bytes(BOMB_BYTES)))
    restored = restore_snapshot(fresh(repository), body["snapshot_id"], tmp_path / "target")
    assert any(name in warning and f"states {BOMB_BYTES} bytes" in warning for warning in restored.warnings)
    assert describe(tmp_path / "target") == describe(tmp_path / "source")


# -- lists that do not end --------------------------------------------------------------------------------


def hostile_file(repository: Repository, snapshot_id: str, size: int, contents: IdList) -> str:
    """A snapshot whose last file has these contents."""
    entries, totals = entries_of(repository, snapshot_id)
    files = {**totals, "size_bytes": totals["size_bytes"] - entries[-1].size + size}
    changed = replace(entries[-1], size=size, contents=contents, line=None)
    return commit_tree(repository, snapshot_id, [*entries[:-1], changed], files)


@pytest.mark.parametrize("size", [1000, 1 << 60])
def test_a_list_of_lists_of_one_chunk_is_not_followed_to_its_end(
    committed: tuple[Repository, dict[str, Any]], tmp_path: Path, size: int
) -> None:
    """A hundred million ids in one line of the tree."""
    repository, body = committed
    (tiny,) = store(repository, b"x")
    (listing,) = store(repository, tiny * 1024)
    hostile = hostile_file(repository, body["snapshot_id"], size, IdList((listing,) * 100_000, nested=True))
    with pytest.raises(CorruptionError, match=rf"states {size} bytes, its chunks have"):
        restore_snapshot(fresh(repository), hostile, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_file_in_single_bytes_is_refused(
    committed: tuple[Repository, dict[str, Any]], tmp_path: Path
) -> None:
    """As many ids as bytes would take fifty times its size in memory."""
    repository, body = committed
    (tiny,) = store(repository, b"x")
    hostile = hostile_file(repository, body["snapshot_id"], 50_000, IdList((tiny,) * 50_000))
    with pytest.raises(CorruptionError, match=r"states 50000 bytes, its chunks have \d+ in \d+"):
        restore_snapshot(fresh(repository), hostile, tmp_path / "target")


def test_an_empty_chunk_is_no_chunk(
    committed: tuple[Repository, dict[str, Any]], storage: S3Storage, tmp_path: Path
) -> None:
    """A file of any number of them would state no bytes at all."""
    repository, body = committed
    before = {info.name for info in storage.list("packs/")}
    (nothing,) = store(repository, b"")
    (pack,) = {info.name for info in storage.list("packs/")} - before
    warned: list[str] = []
    repository = fresh(repository)
    repository.refresh()
    index = repository.load_index(warned.append)
    assert index.find(nothing) is None
    assert re.search(rf"{pack}.* impossible sizes", "\n".join(warned))
    restore_snapshot(repository, body["snapshot_id"], tmp_path / "target")
