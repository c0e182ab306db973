"""A network that fails once, for ever, or in the middle; missing permissions; a disk that is full."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fastvlm_ops.core.backup import (
    AccessDeniedError,
    CredentialsError,
    FolderSource,
    Repository,
    RestoreTargetError,
    S3Storage,
    SnapshotResult,
    SourceError,
    SQLiteSource,
    StorageError,
    create_client,
    create_snapshot,
    open_repository,
    restore_snapshot,
    s3_requests,
)
from tests import fault_proxy
from tests.fault_proxy import FaultProxy, first_try, on
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

TEMPORARY = b".fastvlm-restore-"
FAULTS = ("drop", "reset", "internal_error", "slow_down", "hang")
PLACES = (
    "PutObject packs/",
    "PutObject index/",
    "PutObject snapshots/",
    "PutObject log/",
    "PutObject config.json",
)
LONGEST_SECONDS = 60


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small packs, so that a backup makes many requests; and a tenth of the pauses between tries."""
    monkeypatch.setattr("fastvlm_ops.core.backup.packs.PACK_BYTES", 200 << 10)
    monkeypatch.setattr("fastvlm_ops.core.backup.writing._PACKS_PER_SEGMENT", 2)
    for name in ("_WAIT_SECONDS", "_THROTTLED_WAIT_SECONDS", "_LONGEST_WAIT_SECONDS"):
        monkeypatch.setattr(s3_requests, name, getattr(s3_requests, name) / 10)


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, storage: S3Storage) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        yield proxy


@pytest.fixture
def remote(proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage, repository: Repository) -> S3Storage:
    """The repository through the proxy, by a client that soon gives up."""
    return through(proxy, seaweedfs, storage, timeout_seconds=2, attempts=2)


@pytest.fixture
def impatient(
    proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage, repository: Repository
) -> S3Storage:
    """As ``remote``, for what has to fail often."""
    return through(proxy, seaweedfs, storage, timeout_seconds=0.5, attempts=3)


def through(
    proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage, *, timeout_seconds: float, attempts: int
) -> S3Storage:
    client = create_client(
        endpoint_url=proxy.endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
        connect_timeout_seconds=timeout_seconds,
        read_timeout_seconds=timeout_seconds,
        attempts=attempts,
    )
    return S3Storage(client, storage.bucket, storage.prefix)


class Kit(NamedTuple):
    folder: Path
    original: Any
    target: Path

    def back_up(self, storage: S3Storage, run_key: str = "run") -> SnapshotResult:
        return create_snapshot(
            open_repository(storage, PASSPHRASE),
            FolderSource(self.folder),
            component="models",
            kind="incremental",
            run_key=run_key,
        )

    def check(self, storage: S3Storage, snapshot_id: str) -> None:
        restore_snapshot(open_repository(storage, PASSPHRASE), snapshot_id, self.target)
        assert describe(self.target) == self.original

    def assert_nothing_wrong(self) -> None:
        """What bears its final name is whole."""
        for path, about in describe(self.target).items() if self.target.exists() else ():
            if "sha256" in about and not path.rpartition(b"/")[2].startswith(TEMPORARY):
                assert about["sha256"] == self.original[path]["sha256"], path


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    folder = make_plain_tree(tmp_path / "source", files=10, large_bytes=2 << 20)  # three packs at least
    return Kit(folder, describe(folder), tmp_path / "target")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", [*FAULTS, "lose_answer"])
def test_a_single_fault_is_survived(
    fault: str, place: str, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    with proxy.faults(on(place, getattr(fault_proxy, fault), only=1)) as requests:
        result = kit.back_up(remote)
    assert any(request.place.startswith(place) for request in requests)
    assert list(open_repository(storage, PASSPHRASE).refresh().snapshots) == [result.snapshot_id]
    kit.check(storage, result.snapshot_id)


@pytest.mark.parametrize("fault", [*FAULTS, "lose_answer", "truncate", "stall"])
def test_a_single_fault_of_a_restore(
    fault: str, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    snapshot_id = kit.back_up(storage).snapshot_id
    with proxy.faults(on("GetObject packs/", getattr(fault_proxy, fault), only=2)) as requests:
        kit.check(remote, snapshot_id)
    assert sum(request.place.startswith("GetObject packs/") for request in requests) >= 2


@pytest.mark.parametrize("fault", [*FAULTS, "truncate"])
def test_every_request_fails_once(
    fault: str,
    proxy: FaultProxy,
    impatient: S3Storage,
    storage: S3Storage,
    kit: Kit,
) -> None:
    with proxy.faults(first_try(getattr(fault_proxy, fault))) as requests:
        result = kit.back_up(impatient)
        kit.check(impatient, result.snapshot_id)
    tries = Counter(
        (request.place, request.range)
        for request in requests
        if fault != "truncate" or request.operation in ("GetObject", "ListObjectsV2")  # they have a body
    )
    assert len(tries) >= 12
    assert min(tries.values()) >= 2
    assert list(open_repository(storage, PASSPHRASE).refresh().snapshots) == [result.snapshot_id]


@pytest.mark.parametrize("first", [1, 4, 8])
@pytest.mark.parametrize("fault", [*FAULTS, "truncate", "stall"])
def test_a_fault_for_ever_ends_the_restore_which_is_continued(
    fault: str, first: int, proxy: FaultProxy, impatient: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    snapshot_id = kit.back_up(storage).snapshot_id
    began = time.monotonic()
    with (
        proxy.faults(on("", getattr(fault_proxy, fault), first=first)),
        pytest.raises(StorageError, match=r"GetObject|ListObjects") as caught,
    ):
        restore_snapshot(open_repository(impatient, PASSPHRASE), snapshot_id, kit.target)
    assert time.monotonic() - began < LONGEST_SECONDS
    assert str(storage) in str(caught.value)
    kit.assert_nothing_wrong()
    kit.check(impatient, snapshot_id)


@pytest.mark.parametrize("first", [1, 6, 14])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_for_ever_ends_the_run_which_is_continued(
    fault: str, first: int, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    began = time.monotonic()
    with (
        proxy.faults(on("", getattr(fault_proxy, fault), first=first)),
        pytest.raises(StorageError) as caught,
    ):
        kit.back_up(remote)
    assert time.monotonic() - began < LONGEST_SECONDS
    assert proxy.endpoint_url in str(caught.value) or "Object" in str(caught.value)
    sent = sum(info.size_bytes for info in storage.list("packs/"))
    assert not open_repository(storage, PASSPHRASE).refresh().snapshots
    result = kit.back_up(remote)
    assert result.new_bytes <= result.size_bytes - sent + (512 << 10)
    kit.check(storage, result.snapshot_id)


@pytest.mark.parametrize(
    ("place", "permission"),
    [("PutObject", "PutObject"), ("GetObject", "GetObject"), ("ListObjectsV2", "ListBucket")],
)
def test_a_missing_permission_is_named(
    place: str, permission: str, proxy: FaultProxy, remote: S3Storage, kit: Kit
) -> None:
    with (
        proxy.faults(on(place, fault_proxy.access_denied)),
        pytest.raises(AccessDeniedError, match=f"permission s3:{permission} is denied"),
    ):
        kit.back_up(remote)


@pytest.mark.parametrize(("place", "permission"), [("Get", "GetObject"), ("List", "ListBucket")])
def test_a_permission_that_a_restore_lacks_is_named(
    place: str, permission: str, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    snapshot_id = kit.back_up(storage).snapshot_id
    repository = open_repository(remote, PASSPHRASE)
    with (
        proxy.faults(on(place, fault_proxy.access_denied)),
        pytest.raises(AccessDeniedError, match=f"permission s3:{permission} is denied"),
    ):
        restore_snapshot(repository, snapshot_id, kit.target)
    assert not kit.target.exists()


def test_nothing_has_to_be_deleted(
    proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit
) -> None:
    with proxy.faults(on("DeleteObject", fault_proxy.access_denied)) as requests:
        result = kit.back_up(remote)
    assert requests
    assert not any(request.operation == "DeleteObject" for request in requests)
    kit.check(storage, result.snapshot_id)


def test_credentials_that_expire(proxy: FaultProxy, remote: S3Storage, storage: S3Storage, kit: Kit) -> None:
    with (
        proxy.faults(on("PutObject packs/", fault_proxy.expired_token, first=2)),
        pytest.raises(CredentialsError, match="ExpiredToken"),
    ):
        kit.back_up(remote)
    sent = sum(info.size_bytes for info in storage.list("packs/"))
    assert sent
    result = kit.back_up(remote)
    assert result.new_bytes <= result.size_bytes - sent + (512 << 10)
    kit.check(storage, result.snapshot_id)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB; where none may be mounted, the limited files below stand in for it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(file: Path) -> None:
    """Take what is left of the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)


def test_a_full_disk(
    storage: S3Storage,
    repository: Repository,
    kit: Kit,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused by the check; where space goes meanwhile, nothing half stays and it can be continued."""
    snapshot_id = kit.back_up(storage).snapshot_id
    filler = small_disk / "filler"
    target = small_disk / "target"
    filler.write_bytes(random.Random(1).randbytes(2560 << 10))
    with pytest.raises(RestoreTargetError, match="free, the restore needs"):
        restore_snapshot(repository, snapshot_id, target)
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    with pytest.raises(RestoreTargetError, match="the disk is full"):
        restore_snapshot(repository, snapshot_id, target)
    kit._replace(target=target).assert_nothing_wrong()
    fill(filler)
    for place in (target, small_disk / "other"):
        with pytest.raises(RestoreTargetError, match=r"the disk is full|No space left"):
            restore_snapshot(repository, snapshot_id, place)
    filler.unlink()
    for place in (target, small_disk / "other"):
        restore_snapshot(repository, snapshot_id, place)
        assert describe(place) == kit.original
        shutil.rmtree(place)


@contextlib.contextmanager
def files_limited(size_bytes: int) -> Iterator[None]:
    """As on a disk that is full at some place in a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_to_its_end(
    storage: S3Storage, repository: Repository, kit: Kit
) -> None:
    snapshot_id = kit.back_up(storage).snapshot_id
    with (
        files_limited(1 << 20),
        pytest.raises(RestoreTargetError, match=r"weight\.bin cannot be written: File too large"),
    ):
        restore_snapshot(repository, snapshot_id, kit.target)
    kit.assert_nothing_wrong()
    assert not list(kit.target.rglob("weight.bin"))
    assert not list(kit.target.rglob(f"{TEMPORARY.decode()}*"))
    kit.check(storage, snapshot_id)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """4 MiB of SQLite."""
    path = tmp_path / "application.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (randomblob(4000))", [()] * 1000)
        connection.commit()
    return path


def back_up_database(repository: Repository, database: Path, scratch: Path) -> SnapshotResult:
    source = SQLiteSource(database, scratch_dir=scratch)
    return create_snapshot(repository, source, component="data", kind="full", run_key="run")


def test_no_room_for_the_copy_of_a_database(
    repository: Repository, database: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"disk.* bytes free; the copy of .*application\.db needs"):
        back_up_database(repository, database, small_disk)
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    with pytest.raises(SourceError, match=r"application\.db cannot be copied: database or disk is full"):
        back_up_database(repository, database, small_disk)
    assert list(small_disk.iterdir()) == []
    assert repository.refresh().snapshots == {}


def test_a_copy_of_a_database_that_cannot_be_written_to_its_end(
    repository: Repository, database: Path, tmp_path: Path
) -> None:
    with files_limited(1 << 20), pytest.raises(SourceError, match=r"application\.db cannot be copied"):
        back_up_database(repository, database, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(SourceError, match=r"cannot be copied to .*application\.db/scratch: Not a directory"):
        back_up_database(repository, database, database / "scratch")
    back_up_database(repository, database, tmp_path / "scratch")


def test_no_room_for_the_list_of_files(
    storage: S3Storage,
    repository: Repository,
    kit: Kit,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (small_disk / "filler").write_bytes(bytes(3 << 20))
    monkeypatch.setattr("fastvlm_ops.core.backup.storing._TREE_SPOOL_BYTES", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", os.fspath(small_disk))
        with pytest.raises(SourceError, match=r"the disk of .*/disk is full, where the list of files"):
            kit.back_up(storage)
    kit.check(storage, kit.back_up(storage).snapshot_id)
