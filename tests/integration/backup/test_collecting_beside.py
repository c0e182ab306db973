"""Backups and collections at once, by machines that sleep or whose clocks are wrong: nobody is locked out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    CorruptionError,
    IncompleteSetError,
    Repository,
    S3Storage,
    open_repository,
    publish_set,
    restore_snapshot,
    verify,
    verify_repository,
)
from fastvlm_ops.core.backup.collecting import plan_collection
from fastvlm_ops.core.backup.reading import ChunkReader
from tests.fault_proxy import Exchange, Fault, FaultProxy, Request, healthy
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import (
    AT_ONCE,
    NOW,
    back_up,
    forget_snapshots,
    gather,
    names,
    require_restores,
    unfinished,
    write_files,
)
from tests.integration.backup.test_cases_clocks import CHILD
from tests.integration.backup.test_network_faults import through
from tests.trees import describe

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow


EVERY = 10


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("commit_log", "verify_log"):
        monkeypatch.setattr(f"fastvlm_ops.core.backup.{module}.CHECKPOINT_EVERY", EVERY)


def again(storage: S3Storage) -> Repository:
    return open_repository(storage, PASSPHRASE, chunks=True)


def fill_to_checkpoint(repository: Repository) -> None:
    """Entries that say nothing, until the log has a checkpoint more."""
    seq = repository.refresh().seq
    for _ in range(EVERY - seq % EVERY):
        repository.log.append("drill", {})


class Sleeper:
    """A writer that falls asleep before it claims its place in the log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, repository: Repository) -> None:
        self.is_asleep, self._wake = threading.Event(), threading.Event()
        append = repository.log.append

        def slowly(kind: str, body: dict[str, Any], **options: Any) -> int:
            if kind == "snapshot" and not self.is_asleep.is_set():
                self.is_asleep.set()
                assert self._wake.wait(120)
            return append(kind, body, **options)

        monkeypatch.setattr(repository.log, "append", slowly)

    def wake(self) -> None:
        self._wake.set()


@pytest.mark.parametrize("past_a_checkpoint", [False, True])
def test_a_writer_that_slept_through_a_collection_uploads_again(
    repository: Repository,
    storage: S3Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    past_a_checkpoint: bool,
) -> None:
    """What it relied on is gone, and its own manifest; behind a checkpoint the log's state names neither."""
    tree = tmp_path / "source"
    write_files(tree, [("one", 400_000)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    relied_on = names(storage, "packs/")
    sleepy = again(storage)
    sleeper = Sleeper(monkeypatch, sleepy)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(back_up, sleepy, tree, "run-2", kind="full")
        assert sleeper.is_asleep.wait(120)
        forget_snapshots(repository, first)
        gather(again(storage), "collect-1")
        assert names(storage, "packs/").isdisjoint(relied_on)
        assert not names(storage, "snapshots/")
        if past_a_checkpoint:
            fill_to_checkpoint(again(storage))
            assert not again(storage).refresh().condemned, "the state has dropped what was swept"
        sleeper.wake()
        second = run.result(120)
    assert second.new_bytes > 400_000, "it has uploaded again"
    assert names(storage, "packs/").isdisjoint(relied_on)
    assert verify_repository(again(storage), level="full").ok
    for number in range(2):  # a segment of its first try names packs that are gone
        gather(again(storage), f"later-{number}")
    assert verify_repository(again(storage), level="full").problems == ()
    require_restores(again(storage), {second.snapshot_id: describe(tree)}, tmp_path / "target")


def test_backups_and_collections_at_once(repository: Repository, storage: S3Storage, tmp_path: Path) -> None:
    """Two writers and two collectors for some rounds, while what is old is forgotten."""
    kept: dict[str, dict[str, Any]] = {"one": {}, "two": {}}

    def write(component: str) -> None:
        opened, tree = again(storage), tmp_path / component
        write_files(tree, [("always", 60_000)])
        for number in range(5):
            write_files(tree, [(f"file-{number % 2}", 50_000)])
            made = back_up(opened, tree, f"{component}-{number}", component=component)
            forget_snapshots(opened, *kept[component])
            kept[component] = {made.snapshot_id: describe(tree)}

    def sweep(name: str) -> int:
        opened = again(storage)
        return sum(gather(opened, f"{name}-{number}", max_waste=0.2).deleted_objects for number in range(4))

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, component) for component in kept]
        sweepers = [pool.submit(sweep, name) for name in ("collect-a", "collect-b")]
        for writer in writers:
            writer.result(280)
        assert sum(sweeper.result(280) for sweeper in sweepers) > 0
    for number in range(2):
        gather(again(storage), f"last-{number}")
    opened = again(storage)
    assert unfinished(opened) == []
    require_restores(opened, kept["one"] | kept["two"], tmp_path / "target")
    assert verify_repository(opened, level="full").problems == ()
    assert plan_collection(opened, **AT_ONCE).does_nothing


def test_a_reader_finds_what_a_collection_has_moved(
    repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """Its index was loaded before; of what was not moved but lost, it still says so."""
    tree = tmp_path / "source"
    write_files(tree, [(f"small-{number}", 5_000) for number in range(40)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    for number in range(30):
        (tree / f"small-{number}").unlink()
    second = back_up(repository, tree, "run-2").snapshot_id
    slow = again(storage)
    slow.refresh()
    index = slow.load_index(print)
    reader = ChunkReader(slow, index)
    forget_snapshots(repository, first)
    assert gather(again(storage), "collect-1").copied_bytes > 50_000
    needed = [bytes(row["chunk_id"]) for row in again_index(storage).table().records]
    assert {len(reader.get(chunk_id)) for chunk_id in needed} >= {5_000}
    require_restores(slow, {second: describe(tree)}, tmp_path / "target")
    for name in names(storage, "packs/"):
        storage.delete(name)
    with pytest.raises(CorruptionError):
        restore_snapshot(again(storage), second, tmp_path / "target")


def again_index(storage: S3Storage) -> Any:
    opened = again(storage)
    opened.refresh()
    return opened.load_index(print)


def test_a_verification_that_a_collection_overtakes_looks_again(
    repository: Repository, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "source"
    write_files(tree, [(f"small-{number}", 5_000) for number in range(40)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    for number in range(30):
        (tree / f"small-{number}").unlink()
    back_up(repository, tree, "run-2")
    check_heads = verify.check_heads
    overtaken: list[int] = []

    def overtake(*arguments: Any) -> list[str]:
        if not overtaken:
            forget_snapshots(repository, first)
            overtaken.append(gather(again(storage), "collect-1").deleted_objects)
        return check_heads(*arguments)

    monkeypatch.setattr(verify, "check_heads", overtake)
    found = verify_repository(again(storage), level="full")
    assert overtaken[0] > 0
    assert (found.ok, found.problems, found.checked_snapshots) == (True, (), 1)


def test_packs_and_segments_are_listed_after_the_log(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    """Whoever begins at a checkpoint does not learn what was swept before it: that must not be listed."""
    tree = tmp_path / "source"
    write_files(tree, [("one", 1000)])
    back_up(repository, tree, "run-1")
    listed: list[str] = []

    def rule(request: Request) -> Fault | None:
        if request.operation != "ListObjectsV2":
            return None
        return slow_log if request.name == "log/" else lambda exchange: note(exchange, request.name)

    def note(exchange: Exchange, name: str) -> None:
        listed.append(name)
        healthy(exchange)

    def slow_log(exchange: Exchange) -> None:
        answer = exchange.forward()
        time.sleep(0.3)
        note_time.append(list(listed))
        exchange.reply(answer)

    note_time: list[list[str]] = []
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy, proxy.faults(rule):
        opened = open_repository(
            through(proxy, seaweedfs, storage, timeout_seconds=30, attempts=2), PASSPHRASE, chunks=True
        )
        opened.refresh()
        assert opened.load_index(print).listed
    assert not {"packs/", "index/"} & set(note_time[0]), "neither before the log was known"
    assert sorted(name for name in listed if name in ("index/", "packs/")) == ["index/", "packs/"]


def test_what_was_listed_before_a_checkpoint_is_listed_again(
    repository: Repository, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was empty when the repository was opened; read again, it begins behind a sweep."""
    tree = tmp_path / "source"
    write_files(tree, [("one", 1000)])
    dying = again(storage)
    monkeypatch.setattr(dying.log, "append", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        back_up(dying, tree, "run-1")
    orphans = names(storage, "packs/")
    opened = again(storage)
    assert opened.refresh().seq == 0
    assert gather(again(storage), "collect-1").deleted_objects >= len(orphans) > 0
    fill_to_checkpoint(again(storage))
    assert opened.refresh().seq > EVERY
    assert not opened.refresh().condemned
    assert orphans.isdisjoint(opened.load_index(print).listed)


def test_a_set_is_not_published_when_a_snapshot_of_it_was_forgotten(
    repository: Repository, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "source"
    write_files(tree, [("one", 1000)])
    snapshot_id = back_up(repository, tree, "run-1").snapshot_id
    other = again(storage)
    refresh = repository.refresh
    state = refresh()
    monkeypatch.setattr(repository, "refresh", lambda: state)  # it has read the log, and then
    forget_snapshots(other, snapshot_id)
    with pytest.raises(IncompleteSetError, match=f"{snapshot_id} of run run-1 was forgotten meanwhile"):
        publish_set(
            repository, set_id="set", kind="full", run_key="run-1", components=["models"], timestamp=NOW
        )
    assert again(storage).refresh().sets == {}


COLLECT = """
from datetime import timedelta
from fastvlm_ops.core import backup
from fastvlm_ops.core.backup.collecting import collect
storage = backup.S3Storage(backup.create_client(**job["client"]), job["bucket"], job["prefix"])
repository = backup.open_repository(storage, job["passphrase"])
made = collect(repository, keep_unreferenced=timedelta(hours=job["hours"]), max_waste=0.5,
               copy_limit_bytes=1 << 30, max_share=1.0, run_key=job["run_key"])
print(made.deleted_objects)
"""


def collect_at(seaweedfs: SeaweedFS, storage: S3Storage, run_key: str, days: int, hours: int) -> int:
    """A collection by a machine whose clock is so many days ahead; how many objects it removed."""
    client = {
        "endpoint_url": seaweedfs.endpoint_url,
        "access_key_id": seaweedfs.access_key_id,
        "secret_access_key": seaweedfs.secret_access_key,
    }
    job = {"client": client, "bucket": storage.bucket, "prefix": storage.prefix, "passphrase": PASSPHRASE}
    job |= {"run_key": run_key, "days": days, "hours": hours, "signs_right": True}
    program = CHILD.partition("from pathlib import Path")[0] + COLLECT
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(job), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("days", [3, -3])
def test_a_collector_whose_clock_is_wrong_spares_what_is_young(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, tmp_path: Path, days: int
) -> None:
    """By S3's clock alone: neither does three days ahead make anything old, nor three days behind keep it."""
    tree = tmp_path / "source"
    write_files(tree, [("one", 100_000)])
    first = back_up(repository, tree, "run-1", kind="full").snapshot_id
    write_files(tree, [("one", 100_000)])
    second = back_up(repository, tree, "run-2", kind="full").snapshot_id
    forget_snapshots(repository, first)
    before = names(storage, "packs/")
    assert collect_at(seaweedfs, storage, "collect-1", days, hours=1) == 0
    assert names(storage, "packs/") == before
    assert collect_at(seaweedfs, storage, "collect-2", days, hours=0) > 0
    assert names(storage, "packs/") < before
    require_restores(again(storage), {second: describe(tree)}, tmp_path / "target")
    assert timedelta(0) <= storage.now() - max(info.last_modified for info in storage.list("")) < timedelta(1)
