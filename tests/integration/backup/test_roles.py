"""The policies of include/policies on a real server: each role can do its work, and nothing else."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import (
    AccessDeniedError,
    S3Storage,
    initialise_repository,
    keys,
    open_repository,
    publish_set,
    restore_snapshot,
    verify_repository,
)
from fastvlm_ops.core.backup.journal import record_restored
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.key_slots import add_slot, read_keys, remove_slot, rotate_epoch
from fastvlm_ops.core.backup.lock_renewal import renew_locks
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.replicating import replicate
from fastvlm_ops.core.backup.versions import Retention
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.integration.backup.pruning import forget_snapshots, gather
from tests.trees import describe

pytestmark = pytest.mark.integration

POLICIES = Path(__file__).parents[3] / "include" / "policies"
ROLES = ("backup", "restore", "pruning", "keys", "replica")
PREFIX = "company/kit"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """With a user for each role, who may do nothing but what a bucket's policy allows."""
    with SeaweedFS(tmp_path_factory.mktemp("roles"), die_with_parent=True, others=ROLES) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})


def statements(role: str, bucket: str) -> list[dict[str, Any]]:
    """A role's policy for this bucket, said of its user: as docs/backup-roles.md says it is made."""
    text = (POLICIES / f"{role}.json").read_text().replace("BUCKET", bucket).replace("PREFIX", PREFIX)
    principal = {"Principal": {"AWS": [f"arn:aws:iam::*:user/{role}"]}}
    return [{**statement, **principal} for statement in json.loads(text)["Statement"]]


@dataclass
class Bucket:
    """A bucket whose policy is that of all roles, seen by each of them."""

    server: SeaweedFS
    name: str
    policy: ObjectPolicy | None = None

    def storage(self, role: str | None) -> S3Storage:
        return S3Storage(self.server.client(role), self.name, PREFIX, self.policy)


def make_bucket(server: SeaweedFS, *, locked: bool = False) -> Bucket:
    name, owner = f"roles-{uuid.uuid4().hex[:12]}", server.client()
    owner.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    policy = {"Version": "2012-10-17", "Statement": [one for role in ROLES for one in statements(role, name)]}
    owner.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    bucket = Bucket(server, name, ObjectPolicy("GOVERNANCE", 2) if locked else None)
    deadline = time.monotonic() + 30
    while True:  # the gateway learns of the policy a moment later
        try:
            list(bucket.storage("backup").list("log/"))
            return bucket
        except AccessDeniedError:
            assert time.monotonic() < deadline, "the policy never came into force"
            time.sleep(0.05)


@pytest.fixture
def place(server: SeaweedFS) -> Bucket:
    return make_bucket(server)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one.bin").write_bytes(os.urandom(300_000))
    return folder


def denied(permission: str, action: Callable[..., object], *arguments: Any, **options: Any) -> None:
    with pytest.raises(AccessDeniedError, match=f"permission s3:{permission} is denied for s3://"):
        action(*arguments, **options)


def some(storage: S3Storage, prefix: str) -> str:
    return next(storage.list(prefix)).name


def test_nobody_may_do_anything_without_a_policy(server: SeaweedFS) -> None:
    name = server.make_bucket(f"roles-{uuid.uuid4().hex[:12]}")
    for role in ROLES:
        storage = S3Storage(server.client(role), name, PREFIX)
        denied("ListBucket", list, storage.list("log/"))
        denied("PutObject", storage.put, "log/one", b"one")


def test_backups_need_no_more_than_the_backup_role(place: Bucket, folder: Path) -> None:
    initialise_repository(place.storage("keys"), PASSPHRASE)
    mine = place.storage("backup")
    mine.check_bucket()
    repository = initialise_repository(mine, PASSPHRASE)
    back_up(repository, folder, "run-1")
    (folder / "two.bin").write_bytes(os.urandom(100_000))
    back_up(open_repository(mine, PASSPHRASE), folder, "run-2", "incremental")
    publish_set(
        repository,
        set_id="set-1",
        kind="incremental",
        run_key="run-2",
        components=["models"],
        timestamp=datetime.now(UTC),
    )
    result = verify_repository(open_repository(mine, PASSPHRASE), level="full")
    assert (result.ok, result.problems) == (True, ())

    before = {info.name: info for info in place.storage(None).list("")}
    for below in ("packs/", "index/", "snapshots/", "log/", "keys/", "config.json"):
        denied("DeleteObject", mine.delete, some(mine, below))
    denied("PutObject", lambda: mine.put(some(mine, "keys/"), b"no key slot"))
    denied("PutObject", lambda: mine.put("artefacts/one", b"one"))
    denied("GetBucketVersioning", lambda: mine.remove(some(mine, "packs/")))
    for below in ("log/", "packs/", "config.json"):
        assert mine.claim(some(mine, below), b"another") is False, "what is claimed is never overwritten"
    assert {info.name: info for info in place.storage(None).list("")} == before
    outside = S3Storage(mine.client, mine.bucket, "company/other")
    denied("ListBucket", lambda: list(outside.list("")))
    denied("PutObject", lambda: outside.put("packs/one", b"one"))
    denied("GetObject", lambda: outside.get("packs/one", limit_bytes=10))


def test_the_backup_role_cannot_make_a_repository(place: Bucket) -> None:
    """Whoever can write key slots can shut everybody out."""
    denied("PutObject", lambda: initialise_repository(place.storage("backup"), PASSPHRASE))


def test_what_is_overwritten_in_a_bucket_with_versions_is_still_there(
    server: SeaweedFS, folder: Path
) -> None:
    """No policy that all servers know forbids to overwrite by a plain PUT; versions and locks undo it."""
    place = make_bucket(server, locked=True)
    initialise_repository(place.storage("keys"), PASSPHRASE)
    mine = place.storage("backup")
    back_up(open_repository(mine, PASSPHRASE), folder, "run-1")
    packs = [info.name for info in mine.list("packs/")]
    for pack in packs:
        mine.put(pack, b"overwritten by whoever has taken over the backup role")
    assert not verify_repository(open_repository(mine, PASSPHRASE), level="listing").ok
    pruning = place.storage("pruning")
    for pack in packs:
        key: dict[str, Any] = {"Bucket": place.name, "Key": pruning.prefix + pack}
        versions = pruning.client.list_object_versions(Bucket=place.name, Prefix=key["Key"])["Versions"]
        assert len(versions) == 2
        newest = next(version["VersionId"] for version in versions if version["IsLatest"])
        with pytest.raises(Exception, match="AccessDenied"):
            pruning.client.delete_object(**key, VersionId=newest)  # it is locked too, as all that is stored
        server.client().delete_object(**key, VersionId=newest, BypassGovernanceRetention=True)
    assert verify_repository(open_repository(mine, PASSPHRASE), level="full").ok


def test_restores_need_no_more_than_the_restore_role(place: Bucket, folder: Path, tmp_path: Path) -> None:
    initialise_repository(place.storage("keys"), PASSPHRASE)
    snapshot = back_up(open_repository(place.storage("backup"), PASSPHRASE), folder, "run-1")
    mine = place.storage("restore")
    repository = open_repository(mine, PASSPHRASE, chunks=True)
    assert restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target").warnings == ()
    assert describe(tmp_path / "target") == describe(folder)
    assert verify_repository(open_repository(mine, PASSPHRASE), level="full").ok
    before = {info.name: info for info in place.storage(None).list("")}
    for below in ("packs/", "index/", "snapshots/", "log/", "keys/", "config.json"):
        denied("DeleteObject", mine.delete, some(mine, below))
        denied("PutObject", mine.put, some(mine, below), b"another")
        denied("PutObject", mine.claim, f"{below}new", b"new")
    denied("PutObject", lambda: back_up(repository, folder, "run-2", component="other"))
    denied("PutObject", lambda: record(repository, snapshot.snapshot_id))
    assert {info.name: info for info in place.storage(None).list("")} == before


def record(repository: Any, snapshot_id: str) -> None:
    """The note of a restore in the log: operators make a warning of it when it is refused."""
    record_restored(
        repository,
        snapshot_id,
        set_id="set-1",
        run_key="restore",
        where="new folder",
        files=1,
        size_bytes=1,
        duration_seconds=1.0,
    )


def test_pruning_needs_no_more_than_the_pruning_role(place: Bucket, folder: Path, tmp_path: Path) -> None:
    initialise_repository(place.storage("keys"), PASSPHRASE)
    writer = open_repository(place.storage("backup"), PASSPHRASE)
    first = back_up(writer, folder, "run-1")
    (folder / "one.bin").write_bytes(os.urandom(300_000))
    second = back_up(writer, folder, "run-2")
    forget_snapshots(writer, first.snapshot_id)
    denied("GetBucketVersioning", lambda: gather(writer, "of the backup role"))
    mine = place.storage("pruning")
    repository = open_repository(mine, PASSPHRASE, chunks=True)
    result = gather(repository, "collect")
    assert result.deleted_objects > 0
    assert first.snapshot_id not in repository.refresh().snapshots
    restore_snapshot(open_repository(mine, PASSPHRASE), second.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(folder)
    for below in ("log/", "keys/", "config.json"):
        denied("DeleteObject", mine.remove, some(mine, below))
    denied("PutObject", lambda: mine.put(some(mine, "keys/"), b"no key slot"))
    denied("PutObject", lambda: mine.put("snapshots/models/one", b"no manifest"))


def later(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have less than half of two days be left, by S3's clock as this storage knows it."""
    now = storage.now
    monkeypatch.setattr(storage, "now", lambda: now() + timedelta(hours=30))


def test_locks_are_renewed_by_the_pruning_role_and_shortened_by_none(
    server: SeaweedFS, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_bucket(server, locked=True)
    initialise_repository(place.storage("keys"), PASSPHRASE)
    theirs = place.storage("backup")
    back_up(open_repository(theirs, PASSPHRASE), folder, "run-1")
    denied("ListBucketVersions", lambda: renew_locks(open_repository(theirs, PASSPHRASE)))
    mine = place.storage("pruning")
    later(mine, monkeypatch)
    result = renew_locks(open_repository(mine, PASSPHRASE))
    assert result.renewed == result.objects == len(list(mine.list(""))) - len(list(mine.list("probe/")))

    owner = place.storage(None)
    (pack, *_) = owner.versions("packs/")
    held = owner.retention_of(pack)
    assert held is not None
    soon = Retention("GOVERNANCE", datetime.now(UTC) + timedelta(seconds=5))
    for role in ROLES:
        storage = place.storage(role)
        denied("PutObjectRetention", storage.retain, pack, soon)
        with pytest.raises(Exception, match="AccessDenied"):
            storage.client.put_object_retention(
                Bucket=place.name,
                Key=storage.prefix + pack.name,
                VersionId=pack.version_id,
                Retention={"Mode": soon.mode, "RetainUntilDate": soon.until},
                BypassGovernanceRetention=True,
            )
    assert owner.retention_of(pack) == held


def test_the_second_place_needs_no_more_than_the_replica_role(
    server: SeaweedFS, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are copied too, and locks renewed; nothing is removed."""
    place = make_bucket(server)
    initialise_repository(place.storage("keys"), PASSPHRASE)
    back_up(open_repository(place.storage("backup"), PASSPHRASE), folder, "run-1")
    first = open_repository(place.storage("restore"), PASSPHRASE)
    second = make_bucket(server, locked=True)
    mine = second.storage("replica")
    assert replicate(first, mine, run_key="replicate").ok
    copied = open_repository(mine, PASSPHRASE)
    assert verify_repository(copied, level="full").ok
    later(mine, monkeypatch)
    result = renew_locks(copied)
    assert result.renewed == result.objects > 0
    for below in ("packs/", "index/", "snapshots/", "log/", "keys/", "config.json"):
        denied("DeleteObject", mine.delete, some(mine, below))
    denied("PutObject", lambda: mine.put("artefacts/one", b"one"))


def test_keys_need_no_more_than_the_keys_role(place: Bucket, folder: Path) -> None:
    mine = place.storage("keys")
    repository = initialise_repository(mine, PASSPHRASE)
    back_up(open_repository(place.storage("backup"), PASSPHRASE), folder, "run-1")
    slot = add_slot(repository, KeyFile(b"a key file of the tests, long enough"))
    rotate_epoch(repository)
    repository = open_repository(mine, PASSPHRASE)
    with pytest.raises(
        AccessDeniedError, match=r"permission s3:(DeleteObject|GetBucketVersioning) is denied"
    ):
        remove_slot(open_repository(place.storage("backup"), PASSPHRASE), slot, PASSPHRASE)
    remove_slot(repository, slot, PASSPHRASE)
    assert [state.is_in_use for state in read_keys(repository).slots] == [True]
    epoch = f"keys/{repository.repository_id}/epochs/00002.json"
    denied("DeleteObject", lambda: mine.remove(epoch))
    denied("ListBucket", lambda: list(mine.list("packs/")))
    theirs = place.storage("backup")
    for below in ("packs/", "log/", "snapshots/"):
        denied("GetObject", mine.get, some(theirs, below), limit_bytes=1 << 24)
        denied("DeleteObject", mine.delete, some(theirs, below))
        denied("PutObject", mine.put, some(theirs, below), b"another")
