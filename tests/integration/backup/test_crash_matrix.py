"""Killed at every single request of a backup and of a restore, before the server sees it and after."""

from __future__ import annotations

import functools
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    keys,
    open_repository,
    restore_snapshot,
)
from tests.fault_proxy import Exchange, Fault, FaultProxy, Request
from tests.integration.backup import conftest
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

PACK_BYTES = 256 << 10
SEGMENT_BYTES = 4 << 10
ENTRY_BYTES = 8 << 10  # manifest and tree of these small snapshots

# Small packs and windows, so that a small tree takes many requests.
SETTINGS = {
    "packs.PACK_BYTES": PACK_BYTES,
    "writing._PACKS_PER_SEGMENT": 2,
    "reading._WINDOW_BYTES": PACK_BYTES,
    "reading._RANGE_BYTES": PACK_BYTES,
    "reading._GAP_BYTES": 0,
    "placing._FLUSH_FILES": 1,
}

# Imports everything once, then forks a child for each job: a line of JSON comes in, the child's pid and
# then its exit status go out.
FORKER = """
import functools, json, os, sys, traceback
from importlib import import_module
from pathlib import Path
from fastvlm_ops.core.backup import (
    FolderSource, S3Storage, create_client, create_snapshot, keys, open_repository, restore_snapshot
)
setup = json.loads(sys.stdin.readline())
for name, value in setup["settings"].items():
    module, _, constant = name.partition(".")
    setattr(import_module(f"fastvlm_ops.core.backup.{module}"), constant, value)
derive = keys._passphrase_key
known = {}
def remembered(passphrase, kdf):
    key = passphrase, json.dumps(kdf)
    if key not in known:
        known[key] = derive(passphrase, kdf)
    return known[key]
keys._passphrase_key = remembered
client = create_client(**setup["client"])
def opened(client, prefix):
    return open_repository(S3Storage(client, setup["bucket"], prefix), setup["passphrase"])
direct = create_client(**{**setup["client"], "endpoint_url": setup["direct_url"]})
opened(direct, setup["prefix"])  # to know the key
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            repository = opened(client, job["prefix"])
            if job["action"] == "backup":
                create_snapshot(
                    repository, FolderSource(Path(job["folder"])), component="models",
                    kind="incremental", run_key=job["run_key"],
                )
            else:
                restore_snapshot(repository, job["snapshot_id"], Path(job["folder"]))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forker:
    """Runs jobs in children forked from a process that has imported everything already."""

    def __init__(self, proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid: queue.Queue[int] = queue.Queue()
        self._proxy = proxy
        client = {
            "endpoint_url": proxy.endpoint_url,
            "access_key_id": seaweedfs.access_key_id,
            "secret_access_key": seaweedfs.secret_access_key,
        }
        setup = {"settings": SETTINGS, "client": client, "direct_url": seaweedfs.endpoint_url}
        self._tell({**setup, "bucket": storage.bucket, "prefix": storage.prefix, "passphrase": PASSPHRASE})

    def run(self, job: dict[str, Any]) -> int:
        """The job's exit status, when all that it had sent has arrived."""
        self._tell(job)
        assert self._process.stdout is not None
        self._pid.put(int(self._process.stdout.readline()))
        status = int(self._process.stdout.readline())
        self._proxy.wait_for_clients()
        while not self._pid.empty():
            self._pid.get()
        return status

    def kill_child(self) -> None:
        os.kill(self._pid.get(timeout=30), signal.SIGKILL)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


def kind(request: Request) -> str:
    """Operation and top folder, such as ``PutObject packs``."""
    return f"{request.operation} {request.name.partition('/')[0]}"


@dataclass
class Matrix:
    """Runs a job again and again, each time killed at another request."""

    proxy: FaultProxy
    forker: Forker
    storage: S3Storage
    kills: int = 0
    points: list[tuple[str, int]] = field(default_factory=list)

    def learn(self, job: dict[str, Any]) -> list[Request]:
        """Run the job undisturbed; its requests are the points to kill it at.

        A point is the n-th request of a kind: which of all requests that is depends on the threads.
        """
        with self.proxy.faults(None) as requests:
            assert self._run(job, self.storage) == 0
        count: Counter[str] = Counter()
        for request in requests:
            count[kind(request)] += 1
            self.points.append((kind(request), count[kind(request)]))
        return list(requests)

    def each(self, begin: Callable[[], tuple[dict[str, Any], S3Storage]]) -> Iterator[tuple[str, S3Storage]]:
        """Kill the job once more; yields where, and the storage it was working on.

        :param begin: gives a job that nothing has been done of yet.
        """
        for point in self.points:
            for is_answered in (False, True):
                job, storage = begin()
                with self.proxy.faults(self._at(point, self._kill(is_answered))):
                    status = self._run(job, storage)
                if status == -signal.SIGKILL:
                    self.kills += 1
                    yield f"{'after' if is_answered else 'before'} {point[0]} number {point[1]}", storage
                else:  # two threads may or may not both fetch the head of a pack
                    assert (status, point[0]) == (0, "GetObject packs"), f"failed by itself before {point}"

    def _run(self, job: dict[str, Any], storage: S3Storage) -> int:
        self.proxy.prefix = storage.prefix
        return self.forker.run({**job, "prefix": storage.prefix})

    def _kill(self, is_answered: bool) -> Fault:
        def kill(exchange: Exchange) -> None:
            if is_answered:
                exchange.forward()
            self.forker.kill_child()

        return kill

    @staticmethod
    def _at(point: tuple[str, int], fault: Fault) -> Callable[[Request], Fault | None]:
        count: Counter[str] = Counter()

        def rule(request: Request) -> Fault | None:
            count[kind(request)] += 1
            return fault if (kind(request), count[kind(request)]) == point else None

        return rule


@pytest.fixture
def matrix(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Matrix]:
    for name, value in SETTINGS.items():
        monkeypatch.setattr(f"fastvlm_ops.core.backup.{name}", value)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        forker = Forker(proxy, seaweedfs, storage)
        try:
            yield Matrix(proxy, forker, storage)
        finally:
            forker.close()


@pytest.fixture
def open_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Storage], Repository]:
    """Opens a repository as a new process would, but derives the key from the passphrase only once."""
    derive = keys._passphrase_key
    remember = functools.cache(lambda passphrase, kdf: derive(passphrase, json.loads(kdf)))
    monkeypatch.setattr(
        keys, "_passphrase_key", lambda passphrase, kdf: remember(passphrase, json.dumps(kdf))
    )
    return lambda storage: open_repository(storage, PASSPHRASE)


@contextmanager
def timed(matrix: Matrix, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"\n{what}: {len(matrix.points)} requests, {matrix.kills} kills, {time.monotonic() - began:.1f} s")


back_up = partial(conftest.back_up, kind="incremental")


def objects(storage: S3Storage) -> dict[str, int]:
    return {info.name: info.size_bytes for info in storage.list("")}


def pack_bytes(found: dict[str, int]) -> int:
    return sum(size for name, size in found.items() if name.startswith("packs/"))


def require_restores(repository: Repository, expected: dict[str, Any], target: Path, where: str) -> None:
    for snapshot_id, tree in expected.items():
        restore_snapshot(repository, snapshot_id, target)
        assert describe(target) == tree, f"{snapshot_id} after a kill {where}"
        shutil.rmtree(target)


def test_backup_killed_at_every_request(
    matrix: Matrix, storage: S3Storage, open_again: Callable[[S3Storage], Repository], tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=6, large_bytes=300_000)
    repository = open_again(storage)
    earlier = {back_up(repository, tree, "run-1", kind="full").snapshot_id: describe(tree)}
    (tree / "group-1" / "file-1.yaml").write_text("the second day\n")
    earlier[back_up(repository, tree, "run-2").snapshot_id] = describe(tree)
    (tree / "group-1" / "file-1.yaml").write_text("the third day\n")
    (tree / "new.bin").write_bytes(os.urandom(12 * PACK_BYTES))
    now = describe(tree)
    before = objects(storage)
    job = {"action": "backup", "folder": os.fspath(tree), "run_key": "run-3"}
    copies = (S3Storage(storage.client, storage.bucket, f"copy/{number}") for number in itertools.count())

    def begin() -> tuple[dict[str, Any], S3Storage]:
        """On a copy: this server keeps empty folders, and lists ever more slowly."""
        copy = next(copies)
        for name in before:
            source = {"Bucket": storage.bucket, "Key": storage.prefix + name}
            storage.client.copy_object(Bucket=copy.bucket, Key=copy.prefix + name, CopySource=source)
        return job, copy

    with timed(matrix, "backup"):
        requests = matrix.learn(job)
        whole_bytes = pack_bytes(objects(storage))
        for where, copy in matrix.each(begin):
            left = objects(copy)
            assert left.items() >= before.items()
            is_changed = left.keys() != before.keys()
            if is_changed:  # else every earlier backup is what it was
                require_restores(open_again(copy), earlier, tmp_path / "target", where)
            again = open_again(copy)
            result = back_up(again, tree, "run-3")
            missing_bytes = whole_bytes - pack_bytes(left)
            assert result.new_bytes <= missing_bytes + PACK_BYTES + SEGMENT_BYTES + ENTRY_BYTES, where
            assert [*again.refresh().snapshots] == [*earlier, result.snapshot_id], where
            if is_changed:
                require_restores(again, {result.snapshot_id: now}, tmp_path / "target", where)
    kinds = Counter(map(kind, requests))
    assert kinds["PutObject packs"] >= 5
    assert kinds["PutObject index"] >= 2
    assert kinds["PutObject snapshots"] == kinds["PutObject log"] == 1
    assert matrix.kills == 2 * len(matrix.points)


def test_restore_killed_at_every_request(
    matrix: Matrix, storage: S3Storage, open_again: Callable[[S3Storage], Repository], tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=4, large_bytes=3 * PACK_BYTES)
    for number in range(5):
        (tree / f"model-{number}.bin").write_bytes(os.urandom(PACK_BYTES))
    os.link(tree / "model-1.bin", tree / "group-2" / "same-as-model-1.bin")
    expected = describe(tree)
    snapshot_id = back_up(open_again(storage), tree, "run-1", kind="full").snapshot_id
    fetched_bytes = restore_snapshot(open_again(storage), snapshot_id, tmp_path / "whole").fetched_bytes
    target = tmp_path / "target"
    job = {"action": "restore", "folder": os.fspath(target), "snapshot_id": snapshot_id}

    def begin() -> tuple[dict[str, Any], S3Storage]:
        shutil.rmtree(target)
        return job, storage

    kept = 0
    with timed(matrix, "restore"):
        requests = matrix.learn(job)
        for where, _ in matrix.each(begin):
            done = whole_files(target, expected, where)
            result = restore_snapshot(open_again(storage), snapshot_id, target)
            assert describe(target) == expected, where
            assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target", "whole"], where
            assert result.kept_files == len(done), where
            done_bytes = sum(expected[path]["size"] for path in done)
            assert result.fetched_bytes <= fetched_bytes - done_bytes + ENTRY_BYTES, where
            kept += len(done)
    assert Counter(map(kind, requests))["GetObject packs"] >= 10
    assert kept > len(matrix.points)
    assert matrix.kills > 1.5 * len(matrix.points)


def whole_files(target: Path, expected: dict[bytes, dict[str, Any]], where: str) -> list[bytes]:
    """Files that a killed restore has finished, each under one name; nothing else bears a final name."""
    done: dict[bytes, bytes] = {}
    for path, about in describe(target).items() if target.exists() else ():
        if path.rpartition(b"/")[2].startswith(b".fastvlm-restore-"):
            continue
        assert path in expected, where
        if "sha256" in about:
            assert about["sha256"] == expected[path]["sha256"], f"{path!r} is wrong after a kill {where}"
            assert about["mode"] == expected[path]["mode"], f"{path!r} is wrong after a kill {where}"
            done.setdefault(expected[path]["same_file_as"], path)
    return list(done.values())
