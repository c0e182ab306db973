"""What was backed up comes back, and costs what it should."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    BackupNotFoundError,
    FolderSource,
    IncompleteSetError,
    Repository,
    S3Storage,
    SourceError,
    SQLiteSource,
    create_snapshot,
    initialise_repository,
    list_sets,
    open_repository,
    publish_set,
    restore_snapshot,
    select_set,
)
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.key_slots import add_slot, rotate_epoch
from fastvlm_ops.core.backup.reading import read_manifest
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe, make_hard_tree, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Progress, SnapshotResult
    from fastvlm_ops.local.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parents[3]
KEY_FILE = b"a key file of the tests, long enough"
NOW = datetime(2026, 1, 4, 2, tzinfo=UTC)


def test_hard_tree_comes_back_equal(repository: Repository, tmp_path: Path) -> None:
    tree = make_hard_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run-1")
    assert snapshot.warnings == ()
    result = restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)
    assert result.warnings == ()
    assert (tmp_path / "target" / "sparse").stat().st_blocks * 512 < 1 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]  # no leftovers


def test_minimal_reader_restores_the_same(
    repository: Repository, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    """docs/backup-format.md is enough: a reader that shares no code with the engine."""
    tree = make_hard_tree(tmp_path / "source")
    time.sleep(2.1)  # then even files with times in whole seconds are taken over unread
    back_up(repository, tree, "run-1")
    back_up(repository, tree, "run-2", "incremental")
    back_up(repository, tree, "run-3", "incremental")  # both have the manifest of the first
    assert len(list(repository.storage.list("snapshots/"))) == 1
    add_slot(repository, KeyFile(KEY_FILE))
    rotate_epoch(repository)
    (tree / "new in epoch 2").write_bytes(os.urandom(50_000))
    back_up(open_repository(repository.storage, KeyFile(KEY_FILE)), tree, "run-3b", "incremental")
    publish_set(
        repository, set_id="set-1", kind="incremental", run_key="run-3b", components=["models"], timestamp=NOW
    )
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
        "AWS_ENDPOINT_URL": seaweedfs.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "FASTVLM_PASSPHRASE": PASSPHRASE,
    }
    bucket = repository.storage.bucket
    command = [sys.executable, "-I", ROOT / "restore_min.py", bucket, "some/prefix", tmp_path / "target"]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert describe(tmp_path / "target" / "models") == describe(tree)
    wrong = subprocess.run(
        [*command[:-1], tmp_path / "other"],
        env=environment | {"FASTVLM_PASSPHRASE": "wrong"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert wrong.returncode == 1
    assert "fits no key slot" in wrong.stderr
    (tmp_path / "key").write_bytes(KEY_FILE)
    by_file = {name: value for name, value in environment.items() if name != "FASTVLM_PASSPHRASE"}
    by_file["FASTVLM_KEY_FILE"] = str(tmp_path / "key")
    subprocess.run([*command[:-1], tmp_path / "by file"], env=by_file, check=True, timeout=120)
    assert describe(tmp_path / "by file" / "models") == describe(tree)
    assert len((ROOT / "restore_min.py").read_text().splitlines()) < 180
    assert "fastvlm_ops" not in (ROOT / "restore_min.py").read_text()


def test_incremental_sends_what_changed_and_restores_by_itself(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=8 << 20)
    first = back_up(repository, tree, "day-1")
    before = describe(tree)
    weights = tree / "model.mlpackage" / "weight.bin"
    data = bytearray(weights.read_bytes())
    data[4 << 20 : 4 << 20] = os.urandom(100_000)  # an insertion moves everything behind it
    (tree / "model.mlpackage" / "weight-2.bin").write_bytes(data)
    (tree / "group-1" / "file-1.yaml").unlink()
    (tree / "group-2" / "file-2.yaml").write_text("changed: true\n")
    second = back_up(repository, tree, "day-2", "incremental")
    assert second.parent == first.snapshot_id
    assert first.new_bytes > 8 << 20
    assert second.new_bytes < 1_500_000
    restore_snapshot(repository, first.snapshot_id, tmp_path / "one")
    restore_snapshot(repository, second.snapshot_id, tmp_path / "two")
    assert describe(tmp_path / "one") == before
    assert describe(tmp_path / "two") == describe(tree)


def test_nothing_changed_sends_next_to_nothing(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    time.sleep(0.1)  # more than the grain of the clock that files get their times from
    back_up(repository, tree, "run-1")
    packs = {info.name for info in repository.storage.list("packs/")}
    assert back_up(repository, tree, "run-2", "incremental").new_bytes < 2048
    assert back_up(repository, tree, "run-3").new_bytes < 2048  # a full one reads all, and stores nothing
    assert {info.name for info in repository.storage.list("packs/")} == packs


def test_a_snapshot_in_which_nothing_changed_is_an_entry_of_the_log(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    time.sleep(0.1)  # more than the grain of the clock that files get their times from
    first = back_up(repository, tree, "run-1")
    before = {info.name for info in repository.storage.list("")}
    second = back_up(repository, tree, "run-2", "incremental")
    third = back_up(repository, tree, "run-3", "incremental")
    new = [info for info in repository.storage.list("") if info.name not in before]
    assert [info.name[:4] for info in new] == ["log/", "log/"]
    assert max(info.size_bytes for info in new) < 500
    assert (third.files, third.size_bytes) == (first.files, first.size_bytes)
    assert (second.parent, third.parent) == (first.snapshot_id, second.snapshot_id)
    (tree / "group-1" / "file-1.yaml").write_text("changed: true\n")
    changed = back_up(repository, tree, "run-4", "incremental")
    assert changed.new_bytes > 0
    opened = open_repository(repository.storage, PASSPHRASE)
    restore_snapshot(opened, changed.snapshot_id, tmp_path / "changed")
    assert describe(tmp_path / "changed") == describe(tree)
    restore_snapshot(opened, first.snapshot_id, tmp_path / "first")
    restore_snapshot(opened, third.snapshot_id, tmp_path / "third")
    assert describe(tmp_path / "third") == describe(tmp_path / "first") != describe(tree)
    manifest = read_manifest(opened, opened.log.state.snapshots[third.snapshot_id])
    assert (manifest["snapshot_id"], manifest["run_key"]) == (third.snapshot_id, "run-3")


def test_what_has_another_definition_or_warning_gets_a_manifest(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    time.sleep(0.1)  # more than the grain of the clock that files get their times from
    back_up(repository, tree, "run-1")
    result = create_snapshot(
        repository,
        FolderSource(tree),
        component="models",
        kind="incremental",
        run_key="run-2",
        include_hash="another",
    )
    record = repository.refresh().snapshots[result.snapshot_id]
    assert record["manifest"].endswith(result.snapshot_id)
    assert read_manifest(repository, record)["include_hash"] == "another"


def test_a_file_with_an_old_time_but_new_contents_is_seen(repository: Repository, tmp_path: Path) -> None:
    """Same size and mtime: the change time gives it away."""
    tree = make_plain_tree(tmp_path / "source")
    file = tree / "group-1" / "file-1.yaml"
    status = file.stat()
    back_up(repository, tree, "run-1")
    file.write_bytes(b"#" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = back_up(repository, tree, "run-2", "incremental")
    restore_snapshot(repository, second.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


def test_a_run_makes_one_snapshot_and_one_set(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    first = back_up(repository, tree, "run-1")
    (tree / "later").write_text("a retry must not see this")
    again = back_up(repository, tree, "run-1")
    assert (again.snapshot_id, again.reused, again.new_bytes) == (first.snapshot_id, True, 0)
    sets = [
        publish_set(
            repository, set_id="set-1", kind="full", run_key="run-1", components=["models"], timestamp=NOW
        )
        for _ in range(2)
    ]
    assert [backup.reused for backup in sets] == [False, True]
    assert [backup.set_id for backup in list_sets(repository)] == ["set-1"]


def test_a_set_needs_every_component(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    back_up(repository, tree, "run-1")
    publish = {"kind": "full", "components": ["models"], "timestamp": NOW}
    publish_set(repository, set_id="set-1", run_key="run-1", **publish)  # type: ignore[arg-type]
    back_up(repository, tree, "run-2")
    publish["components"] = ["models", "configuration"]
    with pytest.raises(IncompleteSetError, match=r"no snapshot of configuration in run run-2"):
        publish_set(repository, set_id="set-2", run_key="run-2", **publish)  # type: ignore[arg-type]
    assert select_set(repository, "latest").set_id == "set-1"
    with pytest.raises(BackupNotFoundError, match=r"no backup 'set-2'; the newest are set-1"):
        select_set(repository, "set-2")


def test_an_opened_repository_sees_what_another_wrote(storage: S3Storage, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    snapshot = back_up(initialise_repository(storage, PASSPHRASE), tree, "run-1")
    other = open_repository(storage, PASSPHRASE)
    restore_snapshot(other, snapshot.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


def test_exclude_and_progress(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    (tree / "cache").mkdir()
    (tree / "cache" / "x").touch()
    (tree / "group-1" / "scratch.tmp").touch()
    reports: list[Progress] = []
    snapshot = create_snapshot(
        repository,
        FolderSource(tree, exclude=("*.tmp", "cache", "group-2/file-*")),
        component="models",
        kind="full",
        run_key="run-1",
        progress=reports.append,
    )
    restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target", progress=reports.append)
    kept = {path for path in describe(tree) if b"cache" not in path and b".tmp" not in path}
    kept = {path for path in kept if not path.startswith(b"group-2/")}
    assert set(describe(tmp_path / "target")) == kept
    assert reports[0].line().startswith("backup models: ")
    assert "(100 %)" in reports[-1].line()


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_sqlite_is_copied_whole_while_others_write(
    journal: str, repository: Repository, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "application.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as database:
        assert database.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal.lower(),)
        database.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)")
        database.execute("CREATE TABLE total (amount INTEGER)")
        database.execute("INSERT INTO total VALUES (0)")
        database.executemany("INSERT INTO event VALUES (?, 0, ?)", ((n, "x" * 500) for n in range(20_000)))
        database.commit()
        stop = threading.Event()
        writes = 0

        def write() -> None:
            nonlocal writes
            while not stop.is_set():
                with database:
                    database.execute("INSERT INTO event (amount, note) VALUES (7, 'later')")
                    database.execute("UPDATE total SET amount = amount + 7")
                writes += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            source = SQLiteSource(path, scratch_dir=tmp_path / "scratch")
            snapshots = [
                create_snapshot(
                    repository, source, component="data", kind="incremental", run_key=f"run-{number}"
                )
                for number in range(3)
            ]
        finally:
            stop.set()
            writer.join()
    assert writes > 10
    assert snapshots[1].new_bytes < snapshots[0].new_bytes / 3
    assert list((tmp_path / "scratch").iterdir()) == []
    for number, snapshot in enumerate(snapshots):
        restore_snapshot(repository, snapshot.snapshot_id, tmp_path / f"target-{number}")
        with contextlib.closing(
            sqlite3.connect(tmp_path / f"target-{number}" / "application.db")
        ) as restored:
            assert restored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (total,) = restored.execute("SELECT amount FROM total").fetchone()
            assert restored.execute("SELECT sum(amount) FROM event").fetchone() == (total,)


def test_damaged_and_empty_sources_are_refused(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-folders" / "a" / "b").mkdir(parents=True)
    (tmp_path / "text.db").write_text("not a database")
    database = tmp_path / "damaged.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", (("x" * 1000,) for _ in range(100)))
        connection.commit()
    data = bytearray(database.read_bytes())
    data[4096 * 3 : 4096 * 4] = b"\xee" * 4096
    database.write_bytes(data)
    cases = {
        FolderSource(tmp_path / "gone"): "gone does not exist",
        FolderSource(tmp_path / "text.db"): "text.db is not a folder",
        FolderSource(tmp_path / "empty"): "empty is empty",
        FolderSource(tmp_path / "only-folders"): "holds no file",
        SQLiteSource(tmp_path / "gone.db"): "gone.db does not exist",
        SQLiteSource(tmp_path / "text.db"): "text.db is not an SQLite database",
        SQLiteSource(database): "damaged.db is damaged",
    }
    for source, message in cases.items():
        with pytest.raises(SourceError, match=message):
            create_snapshot(repository, source, component="data", kind="full", run_key="run-1")
    assert repository.refresh().snapshots == {}


def test_an_unchanged_database_is_not_copied_again(repository: Repository, tmp_path: Path) -> None:
    """Every commit shows in the size or times of the database or of its write-ahead log."""
    path = tmp_path / "data" / "application.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (a)")
        database.executemany("INSERT INTO t VALUES (?)", (("x" * 1000,) for _ in range(500)))
        database.commit()
        time.sleep(0.1)  # the times have to be clearly before the first backup
        copies: list[Path] = []

        class Watched(SQLiteSource):
            def _copy(self, copy: Path) -> None:
                copies.append(copy)
                super()._copy(copy)

        def run(number: int, kind: str) -> SnapshotResult:
            return create_snapshot(
                repository,
                Watched(path, scratch_dir=tmp_path / "scratch"),
                component="data",
                kind="full" if kind == "full" else "incremental",
                run_key=f"run-{number}",
            )

        first = run(0, "full")
        second = run(1, "incremental")
        assert (len(copies), second.new_bytes < 1024, second.files) == (1, True, first.files)
        with database:
            database.execute("UPDATE t SET a = 'changed' WHERE rowid = 7")
        third = run(2, "incremental")
        run(3, "full")
        assert len(copies) == 3
        for snapshot, changed in ((second, 0), (third, 1)):
            target = tmp_path / snapshot.snapshot_id
            restore_snapshot(repository, snapshot.snapshot_id, target)
            with contextlib.closing(sqlite3.connect(target / "application.db")) as restored:
                query = "SELECT count(*) FROM t WHERE a = 'changed'"
                assert restored.execute(query).fetchone() == (changed,)
