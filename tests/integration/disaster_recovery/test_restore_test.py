"""Restore tests: what comes back is proven, and whatever differs from the backup is found and named."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvlm_ops.core.backup import S3Storage, initialise_repository, list_sets, restore_snapshot
from fastvlm_ops.core.backup.catalogue import Catalogue, rebuild_catalogue, refresh_catalogue
from fastvlm_ops.core.backup.folder_comparison import compare_folder
from fastvlm_ops.core.disaster_recovery.restoring import read_note
from fastvlm_ops.core.store import Store, open_store
from tests.coreml_kit import coreml_package, text_package
from tests.restore_kit import PASSPHRASE, Drill, back_up, make_kit

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

__all__ = ["coreml_package", "text_package"]
pytestmark = pytest.mark.integration

COMPONENTS = ["models", "configuration", "uploads", "application_data"]
LENIENT = {"only_compared": ["uploads"]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def drill(
    seaweedfs: SeaweedFS, s3_client: S3Client, bucket: str, tmp_path: Path, store: Store, text_package: Path
) -> Drill:
    """A repository with a full backup of a kit."""
    repository = initialise_repository(S3Storage(s3_client, bucket, "some/prefix"), PASSPHRASE)
    back_up(repository, make_kit(tmp_path, text_package), "full-1")
    return Drill(seaweedfs, bucket, tmp_path, store)


def restored(drill: Drill) -> Drill:
    """The same after the newest full backup was restored to scratch."""
    found = drill.act("restore_to_scratch")
    assert found["status"] == "passed", found
    return drill


def last_test(drill: Drill, set_id: str = "full-1") -> Any:
    """What the catalogue says of the restore test of a set, and says again when it is made anew."""
    catalogue = Catalogue(drill.store)
    before = catalogue.set(set_id)
    rebuild_catalogue(drill.store, drill.open())
    again = catalogue.set(set_id)
    assert again is not None
    assert before is None or before.last_restore_tested == again.last_restore_tested
    return again.last_restore_tested


def test_a_sound_backup_passes_is_marked_and_leaves_nothing(drill: Drill) -> None:
    began = datetime.now(UTC)
    action = drill.act("restore_to_scratch")
    assert action["status"] == "passed", action["detail"]
    assert [one["component"] for one in action["evidence"]["components"]] == COMPONENTS
    backup_at = datetime.fromisoformat(action["evidence"]["backup_at"])
    assert began - timedelta(minutes=5) < backup_at < began
    assert (drill.restored / "models").stat().st_mode & 0o077 == 0
    shutil.copytree(drill.restored, drill.folder / "copy", symlinks=True)

    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "passed", found["detail"]
    assert found["evidence"]["marked"]
    by_name = {one["component"]: one for one in found["evidence"]["validated"]}
    assert by_name["models"]["soundness"]["sound"] == {"packages": 1}
    assert by_name["configuration"]["soundness"]["sound"] == {"json": 1, "yaml": 1}
    assert by_name["application_data"]["soundness"]["rows"] == {"application.db": {"customer": 500}}
    assert "soundness" not in by_name["uploads"], "what users sent is only compared"
    check = last_test(drill)
    assert (check.ok, check.what) == (True, "restore-tested")
    assert not drill.restored.exists()
    for name in COMPONENTS:
        lines = (drill.own / "hashes" / f"{name}.txt").read_text().splitlines()
        assert lines
        for line in lines:
            digest, path = line.split("  ", 1)
            file = drill.folder / "copy" / name / "files" / path
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


def test_a_restore_that_was_stopped_goes_on(drill: Drill) -> None:
    first = drill.act("restore_to_scratch", within_seconds=1e-6)
    assert first["status"] == "failed"
    assert "within" in first["detail"]
    half = drill.restored / "models" / "files" / "half"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"of an attempt that was killed")
    assert drill.act("restore_to_scratch")["status"] == "passed"
    inode = (drill.restored / "configuration" / "files").stat().st_ino
    assert drill.act("restore_to_scratch")["status"] == "passed"
    assert (drill.restored / "configuration" / "files").stat().st_ino == inode, "restored once"
    assert drill.check("components_sound", **LENIENT)["status"] == "passed"


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*/files/**/*") if path.is_file() and not path.is_symlink())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(data=st.data())
def test_one_altered_byte_anywhere_is_found(drill: Drill, data: st.DataObject) -> None:
    if not drill.restored.exists():
        restored(drill)
        drill.repository = drill.open()
    files = [path for path in files_in(drill.restored) if path.stat().st_size]
    file = data.draw(st.sampled_from(files), "file")
    position = data.draw(st.integers(0, file.stat().st_size - 1), "position")
    mask = data.draw(st.integers(1, 255), "mask")
    component = file.relative_to(drill.restored).parts[0]
    note = read_note(drill.restored)
    assert note is not None
    about = note.component(component)
    assert about is not None
    folder = drill.restored / component / "files"
    flip(file, position, mask)
    try:
        found = compare_folder(drill.repository, about.snapshot_id, folder)
    finally:
        flip(file, position, mask)
    assert not found.is_equal
    assert found.difference_count == 1
    name = "hard" if file.name == "service.yaml" else file.name  # one file, looked at under its first name
    assert f"{name} has other contents" in found.differences[0]


def flip(file: Path, position: int, mask: int) -> None:
    """Alter a byte, as a disk would: without a trace in the file's times."""
    status = file.stat()
    with file.open("r+b") as opened:
        opened.seek(position)
        byte = opened.read(1)[0]
        opened.seek(position)
        opened.write(bytes([byte ^ mask]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def missing(files: Path) -> str:
    (files / "nested" / "limits.json").unlink()
    return "nested/limits.json is missing"


def missing_folder(files: Path) -> str:
    shutil.rmtree(files / "nested")
    return "nested is missing"


def additional(files: Path) -> str:
    (files / "nested" / "another.yaml").write_text("a: 1\n")
    return "nested/another.yaml is not in the backup"


def additional_empty_folder(files: Path) -> str:
    (files / "empty").mkdir()
    return "empty is not in the backup"


def truncated(files: Path) -> str:
    os.truncate(files / "nested" / "limits.json", 5)
    return "nested/limits.json has 5 bytes, in the backup 12"


def one_byte(files: Path) -> str:
    flip(files / "sparse.bin", 500_000, 1)
    return "sparse.bin has other contents: byte 500000 is in a hole, and not 0"


def other_mode(files: Path) -> str:
    (files / "nested" / "limits.json").chmod(0o666)
    return "nested/limits.json has mode 0666"


def other_target(files: Path) -> str:
    (files / "current").unlink()
    (files / "current").symlink_to("nested/limits.json")
    return "current leads to nested/limits.json, in the backup to service.yaml"


def link_for_a_file(files: Path) -> str:
    shutil.copy2(files / "nested" / "limits.json", files.parent / "limits.json")
    (files / "nested" / "limits.json").unlink()
    (files / "nested" / "limits.json").symlink_to(files.parent / "limits.json")
    return "nested/limits.json is a symlink, in the backup a file"


def parted_hard_link(files: Path) -> str:
    (files / "service.yaml").unlink()
    shutil.copy2(files / "hard", files / "service.yaml")
    return "service.yaml is not the same file as hard"


def pipe(files: Path) -> str:
    (files / "nested" / "limits.json").unlink()
    os.mkfifo(files / "nested" / "limits.json")
    return "nested/limits.json is a fifo, in the backup a file"


def nothing_left(files: Path) -> str:
    shutil.rmtree(files)
    return "the folder is missing"


CORRUPTIONS = (
    missing,
    missing_folder,
    additional,
    additional_empty_folder,
    truncated,
    one_byte,
    other_mode,
    other_target,
    link_for_a_file,
    parted_hard_link,
    pipe,
    nothing_left,
)


def test_every_corruption_of_a_folder_is_found_and_named(drill: Drill) -> None:
    restored(drill)
    files = drill.restored / "configuration" / "files"
    note = read_note(drill.restored)
    about = note.component("configuration") if note else None
    assert about is not None
    repository = drill.open()
    good = drill.folder / "good"
    copy_with_links(files, good)
    for corrupt in CORRUPTIONS:
        named = corrupt(files)
        found = compare_folder(repository, about.snapshot_id, files)
        assert not found.is_equal
        assert found.difference_count == len(found.differences) == (2 if corrupt is missing_folder else 1)
        assert found.differences[0].startswith(named), corrupt.__name__
        shutil.rmtree(files, ignore_errors=True)
        copy_with_links(good, files)
        assert compare_folder(repository, about.snapshot_id, files).is_equal
    missing(files)
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "failed"
    assert "nested/limits.json is missing" in found["detail"]
    assert not last_test(drill).ok


def copy_with_links(source: Path, target: Path) -> None:
    """Copy the configuration, whose one file has two names."""
    shutil.copytree(source, target, symlinks=True)
    (target / "service.yaml").unlink()
    (target / "service.yaml").hardlink_to(target / "hard")


def test_a_truncated_model_and_a_missing_row_are_found(drill: Drill) -> None:
    restored(drill)
    (weights,) = (drill.restored / "models").rglob("weight.bin")
    os.truncate(weights, weights.stat().st_size // 2)
    with (
        closing(
            sqlite3.connect(drill.restored / "application_data" / "files" / "application.db")
        ) as database,
        database,
    ):
        database.execute("DELETE FROM customer WHERE id = 250")
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "failed"
    assert f"weight.bin has {weights.stat().st_size} bytes, in the backup" in found["detail"]
    assert "application.db has other contents" in found["detail"]
    check = {one["component"]: one["ok"] for one in found["evidence"]["validated"]}
    assert check == {
        "models": False,
        "configuration": True,
        "uploads": True,
        "application_data": False,
    }
    catalogued = Catalogue(drill.store).set("full-1")
    assert catalogued is not None
    assert {one.component: one.last_restore_tested.ok for one in catalogued.members} == check  # type: ignore[union-attr]


def newer_backup(drill: Drill) -> str:
    kit = drill.folder / "kit"
    (kit / "configuration" / "service.yaml").write_text("model: TextDecoder-v1\ntimeout: 9\n")
    from fastvlm_ops.core.backup import FolderSource

    sources = {name: FolderSource(kit / name) for name in ("models", "configuration", "uploads")}
    return back_up(drill.open(), sources, "full-2")


def test_an_older_backup_under_the_name_of_the_newest_is_found_and_named(drill: Drill) -> None:
    newer_backup(drill)
    restored(drill)
    first = list_sets(drill.open())[0]
    older = next(one.snapshot_id for one in first.snapshots if one.component == "configuration")
    shutil.rmtree(drill.restored / "configuration" / "files")
    restore_snapshot(drill.open(), older, drill.restored / "configuration" / "files")
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "failed"
    assert "hard has other contents" in found["detail"]
    assert f"It is what the other backup {older} holds" in found["detail"]


def test_a_restore_of_an_older_set_than_asked_for_is_found_and_marks_nothing(drill: Drill) -> None:
    restored(drill)
    note = drill.restored / "restored.json"
    newer_backup(drill)
    # As if the newest had been there when the restore began, and the older one was taken all the same.
    sequence = drill.open().refresh().seq
    text = note.read_text()
    import json

    note.write_text(json.dumps({**json.loads(text), "log_sequence": sequence}))
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "failed"
    assert "backup full-1 was restored, and full-2 of " in found["detail"]
    assert "configuration was restored from snapshot" in found["detail"]
    refresh_catalogue(drill.store, drill.open())
    assert last_test(drill, "full-1") is None
    assert last_test(drill, "full-2") is None
    # Published after the restore began, it says nothing against it.
    note.write_text(text)
    assert drill.check("components_sound", **LENIENT)["status"] == "passed"


def test_a_repository_that_is_behind_the_catalogue_is_found(drill: Drill, s3_client: S3Client) -> None:
    behind = drill.open().refresh().seq
    newer_backup(drill)
    refresh_catalogue(drill.store, drill.open())
    last = drill.open().refresh().seq
    for sequence in range(behind + 1, last + 1):  # a bucket that was itself put back to an older state
        s3_client.delete_object(Bucket=drill.bucket, Key=f"some/prefix/log/{sequence:020d}.json")
    restored(drill)
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "failed"
    assert "the catalogue knows a newer one, full-2" in found["detail"]
    assert not found["evidence"]["marked"]


def test_what_was_broken_when_it_was_backed_up_does_not_pass(drill: Drill) -> None:
    """Equal by hash is not enough."""
    from fastvlm_ops.core.backup import FolderSource

    kit = drill.folder / "kit"
    (weights,) = (kit / "models").rglob("weight.bin")
    os.truncate(weights, weights.stat().st_size // 2)
    (kit / "configuration" / "service.yaml").write_text("a: [1, 2\n")
    (kit / "configuration" / "nested" / "limits.json").write_text('{"rps": 1')
    damaged = kit / "configuration" / "cache.db"
    shutil.copy2(kit / "application.db", damaged)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size - 2000)
        file.write(b"\xff" * 1500)
    sources = {name: FolderSource(kit / name) for name in ("models", "configuration")}
    back_up(drill.open(), sources, "full-2")
    restored(drill)
    found = drill.check("components_sound")
    assert found["status"] == "failed"
    for text in (
        "TextDecoder-v1.mlpackage cannot be used",
        "service.yaml is not YAML",
        "limits.json is not JSON",
        "cache.db",
    ):
        assert text in found["detail"], found["detail"]
    assert not last_test(drill, "full-2").ok


def test_what_cannot_be_checked_has_not_passed_and_is_not_marked(drill: Drill) -> None:
    drill.inspect = None
    restored(drill)
    found = drill.check("components_sound", **LENIENT)
    assert found["status"] == "inconclusive"
    assert "TextDecoder-v1.mlpackage: nothing here can parse packages" in found["detail"]
    assert last_test(drill) is None, "one component is not tested"
    strict = drill.check("components_sound")
    assert strict["status"] == "failed"
    assert "uploads: broken.json is not JSON" in strict["detail"]


def test_nothing_restored_is_no_proof(drill: Drill) -> None:
    assert drill.check("components_sound")["status"] == "inconclusive"


def test_a_damaged_pack_fails_the_restore_and_is_marked(drill: Drill, s3_client: S3Client) -> None:
    keys = [
        (one["Size"], one["Key"])
        for one in s3_client.list_objects_v2(Bucket=drill.bucket, Prefix="some/prefix/packs/")["Contents"]
    ]
    for _, key in keys:
        body = bytearray(s3_client.get_object(Bucket=drill.bucket, Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        s3_client.put_object(Bucket=drill.bucket, Key=key, Body=bytes(body))
    found = drill.act("restore_to_scratch")
    assert found["status"] == "failed"
    assert "does not restore" in found["detail"]
    catalogued = Catalogue(drill.store).set("full-1")
    assert catalogued is not None
    assert any(one.last_restore_tested and not one.last_restore_tested.ok for one in catalogued.members)


def test_no_full_backup_is_a_failure(
    seaweedfs: SeaweedFS, s3_client: S3Client, bucket: str, tmp_path: Path, store: Store
) -> None:
    initialise_repository(S3Storage(s3_client, bucket, "some/prefix"), PASSPHRASE)
    found = Drill(seaweedfs, bucket, tmp_path, store).act("restore_to_scratch")
    assert found["status"] == "failed"
    assert "there is nothing to restore" in found["detail"]


def test_what_a_failed_test_left_is_removed_by_the_next(drill: Drill) -> None:
    restored(drill)
    (drill.restored / "uploads" / "files" / "empty").write_text("altered")
    assert drill.check("components_sound", **LENIENT)["status"] == "failed"
    assert drill.restored.is_dir(), "for people to look at"
    following = Drill(drill.seaweedfs, drill.bucket, drill.folder, drill.store)
    restored(following)
    assert not drill.restored.exists()
    assert following.check("components_sound", **LENIENT)["status"] == "passed"
