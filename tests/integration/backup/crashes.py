"""Running a job again and again in a process of its own, each time killed at another of its requests."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup import S3Storage
from tests.fault_proxy import Exchange, Fault, FaultProxy, Request

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
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from fastvlm_ops.core.backup import (
    FolderSource, S3Storage, create_client, create_snapshot, keys, open_repository, restore_snapshot
)
from fastvlm_ops.core.backup.collecting import collect
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
            if job["action"] == "collect":
                collect(repository, run_key=job["run_key"], keep_unreferenced=timedelta(0), **job["limits"])
            elif job["action"] == "backup":
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

    def __init__(self, proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage, passphrase: str) -> None:
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
        self._tell({**setup, "bucket": storage.bucket, "prefix": storage.prefix, "passphrase": passphrase})

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
    answered: tuple[bool, ...] = (False, True)  # before the server has seen it, and after

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
            for is_answered in self.answered:
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


@contextmanager
def timed(matrix: Matrix, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"\n{what}: {len(matrix.points)} requests, {matrix.kills} kills, {time.monotonic() - began:.1f} s")


def on_copies(storage: S3Storage, job: dict[str, Any]) -> Callable[[], tuple[dict[str, Any], S3Storage]]:
    """Begins a job on a copy of what is there now, each time a new one.

    This server keeps empty folders, and lists ever more slowly.
    """
    before = [info.name for info in storage.list("")]
    copies = (S3Storage(storage.client, storage.bucket, f"copy/{number}") for number in itertools.count())

    def begin() -> tuple[dict[str, Any], S3Storage]:
        copy = next(copies)
        for name in before:
            source = {"Bucket": storage.bucket, "Key": storage.prefix + name}
            storage.client.copy_object(Bucket=copy.bucket, Key=copy.prefix + name, CopySource=source)
        return job, copy

    return begin
