"""Buckets that keep versions and lock objects: what is removed is gone, what is locked is left for later."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fastvlm_ops.core.backup import AccessDeniedError, S3Storage, initialise_repository, open_repository
from fastvlm_ops.core.backup.collecting import plan_collection
from fastvlm_ops.core.backup.errors import ObjectLockError
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.versions import Locked, Removed
from tests.fault_proxy import FaultProxy, access_denied, on
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import (
    AT_ONCE,
    back_up,
    forget_snapshots,
    gather,
    names,
    require_restores,
    unfinished,
    write_files,
)
from tests.integration.backup.test_network_faults import through
from tests.trees import describe

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)


@pytest.fixture
def versioned(s3_client: S3Client, bucket: str) -> S3Storage:
    s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Storage(s3_client, bucket, "some/prefix")


def versions(storage: S3Storage) -> list[dict[str, Any]]:
    found: Any = storage.client.list_object_versions(Bucket=storage.bucket, Prefix=storage.prefix)
    return [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]


def locked_storage(client: S3Client, bucket: str, mode: Literal["GOVERNANCE", "COMPLIANCE"]) -> S3Storage:
    return S3Storage(client, bucket, "some/prefix", ObjectPolicy(lock_mode=mode, lock_days=1))


def test_removing_from_a_versioned_bucket_leaves_nothing(versioned: S3Storage) -> None:
    """Of exactly that name; hidden by a marker counts as there."""
    for data in (b"one", b"two"):
        versioned.put("packs/a", data)
    versioned.put("packs/a-and-more", b"another")
    versioned.delete("packs/a")
    assert names(versioned, "") == {"packs/a-and-more"}
    assert versioned.remove("packs/a") == Removed(3)
    assert [item["Key"] for item in versions(versioned)] == ["some/prefix/packs/a-and-more"]
    assert versioned.remove("packs/a") == Removed(0)


def test_a_collection_of_a_versioned_bucket_frees_it(versioned: S3Storage, tmp_path: Path) -> None:
    repository = initialise_repository(versioned, PASSPHRASE)
    tree = tmp_path / "source"
    write_files(tree, [("one", 200_000)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    write_files(tree, [("one", 100_000)])
    second = back_up(repository, tree, "run-2", kind="full").snapshot_id
    forget_snapshots(repository, first)
    gather(repository, "collect-1")
    assert sum(item.get("Size", 0) for item in versions(versioned)) < 150_000
    require_restores(repository, {second: describe(tree)}, tmp_path / "target")


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_locked_packs_are_skipped_listed_and_tried_again(
    s3_client: S3Client,
    locking_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: Literal["GOVERNANCE", "COMPLIANCE"],
) -> None:
    storage = locked_storage(s3_client, locking_bucket, mode)
    repository = initialise_repository(storage, PASSPHRASE)
    tree = tmp_path / "source"
    write_files(tree, [("one", 200_000)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    write_files(tree, [("one", 100_000)])
    second = back_up(repository, tree, "run-2", kind="full").snapshot_id
    forget_snapshots(repository, first)
    before = names(storage, "")
    result = gather(repository, "collect-1")
    assert names(storage, "") >= before, "all of it is locked"
    assert result.deleted_objects == 0
    assert result.locked_objects == len(result.left) >= 3
    until = datetime.fromisoformat(result.locked_until or "")
    assert timedelta(hours=23) < until - datetime.now(UTC) <= DAY
    assert {one.partition("/")[0] for one in result.left} == {"packs", "index", "snapshots"}

    again = open_repository(storage, PASSPHRASE)
    assert [set(entry["left"]) for entry in unfinished(again)] == [set(result.left)]
    require_restores(again, {second: describe(tree)}, tmp_path / "target")
    seq = again.refresh().seq
    plan = plan_collection(again, **AT_ONCE)
    assert (plan.locked, plan.does_nothing) == (result.left, True)
    assert gather(again, "collect-2").left == result.left
    assert again.refresh().seq == seq, "nothing is tried, nor written, before the date"

    now = storage.now
    monkeypatch.setattr(storage, "now", lambda: now() + 2 * DAY)
    if mode == "COMPLIANCE":  # tried again too early, it stays as it was
        assert gather(again, "collect-3").left == result.left
        assert [set(entry["left"]) for entry in unfinished(again)] == [set(result.left)]
        return
    for name in result.left:
        release(storage, name)
    time.sleep(3.5)
    last = gather(again, "collect-3")
    assert (last.left, last.deleted_objects) == ({}, len(result.left))
    assert names(storage, "").isdisjoint(result.left)
    assert unfinished(again) == []
    require_restores(again, {second: describe(tree)}, tmp_path / "target")


def release(storage: S3Storage, name: str) -> None:
    """Shorten a lock in GOVERNANCE mode to the next seconds, as whoever may bypass it can."""
    storage.client.put_object_retention(
        Bucket=storage.bucket,
        Key=storage.prefix + name,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=2)},
        BypassGovernanceRetention=True,
    )


def test_dates_of_locks_are_from_the_clock_of_s3(
    s3_client: S3Client, locking_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = locked_storage(s3_client, locking_bucket, "COMPLIANCE")
    list(storage.list(""))

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=300)

    monkeypatch.setattr("fastvlm_ops.core.backup.storage.datetime", Wrong)
    storage.put("packs/one", b"1")
    head: Any = s3_client.head_object(Bucket=locking_bucket, Key="some/prefix/packs/one")
    assert head["ObjectLockMode"] == "COMPLIANCE"
    assert abs(head["ObjectLockRetainUntilDate"] - datetime.now(UTC) - DAY) < timedelta(minutes=10)
    assert isinstance(storage.remove("packs/one"), Locked)


def test_a_bucket_without_lock_is_named(s3_client: S3Client, bucket: str) -> None:
    storage = locked_storage(s3_client, bucket, "GOVERNANCE")
    with pytest.raises(ObjectLockError, match=f"bucket '{bucket}' takes no locked objects"):
        storage.put("packs/one", b"1")


def test_who_may_not_remove_is_told_and_the_next_collection_finishes(
    seaweedfs: SeaweedFS, storage: S3Storage, tmp_path: Path
) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    tree = tmp_path / "source"
    write_files(tree, [("one", 200_000)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    write_files(tree, [("one", 100_000)])
    second = back_up(repository, tree, "run-2", kind="full").snapshot_id
    forget_snapshots(repository, first)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        behind = through(proxy, seaweedfs, storage, timeout_seconds=30, attempts=2)
        opened = open_repository(behind, PASSPHRASE)
        denied = pytest.raises(AccessDeniedError, match="s3:DeleteObject is denied")
        with proxy.faults(on("DeleteObject", access_denied)), denied:
            gather(opened, "collect-1")
    assert len(unfinished(repository)) == 1
    assert gather(repository, "collect-2").deleted_objects >= 3
    assert unfinished(repository) == []
    require_restores(repository, {second: describe(tree)}, tmp_path / "target")


@pytest.mark.parametrize(
    "wrong", [{"lock_mode": "GOVERNANCE"}, {"lock_days": 3}, {"lock_mode": "FOREVER", "lock_days": 1}]
)
def test_a_policy_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lock_"):
        ObjectPolicy(**wrong)


def test_only_packs_have_the_storage_class() -> None:
    policy = ObjectPolicy(storage_class="STANDARD_IA")
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert policy.arguments("packs/aa/x", now) == {"StorageClass": "STANDARD_IA"}
    assert policy.arguments("log/1.json", now) == {}
    locking = ObjectPolicy(lock_mode="COMPLIANCE", lock_days=30)
    assert locking.arguments("log/1.json", now)["ObjectLockRetainUntilDate"] == now + timedelta(days=30)
    assert locking.arguments("probe/1", now) == {}
