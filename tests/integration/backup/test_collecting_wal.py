"""Collections where WAL lies beside the packs: what recovery needs stays, also of a base under way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    create_snapshot,
    open_repository,
    verify_repository,
)
from fastvlm_ops.core.backup.collecting import plan_collection
from fastvlm_ops.core.backup.errors import SourceError, StorageError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.wal_names import object_name
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.postgresql.window import prove_window
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.sources import SourceView
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import AT_ONCE, forget_snapshots, gather, names, unfinished, write_files
from tests.integration.backup.test_wal_window import NOON, put, put_history
from tests.wal_kit import MIB, SYSTEM_ID, BaseBackup, add_base, evidence_of_base

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.integration

COMPONENT = "database"


@pytest.fixture
def store(repository: Repository) -> WalStore:
    return WalStore(repository, COMPONENT)


def numbers(storage: S3Storage, timeline: int = 1) -> list[int]:
    """Numbers of the segments that are stored, of a timeline."""
    prefix = f"wal/{COMPONENT}/{SYSTEM_ID}/{timeline:08X}/"
    found = (name[-24:] for name in names(storage, prefix) if not name.endswith(".history"))
    return sorted(Segment.parse(name, MIB).number for name in found)


def base(store: WalStore, folder: Path, number: int, *, timeline: int = 1) -> str:
    """A base backup that starts in a segment."""
    return add_base(
        store.repository,
        folder / f"base-{timeline}-{number}",
        f"run-{timeline}-{number}",
        start_lsn=number * MIB + 40,
        timeline=timeline,
        stopped_at=NOON,
    )


class SlowBase(BaseBackup):
    """A base backup that something comes in between of: what, and where it starts, is by the attempt."""

    def __init__(self, path: Path, starts: list[int], meanwhile: Callable[[], object]) -> None:
        super().__init__(path, {})
        write_files(path, [("relation", 1000)])  # of its own, so that only its WAL can go
        self._starts = iter(starts)
        self._meanwhile = meanwhile
        self.attempts = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[SourceView]:
        self.attempts += 1
        self._evidence: Mapping[str, Any] = evidence_of_base(start_lsn=next(self._starts) * MIB)
        with super().open() as view:
            yield view
            self._meanwhile()


def test_wal_before_the_oldest_base_goes_and_the_window_stays(
    store: WalStore, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    put(store, tmp_path, range(3, 12))
    put_history(store, tmp_path, 2, "1\t0/C80000\tno recovery target specified\n")
    first, second = base(store, tmp_path, 4), base(store, tmp_path, 8)
    assert gather(repository, "collect-0").deleted_objects == 1, "what is before both bases"
    assert prove_window(repository, COMPONENT).segments == 8

    forget_snapshots(repository, first)
    plan = plan_collection(repository, **AT_ONCE)
    assert [Segment.parse(name[-24:], MIB).number for name in plan.wal] == [4, 5, 6, 7]
    assert numbers(storage) == [*range(4, 12)], "a plan removes nothing"
    sizes = {info.name: info.size_bytes for info in storage.list("")}
    result = gather(repository, "collect-1")
    gone = sizes.keys() - {info.name for info in storage.list("")}
    assert gone >= set(plan.wal)
    assert result.deleted_bytes == sum(sizes[name] for name in gone)
    assert numbers(storage) == [8, 9, 10, 11]
    assert len([name for name in names(storage, "wal/") if name.endswith(".history")]) == 1

    opened = open_repository(storage, PASSPHRASE, chunks=True)
    window = prove_window(opened, COMPONENT)
    assert [found.snapshot_id for found in window.bases] == [second]
    assert (window.segments, window.until_lsn) == (4, 12 * MIB)
    assert verify_repository(opened, level="full").ok
    assert gather(opened, "collect-2").deleted_objects == 0


def test_what_a_dead_collector_had_condemned_goes_with_the_next(
    store: WalStore,
    repository: Repository,
    storage: S3Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(store, tmp_path, range(3, 8))
    base(store, tmp_path, 6)
    remove = storage.remove

    def dies_at_five(name: str) -> Any:
        if name.endswith(Segment(1, 5, MIB).name):
            raise StorageError("the connection is gone")
        return remove(name)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", dies_at_five)
        with pytest.raises(StorageError, match="the connection is gone"):
            gather(repository, "collect-1")
    assert 5 in numbers(storage)
    opened = open_repository(storage, PASSPHRASE, chunks=True)
    assert len(unfinished(opened)) == 1
    assert gather(opened, "collect-2").deleted_objects >= 1
    assert numbers(storage) == [6, 7]
    assert unfinished(opened) == []


def test_a_base_whose_wal_went_while_it_was_taken_is_taken_again(
    store: WalStore, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """It began first, and is committed last: all that pruning knew were an old base and a younger one."""
    put(store, tmp_path, range(3, 12))
    old = base(store, tmp_path, 3)
    beside = open_repository(storage, PASSPHRASE, chunks=True)
    others = WalStore(beside, COMPONENT)

    def meanwhile() -> None:
        if slow.attempts == 1:
            base(others, tmp_path, 8)
            forget_snapshots(beside, old)
            gather(beside, "collect-1")
            assert numbers(storage) == [8, 9, 10, 11]

    slow = SlowBase(tmp_path / "slow", [5, 10], meanwhile)
    made = create_snapshot(repository, slow, component=COMPONENT, kind="full", run_key="slow")
    assert slow.attempts == 2
    record = repository.refresh().snapshots[made.snapshot_id]
    assert read_manifest(repository, record)["evidence"]["postgresql"]["start_lsn"] == format_lsn(10 * MIB)
    assert {found.is_usable for found in prove_window(repository, COMPONENT).bases} == {True}


def test_a_base_that_is_overtaken_each_time_fails_and_says_why(
    store: WalStore, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    put(store, tmp_path, range(3, 20))
    bases = [base(store, tmp_path, 3)]
    beside = open_repository(storage, PASSPHRASE, chunks=True)
    others = WalStore(beside, COMPONENT)

    def meanwhile() -> None:
        bases.append(base(others, tmp_path, 4 * slow.attempts + 3))
        forget_snapshots(beside, bases[-2])
        gather(beside, f"collect-{slow.attempts}")

    slow = SlowBase(tmp_path / "slow", [4, 8, 12], meanwhile)
    with pytest.raises(SourceError, match="pruning removed data this backup refers to, 3 times"):
        create_snapshot(repository, slow, component=COMPONENT, kind="full", run_key="slow")
    assert len(repository.refresh().snapshots) == 1


def test_wal_that_went_on_another_timeline_or_before_does_not_stop_a_base(
    store: WalStore, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """A server that was recovered to an earlier place writes lower places once more, on its new timeline."""
    put(store, tmp_path, range(3, 12))
    base(store, tmp_path, 10)
    assert gather(repository, "collect-1").deleted_objects == 7
    put(store, tmp_path, range(6, 9), timeline=2)
    put_history(store, tmp_path, 2, "1\t0/680000\tno recovery target specified\n")
    assert gather(repository, "collect-2").deleted_objects == 0, "a base of the new timeline may be under way"
    taken = base(store, tmp_path, 6, timeline=2)
    assert taken in {found.snapshot_id for found in prove_window(repository, COMPONENT).bases}
    put(store, tmp_path, range(9, 12), timeline=2)
    base(store, tmp_path, 9, timeline=2)
    forget_snapshots(repository, taken)
    gather(repository, "collect-3")
    assert numbers(storage, 2) == [9, 10, 11]
    missing = object_name(COMPONENT, SYSTEM_ID, Segment(2, 6, MIB))
    assert missing in repository.refresh().condemned_names("wal")
