"""A second place on a second real server: consistent at every moment, and enough when the first is gone."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    AccessDeniedError,
    BucketNotFoundError,
    Repository,
    S3Storage,
    create_client,
    initialise_repository,
    open_repository,
    publish_set,
    restore_snapshot,
    select_set,
)
from fastvlm_ops.core.backup import replicating as engine
from fastvlm_ops.core.backup.catalogue import Catalogue, rebuild_catalogue
from fastvlm_ops.core.backup.collecting import collect
from fastvlm_ops.core.backup.commit_log import entry_name
from fastvlm_ops.core.backup.errors import DivergedError, OtherRepositoryError
from fastvlm_ops.core.backup.replicating import ReplicationResult, replicate
from fastvlm_ops.core.backup.verify import verify_repository
from fastvlm_ops.core.store import open_store
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.fault_proxy import Exchange, FaultProxy, Request, access_denied, internal_error, on
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The server of the second place."""
    with SeaweedFS(tmp_path_factory.mktemp("second"), die_with_parent=True) as server:
        yield server
    shutil.rmtree(server.folder / "data")


@pytest.fixture
def target(other_server: SeaweedFS) -> S3Storage:
    """An empty bucket there."""
    name = other_server.make_bucket(f"second-{uuid.uuid4().hex[:12]}")
    return S3Storage(other_server.client(), name, "copy/of/it")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small folder to back up; :func:`change` makes it another."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(300_000))
    (folder / "manifest.json").write_text("{}")
    return folder


def change(tree: Path, name: str = "new.bin", size: int = 100_000) -> None:
    (tree / name).write_bytes(os.urandom(size))


def copy(repository: Repository, target: S3Storage, **options: object) -> ReplicationResult:
    return replicate(repository, target, run_key="replicate/1", **options)  # type: ignore[arg-type]


def objects(storage: S3Storage) -> dict[str, int]:
    return {info.name: info.size_bytes for info in storage.list("") if not info.name.startswith("probe/")}


def require_equal(one: S3Storage, other: S3Storage) -> None:
    ours = objects(one)
    assert objects(other) == ours
    for name in ours:
        assert other.get(name, limit_bytes=1 << 30) == one.get(name, limit_bytes=1 << 30), name


def test_copies_everything_then_only_what_is_new(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    first = copy(repository, target)
    assert first.ok, first.text()
    assert (first.sequence, first.entries, first.behind_entries, first.behind_seconds) == (1, 1, 0, 0)
    assert first.objects == len(objects(repository.storage)) - 3  # configuration, key slot, entry
    require_equal(repository.storage, target)

    nothing = copy(repository, target)
    assert nothing.ok
    assert (nothing.objects, nothing.size_bytes, nothing.entries) == (0, 0, 0)
    assert nothing.present_objects == first.objects
    assert nothing.complete_until is not None
    assert nothing.target_usage is not None
    assert nothing.target_usage.sent_bytes < 10_000

    change(tree)
    back_up(repository, tree, "run-2", kind="incremental")
    second = copy(repository, target)
    assert second.ok
    assert second.entries == 1
    assert 0 < second.size_bytes < 200_000 < first.size_bytes
    require_equal(repository.storage, target)


def test_every_share_is_compared_by_checksum_and_what_differs_is_put_back(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    copy(repository, target)
    pack = next(target.list("packs/"))
    segment = next(target.list("index/"))
    good = {name: target.get(name, limit_bytes=1 << 30) for name in (pack.name, segment.name)}
    target.put(pack.name, bytes(pack.size_bytes))
    target.put(segment.name, good[segment.name] + b"longer")
    results = [copy(repository, target, verify_share=(share, 3)) for share in range(3)]
    assert all(result.ok for result in results)
    assert {name for result in results for name in result.repaired} == set(good)
    assert segment.name in results[0].repaired, "which its size shows at once"
    assert sum(result.checked_objects for result in results) >= results[0].present_objects - 1
    require_equal(repository.storage, target)


def test_a_damaged_object_is_named_and_not_copied_and_the_rest_goes_on(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    made = [back_up(repository, tree, "run-1")]
    change(tree)
    before = objects(repository.storage)
    made.append(back_up(repository, tree, "run-2", kind="incremental"))
    hit = [name for name in objects(repository.storage).keys() - before.keys() if name.startswith("packs/")]
    change(tree, "later.bin")
    made.append(back_up(repository, tree, "run-3", kind="incremental"))
    good = {name: repository.storage.get(name, limit_bytes=1 << 30) for name in hit}
    for name in hit:
        repository.storage.put(name, good[name][:-1] + b"?")
    result = copy(repository, target)
    assert not result.ok
    assert [name for name, _ in result.damaged] == sorted(hit)
    assert (result.sequence, result.behind_entries) == (1, 2)
    assert result.behind_seconds >= 0
    assert result.complete_until is None
    assert f"snapshot {made[1].snapshot_id} is not whole there" in result.held_back
    assert not objects(target).keys() & set(hit)
    assert objects(repository.storage).keys() - objects(target).keys() == {*hit, entry_name(2), entry_name(3)}
    assert verify_repository(seen(repository, target), level="full").ok

    for name, data in good.items():
        repository.storage.put(name, data)
    assert copy(repository, target).ok
    require_equal(repository.storage, target)


def test_damage_that_nothing_needs_holds_nothing_back_but_fails(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    repository.storage.put(f"packs/ab/ab{'0' * 62}", b"left by nobody")
    result = copy(repository, target)
    assert not result.ok
    assert (result.sequence, result.held_back, result.damaged_count) == (1, "", 1)


def test_a_log_that_diverged_is_refused_and_the_entry_named(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    copy(repository, target)
    change(tree)
    back_up(seen(repository, target), tree, "run-2")
    before = objects(target)
    with pytest.raises(DivergedError, match=entry_name(2)):
        copy(repository, target)
    for run in ("run-2", "run-3", "run-4"):
        back_up(repository, tree, run)
    with pytest.raises(DivergedError, match=entry_name(2)):
        copy(repository, target)
    assert objects(target) == before


def test_entries_that_are_lost_or_damaged_there_are_put_back(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    for run in range(5):
        back_up(repository, tree, f"run-{run}", kind="incremental")
    copy(repository, target)
    target.delete(entry_name(2))
    target.put(entry_name(3), b"short")
    target.put(entry_name(5), bytes(len(target.get(entry_name(5), limit_bytes=1 << 20))))
    result = copy(repository, target)
    assert result.ok
    assert result.repaired == (entry_name(2), entry_name(3), entry_name(5))
    require_equal(repository.storage, target)


def test_other_places_are_refused(
    repository: Repository, target: S3Storage, seaweedfs: SeaweedFS, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    source = repository.storage
    alias = S3Storage(
        create_client(
            endpoint_url=seaweedfs.endpoint_url.replace("127.0.0.1", "localhost"),
            access_key_id=seaweedfs.access_key_id,
            secret_access_key=seaweedfs.secret_access_key,
        ),
        source.bucket,
        source.prefix,
    )
    with pytest.raises(OtherRepositoryError, match="the place of the repository itself"):
        copy(repository, alias)
    with pytest.raises(BucketNotFoundError):
        copy(repository, S3Storage(target.client, "no-such-bucket"))
    occupied = S3Storage(target.client, target.bucket, "occupied")
    occupied.put("holiday/photo.jpg", b"photo")
    with pytest.raises(OtherRepositoryError, match=r"holds holiday/photo.jpg, but no repository"):
        copy(repository, occupied)
    foreign = initialise_repository(S3Storage(target.client, target.bucket, "foreign"), PASSPHRASE)
    with pytest.raises(OtherRepositoryError, match=foreign.repository_id):
        copy(repository, foreign.storage)


def test_a_second_place_that_may_only_be_read_is_said(
    repository: Repository, target: S3Storage, other_server: SeaweedFS, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    copy(repository, target)
    back_up(repository, tree, "run-2")
    with FaultProxy(other_server.endpoint_url, target.prefix) as proxy:
        behind = S3Storage(_client(proxy.endpoint_url, other_server), target.bucket, target.prefix)
        with (
            proxy.faults(on("PutObject", access_denied)),
            pytest.raises(AccessDeniedError, match="s3:PutObject"),
        ):
            copy(repository, behind)
        assert restorable(seen(repository, target), tree.parent / "restored") == 1
        with proxy.faults(on("PutObject packs", internal_error, only=1)) as requests:
            change(tree)
            back_up(repository, tree, "run-3", kind="incremental")
            assert copy(repository, behind).ok, "a request is tried again"
        assert Counter(request.operation for request in requests)["PutObject"] > 3


def _client(endpoint_url: str, server: SeaweedFS, attempts: int = 2) -> S3Client:
    return create_client(
        endpoint_url=endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        attempts=attempts,
    )


def seen(repository: Repository, place: S3Storage) -> Repository:
    """The repository as it is in another place, opened without deriving its key once more."""
    return Repository(place, repository.ring, place.get("config.json", limit_bytes=1 << 20))


def restorable(repository: Repository, folder: Path) -> int:
    """How many snapshots there are; each restores."""
    ids = list(repository.refresh().snapshots)
    for snapshot_id in ids:
        restore_snapshot(repository, snapshot_id, folder)
        shutil.rmtree(folder)
    return len(ids)


class Stopped(BaseException):
    """As a kill: nothing of the engine catches it."""


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7], ids=["every", "some"])
def test_stopped_at_every_request_it_is_a_repository_and_the_next_run_finishes(
    step: int,
    repository: Repository,
    target: S3Storage,
    other_server: SeaweedFS,
    tree: Path,
    tmp_path: Path,
) -> None:
    back_up(repository, tree, "run-1")
    change(tree)
    back_up(repository, tree, "run-2", kind="incremental")
    wanted = objects(repository.storage)
    with FaultProxy(other_server.endpoint_url, "") as proxy:
        client = _client(proxy.endpoint_url, other_server, attempts=1)
        for number in itertools.count(step, step):
            place = S3Storage(client, target.bucket, f"stopped/{number}")
            proxy.prefix = place.prefix
            stopped = _stopping(repository, place, proxy, number)
            if entry_name(1) in objects(place):
                assert verify_repository(seen(repository, place), level="listing").ok, number
            assert copy(repository, place).ok
            assert objects(place) == wanted, number
            if not stopped:
                break
    assert number > 12
    direct = S3Storage(target.client, place.bucket, place.prefix)
    assert restorable(seen(repository, direct), tmp_path / "restored") == 2


def _stopping(repository: Repository, place: S3Storage, proxy: FaultProxy, number: int) -> bool:
    """Replicate until a request; from then on, none gets through any more. Whether it was."""
    stopped = False

    def cut(exchange: Exchange) -> None:
        nonlocal stopped
        stopped = True
        if exchange.request.number == number:
            exchange.forward()  # which the server still does

    def rule(request: Request) -> Callable[[Exchange], None] | None:
        return cut if request.number >= number else None

    with proxy.faults(rule):
        try:
            copy(repository, place)
        except Exception:  # of many kinds: the connection is closed
            assert stopped
    return stopped


def test_killed_by_sigkill_the_next_run_sends_only_what_is_missing(
    repository: Repository, target: S3Storage, other_server: SeaweedFS, tree: Path
) -> None:
    for number in range(4):
        change(tree, f"file-{number}.bin", 9_000_000)
    back_up(repository, tree, "run-1")
    whole = objects(repository.storage)
    with FaultProxy(other_server.endpoint_url, target.prefix) as proxy:
        place = S3Storage(_client(proxy.endpoint_url, other_server), target.bucket, target.prefix)
        child = 0

        def kill(exchange: Exchange) -> None:
            os.kill(child, signal.SIGKILL)

        with proxy.faults(on("PutObject packs", kill, only=3)):
            child = os.fork()
            if child == 0:
                try:
                    copy(repository, place)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        proxy.wait_for_clients()
    left = sum(size for name, size in objects(target).items() if name.startswith("packs/"))
    assert left > 0
    result = copy(repository, target)
    assert result.ok
    assert result.size_bytes <= sum(whole.values()) - left
    require_equal(repository.storage, target)


def test_what_a_collection_removes_meanwhile_is_no_damage(
    repository: Repository, target: S3Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is forgotten and its packs are swept between the listing and the fetch of them."""
    kept = back_up(repository, tree, "run-1")
    before = objects(repository.storage)
    change(tree)
    gone = back_up(repository, tree, "run-2", kind="incremental")
    doomed = objects(repository.storage).keys() - before.keys() - {entry_name(2)}
    other = seen(repository, repository.storage)

    def collect(*arguments: object, **options: object) -> set[str]:
        monkeypatch.undo()
        listed = list(repository.storage.list("packs/"))
        _sweep(other, gone.snapshot_id, doomed)
        return self_copy(*arguments, listed=listed, **{k: v for k, v in options.items() if k != "listed"})

    self_copy = engine.ObjectCopier.copy
    monkeypatch.setattr(engine.ObjectCopier, "copy", collect)
    result = copy(repository, target)
    assert result.ok, result.text()
    assert result.sequence == other.refresh().seq
    assert not objects(target).keys() & doomed
    assert list(seen(repository, target).refresh().snapshots) == [kept.snapshot_id]
    assert verify_repository(seen(repository, target), level="full").ok


def _forget(repository: Repository, snapshot_id: str) -> None:
    repository.refresh()
    body = {"snapshots": [snapshot_id], "sets": [], "run_key": "f", "key": "forget/f"}
    repository.log.append("forget", body)


def _sweep(repository: Repository, snapshot_id: str, names: set[str]) -> None:
    """What a collection does, without looking what else needs it."""
    log = repository.log
    _forget(repository, snapshot_id)
    condemned = {
        member: sorted(name for name in names if name.startswith(prefix))
        for member, prefix in (("packs", "packs/"), ("indexes", "index/"), ("manifests", "snapshots/"))
    }
    seq = log.append("condemn", {**condemned, "wal": [], "key": "condemn/f"})
    for name in names:
        repository.storage.delete(name)
    log.append("swept", {"condemn": seq, "left": []})


def test_a_collection_in_between_is_mirrored_only_where_that_is_asked_for(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    kept = back_up(repository, tree, "run-1")
    change(tree)
    gone = back_up(repository, tree, "run-2", kind="incremental")
    lost = f"packs/cd/cd{'1' * 62}"
    copy(repository, target)
    target.put(lost, b"which the log has never condemned")
    before = objects(repository.storage)
    _forget(repository, gone.snapshot_id)
    limits = {"max_waste": 1.0, "copy_limit_bytes": 0, "max_share": 1.0}
    collect(repository, keep_unreferenced=timedelta(0), run_key="collect", **limits)  # type: ignore[arg-type]
    doomed = before.keys() - objects(repository.storage).keys()
    assert any(name.startswith("packs/") for name in doomed)
    result = copy(repository, target)
    assert result.ok, result.text()
    assert objects(target).keys() > doomed, "more is kept, which harms nobody"
    assert result.extra_objects == len(doomed) + 1
    place = seen(repository, target)
    assert list(place.refresh().snapshots) == [kept.snapshot_id]
    assert verify_repository(place, level="full").ok

    mirrored = copy(repository, target, mirror_removals=True)
    assert mirrored.removed_objects == len(doomed)
    assert objects(target).keys() - objects(repository.storage).keys() == {lost}
    assert verify_repository(seen(repository, target), level="full").ok
    assert copy(repository, target, mirror_removals=True).removed_objects == 0


def test_a_removed_key_slot_is_told(repository: Repository, target: S3Storage, tree: Path) -> None:
    back_up(repository, tree, "run-1")
    copy(repository, target)
    name = f"keys/{repository.repository_id}/{uuid.uuid4().hex}.json"
    target.put(name, b"{}")
    assert any(name in warning for warning in copy(repository, target).warnings)


def test_when_the_first_place_is_gone_the_second_is_enough(
    tmp_path_factory: pytest.TempPathFactory, target: S3Storage, tree: Path, tmp_path: Path
) -> None:
    """A whole server less: restored, catalogue rebuilt, and made the first place."""
    with SeaweedFS(tmp_path_factory.mktemp("first"), die_with_parent=True) as server:
        storage = S3Storage(server.client(), server.make_bucket("first"), "kit")
        repository = initialise_repository(storage, PASSPHRASE)
        made = back_up(repository, tree, "run-1")
        published = publish_set(
            repository,
            set_id="full-1",
            kind="full",
            run_key="run-1",
            components=["models"],
            timestamp=storage.now(),
        )
        assert copy(repository, target).ok
    shutil.rmtree(server.folder / "data")

    place = open_repository(target, PASSPHRASE)
    assert select_set(place, "latest").set_id == published.set_id
    restore_snapshot(place, made.snapshot_id, tmp_path / "restored")
    assert describe(tmp_path / "restored") == describe(tree)
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as store:
        rebuild_catalogue(store, place)
        assert [found.set_id for found in Catalogue(store).sets()] == ["full-1"]

    change(tree)
    later = back_up(place, tree, "run-2", kind="incremental")
    assert later.new_bytes < 200_000, "it goes on where the first one ended"


def test_results_are_small_json_and_say_what_is_wrong(
    repository: Repository, target: S3Storage, tree: Path
) -> None:
    back_up(repository, tree, "run-1")
    result = copy(repository, target)
    content = result.as_dict()
    assert content["usage"]["gets"] > 0
    assert content["target_usage"]["puts"] >= result.objects
    assert result.text().startswith("replicate: ok, ")
    bad = replace(result, ok=False, damaged=(("packs/x", "is short"),), damaged_count=3, held_back="why")
    assert "packs/x: is short" in bad.text()
    assert "… and 2 more" in bad.text()
    assert "entry 1 only: why" in bad.text()
