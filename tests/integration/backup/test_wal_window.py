"""WAL in a real bucket: stored once, its window proven, and what may be pruned. The segments are made."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import S3Storage, initialise_repository
from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.wal_names import History, object_name
from fastvlm_ops.core.backup.postgresql.wal_pruning import removable_wal
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.postgresql.window import prove_window
from tests.wal_kit import MIB, SYSTEM_ID, add_base, commit_record, make_segment

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Repository
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
COUNTER = itertools.count()
OTHER = "7999999999999999999"


@pytest.fixture(scope="module")
def repository(seaweedfs: SeaweedFS) -> Repository:
    """One for all tests here, each of which has a component of its own."""
    client = seaweedfs.client()
    client.create_bucket(Bucket="wal-window")
    return initialise_repository(S3Storage(client, "wal-window", "some/prefix"), "a passphrase")


@pytest.fixture
def store(repository: Repository) -> WalStore:
    return WalStore(repository, f"database_{next(COUNTER)}")


def base(store: WalStore, folder: Path, name: str, **evidence: Any) -> str:
    return add_base(
        store.repository, folder / name, f"{store.component}/{name}", component=store.component, **evidence
    )


def put(
    store: WalStore,
    folder: Path,
    numbers: range | list[int],
    *,
    timeline: int = 1,
    system_id: str = SYSTEM_ID,
    salt: int = 0,
) -> None:
    """Store segments; in each, a transaction ended in the minute that is its number."""
    for number in numbers:
        segment = Segment(timeline, number, MIB)
        record = commit_record(NOON + timedelta(minutes=number), 1000 + number + salt)
        path = folder / segment.name
        path.write_bytes(make_segment(segment, system_id, records=(record,)))
        store.put_segment(path, system_id=system_id, segment=segment, closed_at=NOON)


def put_history(store: WalStore, folder: Path, timeline: int, text: str) -> None:
    path = folder / History(timeline).name
    path.write_text(text)
    store.put_history(path, system_id=SYSTEM_ID, timeline=timeline)


def remove(store: WalStore, number: int, timeline: int = 1) -> None:
    storage = store.repository.storage
    name = object_name(store.component, SYSTEM_ID, Segment(timeline, number, MIB))
    storage.client.delete_object(Bucket=storage.bucket, Key=storage.prefix + name)


def minute(number: int) -> datetime:
    return NOON + timedelta(minutes=number)


def test_a_segment_is_stored_once_and_comes_back(store: WalStore, tmp_path: Path):
    segment = Segment(1, 5, MIB)
    path = tmp_path / segment.name
    path.write_bytes(make_segment(segment, records=(commit_record(NOON, 7),)))
    arguments = {"system_id": SYSTEM_ID, "segment": segment, "closed_at": NOON}
    assert store.put_segment(path, **arguments)
    assert not store.put_segment(path, **arguments)
    into = tmp_path / "into"
    into.mkdir()
    header = store.fetch(segment, SYSTEM_ID, into)
    assert (into / segment.name).read_bytes() == path.read_bytes()
    assert [found.name for found in into.iterdir()] == [segment.name]
    assert (header.file, header.closed_at, header.last_transaction_at) == (segment.name, NOON, NOON)
    (stored,) = store.segments(SYSTEM_ID)
    assert (stored.segment, stored.name) == (
        segment,
        f"wal/{store.component}/{SYSTEM_ID}/00000001/{segment.name}",
    )
    assert stored.size_bytes < 10_000


def test_other_bytes_under_a_name_are_refused(store: WalStore, tmp_path: Path):
    put(store, tmp_path, [5])
    with pytest.raises(CorruptionError, match="in the bucket with other bytes"):
        put(store, tmp_path, [5], salt=1)
    with pytest.raises(CorruptionError, match="WAL of system"):
        store.put_segment(
            tmp_path / Segment(1, 5, MIB).name,
            system_id=OTHER,
            segment=Segment(1, 5, MIB),
            closed_at=NOON,
        )


def test_what_is_under_anothers_name_or_damaged_is_not_written(store: WalStore, tmp_path: Path):
    put(store, tmp_path, [5, 6])
    storage, names = store.repository.storage, [stored.name for stored in store.segments(SYSTEM_ID, MIB)]
    five = storage.get(names[0], limit_bytes=MIB)
    into = tmp_path / "into"
    into.mkdir()
    for data in (storage.get(names[1], limit_bytes=MIB), five[:-1], five[:100], b"", bytes([0]) + five[1:]):
        storage.put(names[0], data)
        with pytest.raises(CorruptionError, match=Segment(1, 5, MIB).name):
            store.fetch(Segment(1, 5, MIB), SYSTEM_ID, into)
    with pytest.raises(CorruptionError, match="does not exist"):
        store.fetch(Segment(1, 7, MIB), SYSTEM_ID, into)
    assert not list(into.iterdir())


def test_names_that_are_none_of_ours_are_nothing(store: WalStore, tmp_path: Path):
    put(store, tmp_path, [5])
    storage = store.repository.storage
    for name in ("x", "0/1/2", f"{SYSTEM_ID}/00000001/zz", f"{SYSTEM_ID}/00000002/{Segment(1, 6, MIB).name}"):
        storage.put(f"wal/{store.component}/{name}", b"?")
    assert list(store.systems()) == [SYSTEM_ID]
    assert [stored.segment.number for stored in store.segments(SYSTEM_ID)] == [5]


def test_the_window_of_two_bases(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(3, 9))
    for name, start, at in (("one", 3, 3), ("two", 6, 6)):
        base(store, tmp_path, name, start_lsn=start * MIB + 40, stopped_at=minute(at))
    window = prove_window(store.repository, store.component)
    assert (window.system_id, window.timeline, window.gap, window.notes) == (SYSTEM_ID, 1, None, ())
    assert (window.recoverable_from, window.from_lsn) == (minute(3), 3 * MIB + 296)
    assert window.until_lsn == 9 * MIB
    assert window.recoverable_until == minute(8) - timedelta(microseconds=1)
    assert window.last is not None
    assert window.last.transaction_id == 1008
    assert (window.segments, len(window.bases)) == (6, 2)
    assert all(base.is_usable for base in window.bases)


def test_nothing_is_known_without_a_base_or_its_wal(store: WalStore, tmp_path: Path):
    window = prove_window(store.repository, store.component)
    assert (window.system_id, window.recoverable_until, window.segments) == (None, None, 0)
    put(store, tmp_path, [3])
    window = prove_window(store.repository, store.component)
    assert (window.system_id, window.recoverable_until, window.segments) == (SYSTEM_ID, None, 1)
    assert "no base backup" in window.notes[0]
    base(store, tmp_path, "one", start_lsn=4 * MIB, stopped_at=minute(4))
    window = prove_window(store.repository, store.component)
    assert (window.recoverable_until, window.gap) == (None, None)  # its segment is not finished
    put(store, tmp_path, [4])
    window = prove_window(store.repository, store.component)
    # Nothing ended after the base's own end, so that its end is all there is.
    assert window.recoverable_from == window.recoverable_until == minute(4)


def test_a_gap_is_named_with_what_it_cuts_off(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(3, 12))
    old = base(store, tmp_path, "old", start_lsn=3 * MIB + 40, stopped_at=minute(3))
    remove(store, 5)
    remove(store, 6)
    broken = prove_window(store.repository, store.component)
    assert broken.is_broken
    assert broken.recoverable_from == minute(3)
    assert broken.recoverable_until == minute(4) - timedelta(microseconds=1)
    assert broken.gap is not None
    assert broken.gap.startswith(
        "2 segments are missing, from 000000010000000000000005 to 000000010000000000000006"
        " (LSN 0/500000 to 0/700000; the one before is of 20"
    )
    assert old in broken.gap
    base(store, tmp_path, "new", start_lsn=8 * MIB + 40, stopped_at=minute(8))
    mended = prove_window(store.repository, store.component)
    assert mended.gap is not None
    assert not mended.is_broken
    assert (mended.recoverable_from, mended.until_lsn) == (minute(8), 12 * MIB)


def test_a_base_whose_first_segment_is_missing_is_cut_off(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(4, 7))
    base(store, tmp_path, "one", start_lsn=3 * MIB + 40)
    window = prove_window(store.repository, store.component)
    assert window.is_broken
    assert "000000010000000000000003 is missing" in str(window.gap)


def test_a_promotion_is_followed_by_its_history(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(3, 9))  # up to 8: the old primary went on for a while
    base(store, tmp_path, "one", start_lsn=3 * MIB + 40, stopped_at=minute(3))
    put(store, tmp_path, range(6, 10), timeline=2)
    window = prove_window(store.repository, store.component)
    assert (window.timeline, window.until_lsn) == (1, 9 * MIB)
    assert "timeline 2 is not followed: its history 00000002.history is not stored" in window.notes
    put_history(store, tmp_path, 2, "1\t0/680000\tno recovery target specified\n")
    window = prove_window(store.repository, store.component)
    assert (window.timeline, window.until_lsn, window.gap) == (2, 10 * MIB, None)
    assert not any("timeline 2" in note for note in window.notes)
    remove(store, 6, timeline=2)  # timeline 1 has a segment 6 too, which ends too early
    assert "000000020000000000000006 is missing" in str(prove_window(store.repository, store.component).gap)


def test_a_base_on_a_timeline_that_was_left_is_named(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(3, 9))
    base(store, tmp_path, "stray", start_lsn=7 * MIB + 40)
    put(store, tmp_path, range(6, 10), timeline=2)
    put_history(store, tmp_path, 2, "1\t0/680000\tno recovery target specified\n")
    base(store, tmp_path, "new", start_lsn=8 * MIB, timeline=2, stopped_at=minute(8))
    window = prove_window(store.repository, store.component)
    assert (window.timeline, window.recoverable_from) == (2, minute(8))
    assert any("from which no way leads to timeline 2" in note for note in window.notes)


def test_another_system_is_named_and_not_mixed(store: WalStore, tmp_path: Path):
    put(store, tmp_path, range(3, 6))
    base(store, tmp_path, "one", start_lsn=3 * MIB, stopped_at=minute(3))
    put(store, tmp_path, range(6, 9), system_id=OTHER)
    window = prove_window(store.repository, store.component)
    assert (window.system_id, window.until_lsn, window.segments) == (SYSTEM_ID, 6 * MIB, 3)
    assert OTHER in window.notes[0]
    base(
        store,
        tmp_path,
        "two",
        start_lsn=6 * MIB,
        system_id=OTHER,
        stopped_at=minute(6),
    )
    window = prove_window(store.repository, store.component)
    assert (window.system_id, window.recoverable_from) == (OTHER, minute(6))
    assert SYSTEM_ID in window.notes[0]


def test_wal_before_the_oldest_kept_base_may_go(store: WalStore, tmp_path: Path):
    repository = store.repository
    put(store, tmp_path, range(3, 10))
    put_history(store, tmp_path, 2, "1\t0/480000\tno recovery target specified\n")
    records = []
    for name, start in (("one", 4), ("two", 7)):
        snapshot_id = base(store, tmp_path, name, start_lsn=start * MIB + 40)
        records.append(repository.refresh().snapshots[snapshot_id])

    def numbers(kept: list[dict]) -> list[int]:
        return [Segment.parse(info.name[-24:], MIB).number for info in removable_wal(repository, kept)]

    assert numbers(records) == [3]
    assert numbers(records[1:]) == [3, 4, 5, 6]
    assert numbers([]) == []


def test_wal_of_a_system_without_a_base_goes_when_another_has_one_and_newer_wal(
    store: WalStore, tmp_path: Path
):
    repository = store.repository
    put(store, tmp_path, range(3, 5), system_id=OTHER)
    time.sleep(1.1)  # S3 tells times by the second
    put(store, tmp_path, range(3, 5))
    snapshot_id = base(store, tmp_path, "one", start_lsn=3 * MIB + 40)
    record = repository.refresh().snapshots[snapshot_id]
    assert {info.name.split("/")[2] for info in removable_wal(repository, [record])} == {OTHER}
    put(store, tmp_path, [5], system_id=OTHER)  # which may be the newest now: its first base may be under way
    assert removable_wal(repository, [record]) == []
    time.sleep(1.1)
    put(store, tmp_path, [6], system_id=OTHER)
    assert removable_wal(repository, [record]) == []


def test_nothing_may_go_when_a_manifest_cannot_be_read(store: WalStore, tmp_path: Path):
    repository = store.repository
    put(store, tmp_path, range(3, 6))
    snapshot_id = base(store, tmp_path, "one", start_lsn=5 * MIB)
    record = repository.refresh().snapshots[snapshot_id]
    assert len(removable_wal(repository, [record])) == 2
    repository.storage.put(record["manifest"], b"damaged")
    with pytest.raises(CorruptionError, match="not the manifest that was committed"):
        removable_wal(repository, [record])
    assert "not the manifest" in prove_window(repository, store.component).notes[0]
