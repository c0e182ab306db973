"""What is still needed stays locked, for as long as it is needed; what waits to be removed does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fastvlm_ops.core.backup import (
    AccessDeniedError,
    Repository,
    S3Storage,
    initialise_repository,
    open_repository,
    verify_repository,
)
from fastvlm_ops.core.backup.errors import ObjectLockError, StorageError
from fastvlm_ops.core.backup.key_slots import add_slot, read_keys, rotate_epoch
from fastvlm_ops.core.backup.keys import slot_name
from fastvlm_ops.core.backup.lock_renewal import LockRenewal, renew_locks
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.replicating import removed_names, replicate
from fastvlm_ops.core.backup.storage import ObjectVersion
from fastvlm_ops.core.backup.versions import Retention
from tests.fault_proxy import FaultProxy, access_denied, answer_with, drop, on
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import (
    back_up,
    forget_snapshots,
    gather,
    names,
    require_restores,
    write_files,
)
from tests.integration.backup.test_network_faults import through
from tests.trees import describe

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

DAYS = 4
DAY = timedelta(days=1)
Mode = Literal["GOVERNANCE", "COMPLIANCE"]
Later = Callable[[S3Storage, timedelta], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Has S3's clock go on, as a storage knows it. The server's own stays; all dates are after it too."""

    def go_on(storage: S3Storage, by: timedelta) -> None:
        now = storage.now
        monkeypatch.setattr(storage, "now", lambda: now() + by)

    return go_on


def locked(client: S3Client, bucket: str, mode: Mode = "GOVERNANCE") -> S3Storage:
    return S3Storage(client, bucket, "some/prefix", ObjectPolicy(mode, DAYS))


def history(storage: S3Storage, folder: Path) -> tuple[Repository, str]:
    """Two backups of which the first is forgotten, and what only it needed is condemned but locked."""
    repository = initialise_repository(storage, PASSPHRASE)
    write_files(folder, [("one", 20_000)])
    first = back_up(repository, folder, "run-1", kind="full").snapshot_id
    write_files(folder, [("one", 10_000)])
    second = back_up(repository, folder, "run-2", kind="full").snapshot_id
    forget_snapshots(repository, first)
    assert gather(repository, "collect-1").locked_objects >= 3
    return repository, second


def locks(storage: S3Storage) -> dict[ObjectVersion, Retention | None]:
    """Of all but the probes of conditional writes, which hide behind delete markers."""
    every = (version for version in storage.versions("") if not version.name.startswith("probe/"))
    return {version: storage.retention_of(version) for version in every}


def condemned(repository: Repository) -> set[str]:
    state = repository.refresh()
    return {name for member in ("packs", "indexes", "manifests") for name in state.condemned_names(member)}


def kept(repository: Repository) -> set[ObjectVersion]:
    """Versions that are to stay locked."""
    gone = condemned(repository)
    return {version for version in locks(repository.storage) if version.name not in gone}


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_what_is_needed_is_locked_for_longer_and_what_is_condemned_is_not(
    s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later, mode: Mode
) -> None:
    storage = locked(s3_client, locking_bucket, mode)
    repository, second = history(storage, tmp_path / "source")
    storage.put("probe/one", b"a probe")
    (probe,) = storage.versions("probe/one")
    s3_client.put_object(Bucket=locking_bucket, Key="some/prefix/artefacts/one", Body=b"a report")
    fresh = renew_locks(repository)
    ours = {one for one in kept(repository) if not one.name.startswith("artefacts/")}
    assert (fresh.objects, fresh.renewed, fresh.long_enough) == (len(ours), 0, len(ours))
    before = locks(storage)

    later(storage, 3 * DAY)
    result = renew_locks(open_repository(storage, PASSPHRASE))
    assert {one.name.partition("/")[0] for one in ours} == {
        "config.json",
        "keys",
        "log",
        "packs",
        "index",
        "snapshots",
    }
    assert (result.objects, result.renewed, result.long_enough) == (len(ours), len(ours), 0)
    after = locks(storage)
    now = storage.now()
    for version in after:
        held = after[version]
        if version not in ours:
            assert held == before[version], f"{version.name} is not to be kept"
            continue
        assert held is not None
        assert held.mode == mode
        assert DAYS * DAY - timedelta(minutes=5) < held.until - now <= DAYS * DAY
    dates = [held.until for version, held in after.items() if version in ours and held is not None]
    assert datetime.fromisoformat(result.until or "") == min(dates)
    assert result.usage is not None
    assert result.usage.puts == result.renewed
    assert result.as_dict()["usage"]["heads"] == result.objects
    assert before.keys() == after.keys()
    assert storage.retention_of(probe) is None
    assert condemned(repository)

    again = renew_locks(repository)
    assert (again.renewed, again.long_enough, again.until) == (0, len(ours), result.until)
    assert locks(storage) == after
    assert verify_repository(open_repository(storage, PASSPHRASE), level="full").ok
    require_restores(repository, {second: describe(tmp_path / "source")}, tmp_path / "target")


def test_earlier_versions_and_hidden_ones_are_locked_for_longer(
    s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later
) -> None:
    """They are what is left of what somebody has overwritten or deleted."""
    storage = locked(s3_client, locking_bucket)
    repository, _ = history(storage, tmp_path / "source")
    (overwritten,), (hidden,) = (
        names(storage, below) - condemned(repository) for below in ("packs/", "index/")
    )
    storage.put(overwritten, b"overwritten by whoever has taken over the backup role")
    storage.delete(hidden)
    assert hidden not in names(storage, "index/")
    later(storage, 3 * DAY)
    assert renew_locks(repository).long_enough == 0
    found = [(one.name, held) for one, held in locks(storage).items() if one.name in (overwritten, hidden)]
    assert sorted(name for name, _ in found) == sorted([overwritten, overwritten, hidden])
    assert all(held is not None and held.until > storage.now() + 3 * DAY for _, held in found)


def test_what_was_never_locked_or_is_locked_otherwise(
    s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later
) -> None:
    """Backups from before locks were configured are locked too; a lock in force keeps its mode and date."""
    repository = initialise_repository(S3Storage(s3_client, locking_bucket, "some/prefix"), PASSPHRASE)
    write_files(tmp_path / "source", [("one", 10_000)])
    back_up(repository, tmp_path / "source", "run-1", kind="full")
    storage = locked(s3_client, locking_bucket)
    (pack,), (other,) = storage.versions("packs/"), storage.versions("index/")
    short, long = (datetime.now(UTC).replace(microsecond=0) + days * DAY for days in (1, 30))
    storage.retain(pack, Retention("COMPLIANCE", short))
    storage.retain(other, Retention("COMPLIANCE", long))
    result = renew_locks(open_repository(storage, PASSPHRASE))
    assert result.long_enough == 1
    found = locks(storage)
    assert found.pop(other) == Retention("COMPLIANCE", long)
    assert all(held is not None and held.until > storage.now() + 3 * DAY for held in found.values())
    assert {held.mode for one, held in found.items() if held is not None and one != pack} == {"GOVERNANCE"}
    assert getattr(found[pack], "mode", None) == "COMPLIANCE"


def test_a_slot_that_was_left_out_of_a_rotation_becomes_free(
    s3_client: S3Client, locking_bucket: str, later: Later
) -> None:
    storage = locked(s3_client, locking_bucket)
    repository = initialise_repository(storage, PASSPHRASE)
    slot = add_slot(repository, "another passphrase of the tests")
    rotate_epoch(repository, without=[slot])
    before = locks(storage)
    later(storage, 3 * DAY)
    renew_locks(open_repository(storage, PASSPHRASE))
    name = slot_name(repository.repository_id, slot)
    unchanged = {one.name for one, held in locks(storage).items() if held == before[one]}
    assert unchanged == {name}
    assert [state.slot for state in read_keys(repository).slots if state.reads_to < 2] == [slot]


def test_what_was_removed_from_the_first_place_is_known_in_the_second(
    s3_client: S3Client, locking_bucket: str, bucket: str, tmp_path: Path, later: Later
) -> None:
    """Its log has forgotten the names as soon as they are gone from the first place."""
    first = initialise_repository(S3Storage(s3_client, bucket, "first"), PASSPHRASE)
    tree = tmp_path / "source"
    write_files(tree, [("one", 20_000)])
    gone = back_up(first, tree, "run-1", kind="full").snapshot_id
    second = locked(s3_client, locking_bucket)
    assert replicate(first, second, run_key="replicate-1").ok
    write_files(tree, [("one", 10_000)])
    kept_id = back_up(first, tree, "run-2", kind="full").snapshot_id
    before = names(first.storage, "")
    forget_snapshots(first, gone)
    gather(first, "collect")
    removed = {one for one in before - names(first.storage, "") if not one.startswith("probe/")}
    mirrored = replicate(first, second, run_key="replicate-2", mirror_removals=True)
    assert (mirrored.removed_objects, mirrored.locked_objects) == (0, len(removed))

    for seen in (first, open_repository(first.storage, PASSPHRASE)):
        assert removed_names(seen, second) == removed
    dates = locks(second)
    later(second, 3 * DAY)
    result = renew_locks(open_repository(second, PASSPHRASE), leave_out=removed)
    assert {one.name for one, held in locks(second).items() if held == dates[one]} == removed
    assert result.renewed == len(dates) - len(removed)
    require_restores(
        open_repository(second, PASSPHRASE), {kept_id: describe(tree)}, tmp_path / "target", "there"
    )


def test_nothing_is_asked_where_nothing_is_locked(repository: Repository) -> None:
    before = repository.storage.usage
    assert renew_locks(repository) == LockRenewal()
    assert repository.storage.usage == before


def test_a_bucket_that_takes_no_locks_is_named(s3_client: S3Client, bucket: str) -> None:
    initialise_repository(S3Storage(s3_client, bucket, "some/prefix"), PASSPHRASE)
    repository = open_repository(locked(s3_client, bucket), PASSPHRASE)
    with pytest.raises(ObjectLockError, match=f"bucket '{bucket}' takes no locked objects"):
        renew_locks(repository)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (access_denied, AccessDeniedError, "permission s3:PutObjectRetention is denied for s3://"),
        (answer_with(400, "InvalidArgument"), StorageError, "PutObjectRetention for s3://"),
    ],
)
def test_one_that_is_refused_does_not_keep_the_others_from_being_renewed(
    seaweedfs: SeaweedFS,
    s3_client: S3Client,
    locking_bucket: str,
    tmp_path: Path,
    later: Later,
    fault: Any,
    error: type[Exception],
    message: str,
) -> None:
    storage = locked(s3_client, locking_bucket)
    repository, second = history(storage, tmp_path / "source")
    before = locks(storage)
    refused = "log/00000000000000000001.json"
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        behind = through(proxy, seaweedfs, storage, timeout_seconds=30, attempts=1)
        behind.policy = storage.policy
        later(behind, 3 * DAY)
        opened = open_repository(behind, PASSPHRASE)
        with (
            proxy.faults(on(f"PutObjectRetention {refused}", fault)),
            pytest.raises(error, match=f"^1 of .*{message}.*{refused}") as caught,
        ):
            renew_locks(opened)
        assert type(caught.value) is error
    unchanged = {one.name for one, held in locks(storage).items() if held == before[one]}
    assert unchanged == {refused, *condemned(repository)}
    later(storage, 3 * DAY)
    assert renew_locks(repository).renewed == 1
    require_restores(repository, {second: describe(tmp_path / "source")}, tmp_path / "target")


def test_an_endpoint_that_is_gone_is_not_asked_for_every_object(
    seaweedfs: SeaweedFS, s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later
) -> None:
    storage = locked(s3_client, locking_bucket)
    history(storage, tmp_path / "source")
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        behind = through(proxy, seaweedfs, storage, timeout_seconds=30, attempts=1)
        behind.policy = storage.policy
        later(behind, 3 * DAY)
        opened = open_repository(behind, PASSPHRASE)
        gone = pytest.raises(StorageError, match="did not answer PutObjectRetention")
        with proxy.faults(on("PutObjectRetention", drop)) as requests, gone:
            renew_locks(opened)
    assert sum(request.operation == "PutObjectRetention" for request in requests) <= 16


def test_what_is_removed_meanwhile_is_no_error(
    s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = locked(s3_client, locking_bucket)
    repository, _ = history(storage, tmp_path / "source")
    expected = len(kept(repository))
    vanished = [ObjectVersion("packs/00/gone", "0" * 32), ObjectVersion("log/gone", "1" * 32)]
    listed = storage.versions
    monkeypatch.setattr(
        storage,
        "versions",
        lambda below: [*listed(below), *(v for v in vanished if v.name.startswith(below))],
    )
    later(storage, 3 * DAY)
    result = renew_locks(repository)
    assert result.renewed == result.objects == expected


def test_pages_of_versions_are_followed(
    s3_client: S3Client, locking_bucket: str, tmp_path: Path, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = locked(s3_client, locking_bucket)
    repository, _ = history(storage, tmp_path / "source")
    expected = len(kept(repository))
    page: Any = storage.client.list_object_versions
    monkeypatch.setattr(
        storage.client, "list_object_versions", lambda **asked: page(**asked, MaxKeys=2), False
    )
    later(storage, 3 * DAY)
    assert renew_locks(repository).renewed == expected
