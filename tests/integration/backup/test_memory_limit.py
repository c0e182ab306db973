"""A file of 6 GiB in a process that may have 512 MiB. Slow: `make test-slow` runs it.

The limit is a control group's, so that the kernel counts what is really held, files' cached pages included
(those it takes back when they are in the way). Where none can be made, the limit is one of the address space
for data (RLIMIT_DATA), which counts what is asked for, held or not: the engine has to do with less then.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from benchmarks.backup_growth import Step, make_tree
from fastvlm_ops.core.backup import S3Storage, initialise_repository
from fastvlm_ops.local.compare import compare_trees
from tests.integration.backup.conftest import PASSPHRASE

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow

MIB = 1 << 20
FILE_MIB = 6 << 10
LIMIT_BYTES = 512 * MIB
MOST_BYTES = 256 * MIB
TOO_LITTLE_BYTES = 96 * MIB
DISK_BYTES = 22 << 30  # tree, what is stored of it, and what is restored
SECONDS = 1500

CHILD = """
import json, sys
from pathlib import Path
job = json.loads(sys.stdin.readline())
try:
    from fastvlm_ops.core import backup
    storage = backup.S3Storage(backup.create_client(**job["client"]), job["bucket"], job["prefix"])
    repository = backup.open_repository(storage, job["passphrase"], chunks=True)
    if job["action"] == "backup":
        source = backup.FolderSource(Path(job["folder"]))
        made = backup.create_snapshot(
            repository, source, component="models", kind="full", run_key=job["run_key"]
        )
    else:
        made = backup.restore_snapshot(repository, job["snapshot_id"], Path(job["folder"]))
    found = made.as_dict()
except (backup.BackupError, MemoryError) as error:
    found = {"error": type(error).__name__, "text": str(error)}
# Not ru_maxrss, in which what this process was forked from counts.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
found["peak_bytes"] = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps(found))
"""


class Limited(NamedTuple):
    """How a child is limited: what it does before it runs, and where its group counts."""

    kind: str
    enter: Callable[[], None]
    group: Path | None


def own_group() -> Path | None:
    """The folder of this process's group of the memory controller, of either version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
        if not controllers and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    return None


@contextlib.contextmanager
def of_the_process(size_bytes: int) -> Iterator[Limited]:
    limits = (size_bytes, size_bytes)
    yield Limited("RLIMIT_DATA", lambda: resource.setrlimit(resource.RLIMIT_DATA, limits), None)


@contextlib.contextmanager
def limited(size_bytes: int) -> Iterator[Limited]:
    """A control group below our own where one can be made, else a limit of the process itself."""
    above = own_group()
    group = above / f"fastvlm-memory-{os.getpid()}" if above else None
    try:
        if group is None:
            raise OSError("no memory controller")
        group.mkdir()
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (group / name).exists():
                (group / name).write_text(str(size_bytes))
                break
        else:
            group.rmdir()
            raise OSError("its memory is not controlled")
    except OSError as error:
        print(f"no control group can be made: {error}")
        with of_the_process(size_bytes) as limit:
            yield limit
        return
    try:
        yield Limited("control group", lambda: (group / "cgroup.procs").write_text(str(os.getpid())), group)
    finally:
        group.rmdir()


def run(limit: Limited, seaweedfs: SeaweedFS, storage: S3Storage, **job: Any) -> tuple[int, dict[str, Any]]:
    """The child's exit status, and what it said."""
    client = {
        "endpoint_url": seaweedfs.endpoint_url,
        "access_key_id": seaweedfs.access_key_id,
        "secret_access_key": seaweedfs.secret_access_key,
    }
    job |= {"client": client, "bucket": storage.bucket, "prefix": storage.prefix, "passphrase": PASSPHRASE}
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit.enter,
        timeout=SECONDS,
    )
    lines = child.stdout.splitlines()
    return child.returncode, json.loads(lines[-1]) if lines else {}


def test_six_gib_in_512_mib(seaweedfs: SeaweedFS, storage: S3Storage, tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < DISK_BYTES:
        pytest.skip(f"needs {DISK_BYTES >> 30} GiB of disk")
    initialise_repository(storage, PASSPHRASE)
    tree, target = tmp_path / "tree", tmp_path / "target"
    make_tree(Step("6 GiB", file_mib=FILE_MIB), tree)
    try:
        with limited(LIMIT_BYTES) as limit:
            status, made = run(
                limit, seaweedfs, storage, action="backup", folder=os.fspath(tree), run_key="run"
            )
            assert (status, made.get("error")) == (0, None), made
            assert made["size_bytes"] == FILE_MIB * MIB
            status, restored = run(
                limit,
                seaweedfs,
                storage,
                action="restore",
                folder=os.fspath(target),
                snapshot_id=made["snapshot_id"],
            )
            assert (status, restored.get("error")) == (0, None), restored
            killed = limit.group is not None and "oom_kill 0" not in oom_of(limit.group)
            assert not killed
        for name, found in (("backup", made), ("restore", restored)):
            peak = f"{found['peak_bytes'] / MIB:.0f} of {LIMIT_BYTES // MIB} MiB ({limit.kind})"
            print(f"{name}: {peak}, {found['duration_seconds']} s")
            assert found["peak_bytes"] <= MOST_BYTES
        assert compare_trees(tree, target).differences == []
    finally:
        for big in (tree, target):
            shutil.rmtree(big, ignore_errors=True)


def oom_of(group: Path) -> str:
    """What the kernel says of processes that it ended for want of memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            return (group / name).read_text()
    return "oom_kill 0"


@pytest.mark.parametrize("kind", ["control group", "RLIMIT_DATA"])
def test_far_too_little_memory_is_said_before_anything_is_done(
    kind: str, seaweedfs: SeaweedFS, storage: S3Storage, tmp_path: Path
) -> None:
    opened = initialise_repository(storage, PASSPHRASE)
    tree = tmp_path / "tree"
    make_tree(Step("64 MiB", file_mib=64), tree)
    before = [info.name for info in storage.list("")]
    with limited(TOO_LITTLE_BYTES) if kind == "control group" else of_the_process(TOO_LITTLE_BYTES) as limit:
        if limit.kind != kind:
            pytest.skip("no control group can be made")
        status, found = run(limit, seaweedfs, storage, action="backup", folder=os.fspath(tree), run_key="run")
        assert (status, found.get("error")) == (0, "MemoryLimitError"), found
        assert kind in found["text"]
        assert "allows this process 96 MiB of memory; a backup or a restore needs up to 256" in found["text"]
    assert [info.name for info in storage.list("")] == before
    assert opened.refresh().snapshots == {}
