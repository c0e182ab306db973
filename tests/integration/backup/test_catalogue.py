"""The catalogue of backups says what the bucket says, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    S3Storage,
    create_snapshot,
    initialise_repository,
    open_repository,
    publish_set,
    restore_snapshot,
)
from fastvlm_ops.core.backup.catalogue import (
    Catalogue,
    CatalogueError,
    CatalogueSet,
    ComponentState,
    rebuild_catalogue,
    refresh_catalogue,
)
from fastvlm_ops.core.backup.journal import (
    RestoreTest,
    record_restore_tested,
    record_restored,
    record_verified,
)
from fastvlm_ops.core.backup.verify import verify_repository
from fastvlm_ops.core.backup.verify_result import HitSnapshot, VerifyResult
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables import backup as tables
from tests.integration.backup.conftest import PASSPHRASE

NAMES = ["models", "configuration"]
TABLES = (tables.sets, tables.snapshots, tables.members, tables.checks, tables.verifications)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The operations database."""
    with open_store(database_url, migrate_first=True) as opened:
        yield opened


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, FolderSource]:
    """A folder for each component."""
    for name in NAMES:
        (tmp_path / "kit" / name).mkdir(parents=True)
        (tmp_path / "kit" / name / "file").write_bytes(random.Random(name).randbytes(50_000))
    return {name: FolderSource(tmp_path / "kit" / name) for name in NAMES}


def back_up(repository: Repository, sources: dict[str, FolderSource], run: str, kind: Any = "full") -> str:
    """A published set of all components; returns its id."""
    for name, source in sources.items():
        create_snapshot(repository, source, component=name, kind=kind, run_key=run)
    moment = datetime(2026, 1, 4, 2, tzinfo=UTC)
    names = list(sources)
    publish_set(
        repository, set_id=f"{kind}-{run}", kind=kind, run_key=run, components=names, timestamp=moment
    )
    return f"{kind}-{run}"


def rows(store: Store) -> list[list[tuple[Any, ...]]]:
    """All rows of the catalogue, and how far it has read."""
    with store.read() as connection:
        found = [sorted(map(tuple, connection.execute(select(table))), key=repr) for table in TABLES]
        columns = tables.catalogue.c
        place = select(columns.repository_id, columns.sequence, columns.digest)
        return [*found, list(map(tuple, connection.execute(place)))]


def outcome(level: Any, damaged: list[str], share: Any = None, *, cut: bool = False) -> VerifyResult:
    """What a verification found."""
    hits = tuple(HitSnapshot(snapshot_id, "models", 1, "damaged") for snapshot_id in damaged)
    count = len(hits) + (1 if cut else 0)
    return VerifyResult(
        ok=not damaged,
        level=level,
        share=share,
        checked_snapshots=1,
        checked_objects=1,
        checked_bytes=1,
        read_bytes=1,
        packs_without_checksum=0,
        duration_seconds=1.0,
        snapshot_count=count,
        snapshots=hits,
    )


def test_a_backup_and_what_was_done_with_it(
    store: Store, repository: Repository, sources: dict[str, FolderSource], tmp_path: Path
) -> None:
    catalogue = Catalogue(store)
    assert (catalogue.refreshed_at(), catalogue.repository_id(), catalogue.set_count()) == (None, None, None)
    before = datetime.now(UTC) - timedelta(seconds=2)
    first = back_up(repository, sources, "1")
    summary = refresh_catalogue(store, repository)
    assert (summary.new_sets, summary.new_snapshots, summary.warnings) == (1, 2, ())
    second = back_up(repository, sources, "2", "incremental")
    refresh_catalogue(store, repository)

    newest, oldest = catalogue.sets()
    assert (newest.set_id, oldest.set_id) == (second, first)
    assert [member.component for member in oldest.members] == NAMES
    assert (oldest.files, oldest.size_bytes) == (2, 100_000)
    assert oldest.timestamp == datetime(2026, 1, 4, 2, tzinfo=UTC)
    assert before < oldest.published_at < newest.published_at + timedelta(seconds=1)
    for member in newest.members:
        assert member.started_at is not None
        assert before < member.started_at <= member.finished_at < datetime.now(UTC)
        assert member.duration_seconds == (member.finished_at - member.started_at).total_seconds()
        assert (member.size_bytes, member.warnings) == (50_000, 0)
        assert 0 <= member.new_bytes < 50_000
        assert member.shared_bytes == 50_000 - member.new_bytes
        assert (member.last_verified, member.last_restored) == (None, None)
    assert newest.last_verified is None
    assert oldest.new_bytes >= 100_000, "random bytes, of which nothing was stored"
    assert newest.new_bytes < oldest.new_bytes

    covered = list(repository.refresh().snapshots)
    result = verify_repository(repository, level="head")
    assert record_verified(repository, result, covered, run_key="check")
    assert not record_verified(repository, result, covered, run_key="check"), "a retry adds nothing"
    member = oldest.members[0]
    restored = restore_snapshot(repository, member.snapshot_id, tmp_path / "restored")
    about: dict[str, Any] = {"set_id": first, "run_key": "restore", "where": "new folder"}
    about |= {"files": restored.files, "size_bytes": restored.size_bytes, "duration_seconds": 2.4}
    assert record_restored(repository, member.snapshot_id, **about)
    assert not record_restored(repository, member.snapshot_id, **about), "a retry adds nothing"
    refresh_catalogue(store, repository)

    found = catalogue.set(first)
    assert found is not None
    assert found.last_verified is not None
    assert (found.last_verified.level_or_where, found.last_verified.ok) == ("head", True)
    assert found.last_restored is not None
    assert found.last_restored.text == "1 file, 48.8 KiB, in 2 s"
    assert [check.what for check in catalogue.checks(first)].count("restored") == 1
    assert {check.snapshot_id for check in catalogue.checks(first)} == {m.snapshot_id for m in found.members}
    assert len(catalogue.checks([member.snapshot_id])) == 2
    assert found.last_restore_tested is None
    (run,) = catalogue.verifications()
    assert (run.level, run.share, run.ok, run.snapshots, run.run_key) == ("head", None, True, 4, "check")
    assert (run.objects, run.size_bytes, run.read_bytes) == (
        result.checked_objects,
        result.checked_bytes,
        result.read_bytes,
    )
    assert (run.damaged_snapshots, run.damaged_objects, run.named_objects) == (0, 0, ())
    assert run.duration_seconds == result.duration_seconds
    assert [member.snapshot_id for member in catalogue.history("models", 1)] == [
        newest.members[0].snapshot_id
    ]


def test_pages_and_filters(store: Store, repository: Repository, sources: dict[str, FolderSource]) -> None:
    ids = [back_up(repository, sources, str(number)) for number in range(3)]
    ids.append(back_up(repository, {"configuration": sources["configuration"]}, "c", "incremental"))
    refresh_catalogue(store, repository)
    catalogue = Catalogue(store)

    def named(sets: list[CatalogueSet]) -> list[str]:
        return [found.set_id for found in sets]

    assert named(catalogue.sets()) == ids[::-1]
    page = catalogue.sets(limit=2)
    assert named(page) == [ids[3], ids[2]]
    assert named(catalogue.sets(limit=2, before_sequence=page[-1].sequence)) == [ids[1], ids[0]]
    assert named(catalogue.sets(kind="incremental")) == [ids[3]]
    assert named(catalogue.sets(component="models")) == ids[2::-1]
    assert catalogue.set("no such set") is None
    assert catalogue.sets(component="'; DROP TABLE backup_set; --") == []


@pytest.mark.parametrize("seed", range(3))
def test_kept_up_to_date_or_made_anew_it_is_the_same(
    seed: int, store: Store, storage: S3Storage, repository: Repository, sources: dict[str, FolderSource]
) -> None:
    rng = random.Random(seed)
    levels = ["log", "listing", "head", "share", "full", "members"]
    for step in range(110):  # over a checkpoint
        state = repository.refresh()
        snapshots, sets = list(state.snapshots), list(state.sets)
        what = rng.choices(["back up", "lonely", "verify", "restore", "forget"], [3, 1, 8, 6, 1])[0]
        if what == "back up" or len(sets) < 3:
            back_up(repository, sources, f"{step}")
        elif what == "lonely":  # of a run that published nothing
            create_snapshot(
                repository, sources["models"], component="models", kind="incremental", run_key=f"{step}"
            )
        elif what == "verify":
            covered = rng.sample(snapshots, rng.randint(1, len(snapshots)))
            damaged = [snapshot_id for snapshot_id in covered if rng.random() < 0.2]
            level = rng.choice(levels)
            share = (rng.randrange(2), 2) if level == "share" else None
            result = outcome(level, damaged, share, cut=rng.random() < 0.1)
            record_verified(repository, result, covered, run_key=f"{step}")
        elif what == "restore":
            record_restored(
                repository,
                rng.choice(snapshots),
                set_id=rng.choice(sets),
                run_key=f"{step}",
                where="scratch",
                files=rng.randrange(5),
                size_bytes=rng.randrange(10**12),
                duration_seconds=rng.random(),
            )
        else:
            gone = {"snapshots": rng.sample(snapshots, 2), "sets": rng.sample(sets, 1)}
            repository.log.append("forget", gone)
        if step % 9 == 0:
            refresh_catalogue(store, open_repository(storage, PASSPHRASE))
    assert repository.log.state.seq > 100
    from_checkpoint = open_repository(storage, PASSPHRASE)
    refresh_catalogue(store, from_checkpoint)
    assert from_checkpoint.log.state == repository.refresh(), "which has folded every entry"
    kept = rows(store)
    assert all(kept)
    rebuild_catalogue(store, open_repository(storage, PASSPHRASE))
    assert rows(store) == kept
    assert refresh_catalogue(store, repository).new_snapshots == 0
    assert rows(store) == kept


def test_damage_is_no_verification_and_protects_nothing(
    store: Store, repository: Repository, sources: dict[str, FolderSource]
) -> None:
    back_up(repository, sources, "1")
    second = back_up(repository, sources, "2")
    state = repository.refresh()
    covered = list(state.snapshots)
    newest = state.sets[second]["snapshots"]["models"]
    record_verified(repository, outcome("full", []), covered, run_key="good")
    record_verified(repository, outcome("share", [newest], (0, 8)), covered, run_key="bad")
    record_verified(repository, outcome("share", [], (1, 8)), covered, run_key="another share")
    refresh_catalogue(store, repository)
    catalogue = Catalogue(store)
    found = catalogue.set(second)
    assert found is not None
    assert found.last_verified is not None
    assert (found.last_verified.ok, found.last_verified.text) == (False, "share 1 of 8: damaged")
    assert [(run.ok, run.damaged_snapshots) for run in catalogue.verifications()] == [
        (True, 0),
        (False, 1),
        (True, 0),
    ]
    nearest = catalogue.nearest_intact(second, NAMES)
    assert nearest is not None
    assert nearest.set_id == "full-1"
    assert catalogue.nearest_intact(second, ["uploads"]) is None
    models, configuration = catalogue.components(dict.fromkeys(NAMES, timedelta(hours=26)))
    assert (models.set_id, models.damaged) == ("full-1", 1)
    assert (configuration.set_id, configuration.damaged) == (second, 0)

    record_verified(repository, outcome("full", []), covered, run_key="mended")
    refresh_catalogue(store, repository)
    assert catalogue.components({})[1].set_id == second


def test_when_more_is_damaged_than_is_listed_nothing_else_counts_as_verified(
    repository: Repository, sources: dict[str, FolderSource]
) -> None:
    back_up(repository, sources, "1")
    one, other = repository.refresh().snapshots
    record_verified(repository, outcome("full", [one], cut=True), [one, other], run_key="run")
    assert repository.log.state.checks.keys() == {one}
    assert repository.log.state.checks[one].keys() == {"damaged"}


def test_ages_and_what_is_unknown(
    store: Store, repository: Repository, sources: dict[str, FolderSource]
) -> None:
    catalogue = Catalogue(store)
    objectives = {"models": timedelta(hours=26), "uploads": timedelta(hours=26)}
    (models, uploads) = catalogue.components(objectives)
    assert (models.overdue, models.age, models.damaged) == (None, None, None)
    back_up(repository, sources, "1")
    create_snapshot(repository, sources["models"], component="models", kind="full", run_key="unpublished")
    refresh_catalogue(store, repository)

    now = datetime.now(UTC) + timedelta(hours=25)
    models, uploads, configuration = catalogue.components(objectives, now=now)
    assert models.newest is not None
    assert models.newest.snapshot_id == repository.refresh().sets["full-1"]["snapshots"]["models"]
    assert models.age is not None
    assert timedelta(hours=25) <= models.age < timedelta(hours=25, minutes=1)
    assert (models.overdue, uploads.overdue, uploads.newest) == (False, True, None)
    assert (configuration.component, configuration.overdue) == ("configuration", False)
    later = catalogue.components(objectives, now=now + timedelta(hours=1, minutes=1))
    assert [state.overdue for state in later] == [True, True, False]


def test_another_repository_replaces_what_there_is(
    store: Store, repository: Repository, sources: dict[str, FolderSource], storage: S3Storage, s3_client: Any
) -> None:
    back_up(repository, sources, "1")
    refresh_catalogue(store, repository)
    other = initialise_repository(S3Storage(s3_client, storage.bucket, "other"), PASSPHRASE)
    summary = refresh_catalogue(store, other)
    assert summary.replaced_repository_id == repository.repository_id
    assert Catalogue(store).sets() == []
    assert Catalogue(store).set_count() == 0
    assert Catalogue(store).repository_id() == other.repository_id


def test_a_log_that_lost_entries_is_refused_until_a_rebuild(
    store: Store, repository: Repository, sources: dict[str, FolderSource], storage: S3Storage, s3_client: Any
) -> None:
    back_up(repository, sources, "1")
    refresh_catalogue(store, repository)
    kept = rows(store)
    name = f"log/{repository.log.state.seq:020d}.json"
    s3_client.delete_object(Bucket=storage.bucket, Key=storage.prefix + name)
    with pytest.raises(CatalogueError, match=r"entries are missing\. Verify the repository"):
        refresh_catalogue(store, open_repository(storage, PASSPHRASE))
    assert rows(store) == kept
    rebuild_catalogue(store, open_repository(storage, PASSPHRASE))
    assert Catalogue(store).set_count() == 0


def test_a_damaged_manifest_leaves_the_duration_unknown_until_it_is_back(
    store: Store, repository: Repository, sources: dict[str, FolderSource], storage: S3Storage, s3_client: Any
) -> None:
    back_up(repository, sources, "1")
    record = next(iter(repository.refresh().snapshots.values()))
    key = storage.prefix + record["manifest"]
    good = s3_client.get_object(Bucket=storage.bucket, Key=key)["Body"].read()
    s3_client.put_object(Bucket=storage.bucket, Key=key, Body=good[:-1])
    summary = refresh_catalogue(store, repository)
    assert len(summary.warnings) == 1
    assert f"duration of {record['snapshot_id']} is unknown" in summary.warnings[0]
    found = Catalogue(store).set("full-1")
    assert found is not None
    assert [member.duration_seconds is None for member in found.members] == [True, False]
    assert found.duration_seconds is None
    s3_client.put_object(Bucket=storage.bucket, Key=key, Body=good)
    assert refresh_catalogue(store, repository).warnings == ()
    found = Catalogue(store).set("full-1")
    assert found is not None
    assert found.duration_seconds is not None


def test_many_at_once_end_in_the_same(
    store: Store, storage: S3Storage, repository: Repository, sources: dict[str, FolderSource]
) -> None:
    def work(number: int) -> None:
        mine = open_repository(storage, PASSPHRASE)
        for turn in range(4):
            back_up(mine, {"models": sources["models"]}, f"{number}-{turn}")
            with open_store(store.engine.url) as own:
                (rebuild_catalogue if (number + turn) % 3 == 0 else refresh_catalogue)(own, mine)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    refresh_catalogue(store, repository)
    kept = rows(store)
    assert Catalogue(store).set_count() == 16
    rebuild_catalogue(store, repository)
    assert rows(store) == kept


def state_of(catalogue: Catalogue) -> ComponentState:
    """Of the first component."""
    return next(state for state in catalogue.components({}) if state.component == NAMES[0])


def test_restore_tests_are_shown_and_come_back_from_the_bucket_alone(
    store: Store, repository: Repository, sources: dict[str, FolderSource]
) -> None:
    catalogue = Catalogue(store)
    first = back_up(repository, sources, "1")
    refresh_catalogue(store, repository)
    found = catalogue.set(first)
    assert found is not None
    ids = [member.snapshot_id for member in found.members]
    assert found.last_restore_tested is None
    state = state_of(catalogue)
    assert (state.last_restore_tested_at, state.restore_failed) == (None, 0)

    def record(*ok: bool, run_key: str = "drill") -> bool:
        tested = {
            one: RestoreTest(right, 1, 50_000, 2.4, () if right else ("file differs",))
            for one, right in zip(ids, ok, strict=False)
        }
        return record_restore_tested(repository, first, tested, run_key=run_key)

    assert record(True)
    refresh_catalogue(store, repository)
    found = catalogue.set(first)
    assert found is not None
    assert found.last_restore_tested is None, "not every component was tested"
    assert found.members[0].last_restore_tested is not None

    assert record(True, True)
    assert not record(True, True), "a retry adds nothing"
    refresh_catalogue(store, repository)
    found = catalogue.set(first)
    assert found is not None
    check = found.last_restore_tested
    assert check is not None
    assert (check.ok, check.what, check.text) == (True, "restore-tested", "1 file, 48.8 KiB, in 2 s")
    passed_at = state_of(catalogue).last_restore_tested_at
    assert passed_at is not None

    assert record(False, True), "other findings are another entry"
    refresh_catalogue(store, repository)
    found = catalogue.set(first)
    assert found is not None
    assert found.last_restore_tested is not None
    assert not found.last_restore_tested.ok
    assert [member.last_restore_tested.ok for member in found.members if member.last_restore_tested] == [
        False,
        True,
    ]
    state = state_of(catalogue)
    assert (state.last_restore_tested_at, state.restore_failed) == (passed_at, 1)
    assert len(catalogue.checks(first)) == 3, "the failed one, and the last that passed of each"

    before = rows(store)
    rebuild_catalogue(store, repository)
    assert rows(store) == before
    assert record(True, True, run_key="next drill")
    refresh_catalogue(store, repository)
    found = catalogue.set(first)
    assert found is not None
    assert found.last_restore_tested is not None
    assert found.last_restore_tested.ok
