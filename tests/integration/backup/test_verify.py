"""Every kind of damage: the level that has to find it, what it hits, and what is still intact."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import (
    BackupNotFoundError,
    Progress,
    Repository,
    RestoreTargetError,
    S3Storage,
    SnapshotResult,
    VerifyResult,
    open_repository,
    restore_snapshot,
    verify_repository,
    verify_set_members,
)
from fastvlm_ops.core.backup import keys as key_slots
from fastvlm_ops.core.backup.packs import FrameGrouper, encode_pack, parse_records
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.sealing import sign_line
from fastvlm_ops.core.backup.storage import ObjectInfo
from tests.frozen_storage import FrozenStorage
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe

LEVELS: tuple[Any, ...] = ("log", "listing", "head", "share", "full")


def names(storage: S3Storage, prefix: str) -> list[str]:
    return [info.name for info in storage.list(prefix)]


def flip(storage: S3Storage, name: str, offset: int) -> None:
    data = bytearray(storage.get(name, limit_bytes=1 << 30))
    data[offset] ^= 1
    storage.put(name, bytes(data))


def verify(repository: Repository, level: Any) -> VerifyResult:
    """A fresh look, as a scheduled run has it."""
    fresh = Repository(repository.storage, repository.ring, repository.config_line)
    return verify_repository(fresh, level=level, share=(0, 1) if level == "share" else None)


def first_to_find(repository: Repository) -> str | None:
    """The lowest level that is not ok; all above it must not be either."""
    found = [level for level in LEVELS if not verify(repository, level).ok]
    assert tuple(found) == LEVELS[len(LEVELS) - len(found) :]
    return found[0] if found else None


@dataclass
class History:
    """Two snapshots; the second has one file more, in packs of its own."""

    first: SnapshotResult
    second: SnapshotResult
    folder: Path
    later_packs: list[str]

    def pack_of_the_file(self, storage: S3Storage) -> str:
        return largest(storage, self.later_packs)

    def pack_of_the_weights(self, storage: S3Storage) -> str:
        return largest(storage, [name for name in names(storage, "packs/") if name not in self.later_packs])


def largest(storage: S3Storage, packs: list[str]) -> str:
    return max(packs, key=lambda name: storage.head(name).size_bytes)


@pytest.fixture
def history(
    repository: Repository, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> History:
    monkeypatch.setattr("fastvlm_ops.core.backup.packs.PACK_BYTES", 256 << 10)
    folder = tmp_path / "source"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "a.yaml").write_text("name: a\n" * 20)
    (folder / "weights.bin").write_bytes(random.Random(1).randbytes(2 << 20))
    first = back_up(repository, folder, "run-1")
    before = set(names(storage, "packs/"))
    (folder / "later.bin").write_bytes(random.Random(2).randbytes(1 << 20))
    os.link(folder / "later.bin", folder / "later-too.bin")
    second = back_up(repository, folder, "run-2", "incremental")
    return History(first, second, folder, sorted(set(names(storage, "packs/")) - before))


# -- intact -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_an_intact_repository_is_ok(repository: Repository, history: History, level: Any) -> None:
    reports: list[Progress] = []
    result = verify_repository(
        repository, level=level, share=(0, 3) if level == "share" else None, progress=reports.append
    )
    assert result.ok
    assert (result.problems, result.snapshots, result.files) == ((), (), ())
    assert result.checked_snapshots == 2
    assert result.nearest_intact == {"models": history.second.snapshot_id}
    packs = sum(info.size_bytes for info in repository.storage.list("packs/"))
    assert (result.checked_bytes > packs) == (level != "log")
    assert (result.read_bytes > packs) == (level == "full")
    assert result.packs_without_checksum == 0
    assert " objects, " in reports[-1].line()
    assert json.loads(json.dumps(result.as_dict()))["ok"] is True
    assert len(result.text().splitlines()) == 1


def test_an_empty_repository_is_ok(repository: Repository) -> None:
    assert first_to_find(repository) is None


def test_what_makes_no_sense_is_refused(repository: Repository) -> None:
    with pytest.raises(ValueError, match="unknown level 'all'"):
        verify_repository(repository, level="all")  # type: ignore[arg-type]
    for level, share in (("share", None), ("share", (3, 3)), ("share", (-1, 3)), ("full", (0, 3))):
        with pytest.raises(ValueError, match="level"):
            verify_repository(repository, level=level, share=share)  # type: ignore[arg-type]


# -- packs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "swapped"])
def test_a_damaged_pack_hits_the_files_in_it_and_no_others(
    repository: Repository, storage: S3Storage, history: History, damage: str
) -> None:
    pack = history.pack_of_the_file(storage)
    data = storage.get(pack, limit_bytes=1 << 30)
    if damage == "missing":
        storage.delete(pack)
    elif damage == "truncated":
        storage.put(pack, data[:-1])
    elif damage == "flipped":
        flip(storage, pack, 1000)
    else:
        other = storage.get(history.pack_of_the_weights(storage), limit_bytes=1 << 30)
        storage.put(pack, (other * 4)[: len(data)])
    assert first_to_find(repository) == ("listing" if damage in ("missing", "truncated") else "head")
    result = verify(repository, "full")
    assert [(problem.object, problem.needed) for problem in result.problems] == [(pack, True)]
    assert [hit.snapshot_id for hit in result.snapshots] == [history.second.snapshot_id]
    assert result.file_count == 2
    assert {file.path for file in result.files} == {"later.bin", "later-too.bin"}
    assert result.nearest_intact == {"models": history.first.snapshot_id}
    assert f"newest intact snapshot of models: {history.first.snapshot_id}" in result.text()
    json.dumps(result.as_dict())


def test_one_flipped_frame_hits_only_the_files_in_that_frame(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    pack = history.pack_of_the_weights(storage)
    flip(storage, pack, storage.head(pack).size_bytes // 2)
    result = verify(repository, "head")
    assert {file.path for file in result.files} == {"weights.bin"}
    assert result.file_count == 2
    assert result.nearest_intact == {"models": None}


def test_a_flip_that_no_checksum_shows_is_in_one_share(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    frozen = FrozenStorage(storage)
    repository = Repository(frozen, repository.ring, repository.config_line)
    pack = history.pack_of_the_file(storage)
    data = frozen.objects[pack]
    frozen.objects[pack] = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    assert verify(repository, "head").ok
    results = [verify_repository(repository, level="share", share=(number, 4)) for number in range(4)]
    assert [result.ok for result in results].count(False) == 1
    assert sum(result.read_bytes for result in results) >= sum(
        info.size_bytes for info in frozen.list("packs/")
    )
    assert not verify(repository, "full").ok


def test_without_checksums_only_the_size_is_compared(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    class NoChecksums(FrozenStorage):
        def head(self, name: str) -> ObjectInfo:
            return replace(super().head(name), sha256=None)

    result = verify(Repository(NoChecksums(storage), repository.ring, repository.config_line), "head")
    assert result.ok
    assert result.packs_without_checksum == len(names(storage, "packs/"))
    assert "packs checked by size alone" in result.text()


def test_a_damaged_footer_hits_no_file_but_is_not_ok(
    repository: Repository, storage: S3Storage, history: History, tmp_path: Path
) -> None:
    pack = history.pack_of_the_file(storage)
    flip(storage, pack, storage.head(pack).size_bytes - 1)
    result = verify(repository, "head")
    assert not result.ok
    assert [(problem.object, problem.needed) for problem in result.problems] == [(pack, True)]
    assert result.snapshots == ()
    restore_snapshot(repository, history.second.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(history.folder)


def test_damage_counts_no_more_once_the_chunks_have_another_copy(
    repository: Repository, storage: S3Storage, history: History, tmp_path: Path
) -> None:
    packs = names(storage, "packs/")
    for pack in packs:
        flip(storage, pack, 100)
    assert not verify(repository, "full").ok
    back_up(repository, history.folder, "run-3")  # a full one heads every pack
    storage.delete(packs[0])
    for level in ("listing", "head", "full"):
        result = verify(repository, level)
        hit = {snapshot.snapshot_id for snapshot in result.snapshots}
        assert history.second.snapshot_id not in hit
        assert all(file.snapshot_id == history.first.snapshot_id for file in result.files)
    restore_snapshot(repository, history.second.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(history.folder)


def test_two_copies_are_ok(repository: Repository, storage: S3Storage, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights.bin").write_bytes(random.Random(1).randbytes(1 << 20))
    back_up(repository, tmp_path / "source", "run-1")
    packs = names(storage, "packs/")
    for pack in packs:
        flip(storage, pack, 100)
        flip(storage, pack, storage.head(pack).size_bytes - 1)
    second = back_up(repository, tmp_path / "source", "run-2")
    result = verify(repository, "full")
    assert result.ok
    assert sorted((problem.object, problem.needed) for problem in result.problems) == [
        (pack, False) for pack in packs
    ]
    assert result.nearest_intact == {"models": second.snapshot_id}
    assert "(nothing needs it)" in result.text()


@pytest.mark.parametrize("offset", [10, 100, -1, -60])
def test_a_damaged_pack_of_a_killed_run_is_told_but_ok(
    repository: Repository, storage: S3Storage, history: History, offset: int
) -> None:
    grouper = FrameGrouper()
    grouper.add(b"\1" * 32, b"never committed" * 100)
    pack = encode_pack(repository.ring, repository.repository_id, grouper.frames)
    storage.put(pack.name, pack.data)
    assert verify(repository, "listing").problems == ()
    flip(storage, pack.name, offset)
    assert first_to_find(repository) is None
    result = verify(repository, "full")
    assert [(problem.object, problem.needed) for problem in result.problems] == [(pack.name, False)]


def test_everything_lost_stays_small(repository: Repository, storage: S3Storage, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"file-{number}").write_text(f"{number}\n")
    for number in range(3):
        back_up(repository, folder, f"run-{number}", component="many")
    for pack in names(storage, "packs/"):
        storage.delete(pack)
    result = verify(repository, "full")
    assert (result.snapshot_count, result.file_count) == (3, 900)
    assert len(result.files) <= 50
    assert result.nearest_intact == {"many": None}
    assert len(json.dumps(result.as_dict())) < 30_000


def test_a_lost_list_of_ids_hits_its_file(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    """A file of more than 16 chunks names them in chunks of ids."""
    (history.folder / "large.bin").write_bytes(random.Random(3).randbytes(8 << 20))
    made = back_up(repository, history.folder, "run-3")
    index = repository.load_index(print)
    reader = ChunkReader(repository, index)
    manifest = read_manifest(repository, repository.refresh().snapshots[made.snapshot_id])
    (large,) = (entry for entry in read_tree(reader, manifest["tree"]) if entry.path == b"large.bin")
    assert large.contents.nested
    grouper = FrameGrouper()  # all but the lists, which were packed with the tree, once more
    for pack in {place.pack for chunk_id in large.contents.ids for place in index.locations(chunk_id)}:
        for each in index.packs():
            for record in parse_records(each.records if each.name == pack else b"", pack):
                if record.chunk_id not in large.contents.ids:
                    grouper.add(record.chunk_id, reader.get(record.chunk_id))
        storage.delete(pack)
    copy = encode_pack(repository.ring, repository.repository_id, grouper.frames)
    storage.put(copy.name, copy.data)
    result = verify(repository, "listing")
    assert [file.path for file in result.files] == ["large.bin"]
    assert result.nearest_intact == {"models": history.second.snapshot_id}


# -- index --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "swapped"])
def test_a_damaged_index_segment_hits_no_file_and_the_next_backup_repairs_it(
    repository: Repository, storage: S3Storage, history: History, damage: str
) -> None:
    first, *_, second = names(storage, "index/")
    if damage == "missing":
        storage.delete(first)
    elif damage == "truncated":
        storage.put(first, storage.get(first, limit_bytes=1 << 20)[:-1])
    elif damage == "flipped":
        flip(storage, first, 100)
    else:
        storage.put(first, storage.get(second, limit_bytes=1 << 20))
    assert first_to_find(repository) == "listing"
    result = verify(repository, "full")
    assert result.snapshots == ()
    named = {problem.object for problem in result.problems if problem.needed}
    assert (first in named) == (damage != "missing")
    assert any(name.startswith("packs/") for name in named)
    back_up(open_repository(storage, PASSPHRASE), history.folder, "run-3", "incremental")
    assert verify(repository, "full").ok


# -- manifests, log, configuration, keys --------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "swapped"])
def test_a_damaged_manifest_hits_its_snapshot(
    repository: Repository, storage: S3Storage, history: History, damage: str
) -> None:
    old, new = (f"snapshots/models/{made.snapshot_id}" for made in (history.first, history.second))
    if damage == "missing":
        storage.delete(new)
    elif damage == "truncated":
        storage.put(new, storage.get(new, limit_bytes=1 << 20)[:-1])
    elif damage == "flipped":
        flip(storage, new, 100)
    else:
        storage.put(new, storage.get(old, limit_bytes=1 << 20))
    assert first_to_find(repository) == "log"
    result = verify(repository, "full")
    assert [problem.object for problem in result.problems] == [new]
    assert [hit.snapshot_id for hit in result.snapshots] == [history.second.snapshot_id]
    assert result.nearest_intact == {"models": history.first.snapshot_id}


def test_a_damaged_manifest_that_no_entry_names_is_told_but_ok(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    name = "snapshots/models/left-by-a-killed-run"
    storage.put(name, repository.seal("M", name, b"{}"))
    assert verify(repository, "full").problems == ()
    flip(storage, name, 70)
    result = verify(repository, "full")
    assert result.ok
    assert [(problem.object, problem.needed) for problem in result.problems] == [(name, False)]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "swapped", "foreign"])
def test_a_damaged_log_is_found_and_read_on(
    repository: Repository, storage: S3Storage, history: History, damage: str
) -> None:
    first, second = names(storage, "log/")
    named = first
    if damage == "missing":
        storage.delete(first)
    elif damage == "truncated":
        storage.put(first, storage.get(first, limit_bytes=1 << 20)[:-1])
    elif damage == "flipped":
        flip(storage, first, 100)
    elif damage == "swapped":
        storage.put(first, storage.get(second, limit_bytes=1 << 20))
    else:
        named = "log/note.txt"
        storage.put(named, b"not ours")
    assert first_to_find(repository) == "log"
    result = verify(repository, "log")
    assert [problem.object for problem in result.problems] == [named]
    assert result.nearest_intact == {"models": None}
    assert f"cannot be opened: {named} is damaged" in result.snapshots[-1].what


def test_a_log_that_lost_its_end_is_found_by_who_knew_it(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    storage.delete(names(storage, "log/")[-1])
    result = verify_repository(repository, level="log")
    assert "opened with a log of 2 entries" in result.problems[0].what


def test_damage_before_the_newest_checkpoint_blocks_nothing(
    repository: Repository, storage: S3Storage, history: History, tmp_path: Path
) -> None:
    for _ in range(100):
        repository.log.append("drill", {"sets": [], "level": "", "result": "", "report": ""})
    assert verify(repository, "full").ok
    flip(storage, "log/00000000000000000002.json", 100)
    result = verify(repository, "full")
    assert not result.ok
    assert [problem.object for problem in result.problems] == ["log/00000000000000000002.json"]
    assert result.nearest_intact == {"models": history.second.snapshot_id}
    restore_snapshot(open_repository(storage, PASSPHRASE), history.second.snapshot_id, tmp_path / "target")


def test_a_checkpoint_that_drops_a_snapshot_is_found(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    """Whoever holds the key can write it; only folding from the first entry shows it."""
    for _ in range(97):
        repository.log.append("drill", {"sets": [], "level": "", "result": "", "report": ""})
    state = repository.log.state
    body = json.loads(json.dumps(state.checkpoint()))
    del body["snapshots"][history.first.snapshot_id]
    entry = {"seq": 100, "prev": state.digest, "type": "checkpoint", "nonce": "", "time": "", "body": body}
    storage.claim("log/00000000000000000100.json", sign_line(entry, repository.ring.log_key))
    result = verify(repository, "log")
    assert "does not say what the entries before it amount to" in result.problems[0].what


def test_a_damaged_configuration_blocks_everything(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    flip(storage, "config.json", 200)
    result = verify(repository, "log")
    assert [problem.object for problem in result.problems] == ["config.json"]
    assert result.snapshot_count == 2
    storage.delete("config.json")
    assert verify(repository, "log").problems[0].what.endswith("does not exist")


def test_a_damaged_key_slot_is_found_without_its_passphrase(
    repository: Repository, storage: S3Storage, history: History
) -> None:
    slot = key_slots.write_slot(storage, repository.repository_id, repository.ring, "of another")
    (first,) = (name for name in names(storage, "keys/") if slot not in name)
    second = f"keys/{repository.repository_id}/{slot}.json"
    whole = storage.get(second, limit_bytes=1 << 20)
    assert verify(repository, "log").ok
    storage.put(second, whole.replace(b'"created": "2', b'"created": "3'))
    result = verify(repository, "log")
    assert [problem.object for problem in result.problems] == [second]
    assert (result.ok, result.snapshots) == (False, ())
    storage.put(second, storage.get(first, limit_bytes=1 << 20))
    assert verify(repository, "log").problems[0].what.startswith(f"{second} holds slot ")
    storage.put(first, b"{}")
    assert verify(repository, "log").snapshot_count == 2  # no slot is left
    storage.delete(first)
    storage.delete(second)
    assert verify(repository, "log").problems[0].what == "there is no key slot"


# -- the members of a set -----------------------------------------------------------------------------


def members(repository: Repository, scratch: Path, *made: SnapshotResult, seed: int = 1) -> VerifyResult:
    result = verify_set_members(
        Repository(repository.storage, repository.ring, repository.config_line),
        [snapshot.snapshot_id for snapshot in made],
        scratch_dir=scratch,
        choose=random.Random(seed),
    )
    assert not scratch.exists() or list(scratch.iterdir()) == []
    return result


def test_members_are_checked_and_a_file_of_each_is_restored(
    repository: Repository, history: History, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "empty").touch()
    (tmp_path / "other" / "one").write_text("the only one that is not empty")
    other = back_up(repository, tmp_path / "other", "run-2", component="other")
    paths = set()
    for seed in range(12):
        result = members(repository, tmp_path / "scratch", history.second, other, seed=seed)
        assert result.ok
        assert result.level == "members"
        assert result.nearest_intact == {"models": history.second.snapshot_id, "other": other.snapshot_id}
        first, second = result.sampled
        assert (second.path, second.snapshot_id) == ("one", other.snapshot_id)
        paths.add(first.path)
    assert paths == {"configs/a.yaml", "later-too.bin", "weights.bin"}  # later.bin is a hard link of its
    json.dumps(result.as_dict())


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_members_with_a_damaged_pack_are_not_ok(
    repository: Repository, storage: S3Storage, history: History, tmp_path: Path, damage: str
) -> None:
    pack = history.pack_of_the_file(storage)
    if damage == "missing":
        storage.delete(pack)
    elif damage == "truncated":
        storage.put(pack, storage.get(pack, limit_bytes=1 << 30)[:-1])
    else:
        flip(storage, pack, 1000)
    result = members(repository, tmp_path / "scratch", history.second)
    assert not result.ok
    assert [problem.object for problem in result.problems] == [pack]
    assert result.file_count == 2
    assert result.nearest_intact == {"models": history.first.snapshot_id}
    assert members(repository, tmp_path / "scratch", history.first).ok  # does not need that pack


def test_a_damaged_manifest_of_a_member(
    repository: Repository, storage: S3Storage, history: History, tmp_path: Path
) -> None:
    flip(storage, f"snapshots/models/{history.second.snapshot_id}", 100)
    result = members(repository, tmp_path / "scratch", history.second)
    assert not result.ok
    assert result.nearest_intact == {"models": history.first.snapshot_id}
    flip(storage, names(storage, "log/")[0], 50)
    known = verify_set_members(
        repository, [history.second.snapshot_id], scratch_dir=tmp_path / "scratch"
    )  # it has read the log before
    assert not known.ok


def test_the_restored_file_shows_what_no_checksum_does(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one").write_bytes(random.Random(1).randbytes(1 << 20))
    made = back_up(repository, tmp_path / "source", "run-1")
    frozen = FrozenStorage(storage)
    pack = max(frozen.list("packs/"), key=lambda info: info.size_bytes).name
    data = frozen.objects[pack]
    frozen.objects[pack] = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    result = members(Repository(frozen, repository.ring, repository.config_line), tmp_path / "scratch", made)
    assert not result.ok
    assert [problem.object for problem in result.problems] == [pack]
    assert [file.path for file in result.files] == ["one"]
    assert result.sampled == ()


def test_unknown_members_and_unusable_scratch(
    repository: Repository, history: History, tmp_path: Path
) -> None:
    with pytest.raises(BackupNotFoundError, match="no snapshot 'gone'"):
        verify_set_members(repository, ["gone"], scratch_dir=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RestoreTargetError, match="cannot be used for a trial restore"):
        verify_set_members(repository, [history.first.snapshot_id], scratch_dir=tmp_path / "file")
