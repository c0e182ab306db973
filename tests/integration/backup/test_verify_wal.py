"""Damaged WAL is found by verifying, before somebody needs it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import Repository, S3Storage, verify_repository
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.wal_names import History
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from tests.wal_kit import MIB, SYSTEM_ID, commit_record, make_segment

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
SHARES = 4


@pytest.fixture
def wal(repository: Repository, storage: S3Storage, tmp_path: Path) -> list[str]:
    """Names of three segments and a history."""
    store = WalStore(repository, "application_database")
    for number in (5, 6, 7):
        segment = Segment(1, number, MIB)
        path = tmp_path / segment.name
        path.write_bytes(make_segment(segment, records=(commit_record(NOON, number),)))
        store.put_segment(path, system_id=SYSTEM_ID, segment=segment, closed_at=NOON)
    history = tmp_path / History(2).name
    history.write_text("1\t0/600000\tno reason\n")
    store.put_history(history, system_id=SYSTEM_ID, timeline=2)
    return [info.name for info in storage.list("wal/")]


def verify(repository: Repository, level: str, number: int | None = None) -> list[str]:
    """What is found to be wrong."""
    result = verify_repository(
        Repository(repository.storage, repository.ring, repository.config_line),
        level=level,  # type: ignore[arg-type]
        share=None if number is None else (number, SHARES),
    )
    assert result.ok == (not result.problems)
    assert result.snapshots == ()
    return [problem.object for problem in result.problems]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "another's"])
@pytest.mark.parametrize("which", [1, 3], ids=["segment", "history"])
def test_it_is_named_by_full_and_by_one_share(
    which: int, damage: str, repository: Repository, storage: S3Storage, wal: list[str]
) -> None:
    assert len(wal) == 4
    assert verify(repository, "full") == []
    data = storage.get(wal[which], limit_bytes=MIB)
    changed = {
        "flipped": bytes([*data[:80], data[80] ^ 1, *data[81:]]),
        "truncated": data[:-1],
        "another's": storage.get(wal[0], limit_bytes=MIB),
    }[damage]
    storage.put(wal[which], changed)
    assert verify(repository, "full") == [wal[which]]
    shares = [verify(repository, "share", number) for number in range(SHARES)]
    assert sorted(shares) == [*[[]] * (SHARES - 1), [wal[which]]]
    assert verify(repository, "head") == [], "which reads none of it"


def test_what_is_missing_is_the_windows_to_tell(
    repository: Repository, storage: S3Storage, wal: list[str]
) -> None:
    storage.delete(wal[1])
    storage.put("wal/note.txt", b"not ours")
    assert verify(repository, "full") == []
