"""Killed, interrupted, competing and lied to: earlier backups always restore."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    BucketNotFoundError,
    CredentialsError,
    Repository,
    RepositoryNotFoundError,
    S3Storage,
    StorageError,
    UnsafeEndpointError,
    WrongKeyError,
    create_client,
    initialise_repository,
    open_repository,
    restore_snapshot,
)
from fastvlm_ops.core.backup.commit_log import CommitLog
from fastvlm_ops.local.ports import free_ports
from tests.integration.backup import conftest
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import SnapshotResult
    from fastvlm_ops.local.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parents[3]
KILLS = 10


back_up = partial(conftest.back_up, kind="incremental")


BACKUP_PROCESS = """
import json, sys
from pathlib import Path
from fastvlm_ops.core.backup import FolderSource, S3Storage, create_client, create_snapshot, open_repository
job = json.loads(sys.stdin.readline())
storage = S3Storage(create_client(**job["client"]), job["bucket"], job["prefix"])
repository = open_repository(storage, job["passphrase"])
print("begin", flush=True)
source = FolderSource(Path(job["folder"]))
result = create_snapshot(
    repository, source, component="models", kind="incremental", run_key=job["run_key"]
)
print(json.dumps(result.as_dict()), flush=True)
"""


def start_backup(
    seaweedfs: SeaweedFS, storage: S3Storage, folder: Path, run_key: str
) -> subprocess.Popen[str]:
    """An incremental backup in a process of its own, which has just begun when this returns."""
    job = {
        "client": {
            "endpoint_url": seaweedfs.endpoint_url,
            "access_key_id": seaweedfs.access_key_id,
            "secret_access_key": seaweedfs.secret_access_key,
        },
        "bucket": storage.bucket,
        "prefix": storage.prefix,
        "passphrase": PASSPHRASE,
        "folder": os.fspath(folder),
        "run_key": run_key,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", BACKUP_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "begin\n"
    return process


def test_killed_ten_times_every_earlier_backup_restores(
    seaweedfs: SeaweedFS, storage: S3Storage, repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=16 << 20)
    rng = random.Random(20261124)
    began = time.monotonic()
    good = {back_up(repository, tree, "run-0", kind="full").snapshot_id: describe(tree)}
    longest_seconds = time.monotonic() - began
    killed = 0
    for number in range(1, KILLS + 1):
        (tree / f"new-{number}.bin").write_bytes(rng.randbytes(16 << 20))
        (tree / "group-1" / "file-1.yaml").write_text(f"day: {number}\n")
        process = start_backup(seaweedfs, storage, tree, f"run-{number}")
        time.sleep(rng.uniform(0, longest_seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        for snapshot_id in list(good):
            restore_snapshot(open_repository(storage, PASSPHRASE), snapshot_id, tmp_path / "target")
            assert describe(tmp_path / "target") == good[snapshot_id], f"{snapshot_id} after kill {number}"
            shutil.rmtree(tmp_path / "target")
        finished = back_up(repository, tree, f"run-{number}")
        good[finished.snapshot_id] = describe(tree)
        if number > 2:  # keeps the test short: three backups are enough to be earlier ones
            good.pop(next(iter(good)))
        (tree / f"new-{number}.bin").unlink()
    assert killed >= KILLS // 2
    assert len(repository.refresh().snapshots) == KILLS + 1


def test_the_run_after_a_kill_uses_what_was_sent(
    seaweedfs: SeaweedFS, storage: S3Storage, repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    back_up(repository, tree, "run-0", kind="full")
    size_bytes = 96 << 20
    (tree / "new.bin").write_bytes(random.Random(5).randbytes(size_bytes))
    process = start_backup(seaweedfs, storage, tree, "run-1")
    while sum(info.size_bytes for info in storage.list("packs/")) < size_bytes // 2:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    sent = sum(info.size_bytes for info in storage.list("packs/"))
    again = back_up(repository, tree, "run-2")
    assert again.new_bytes <= size_bytes - sent + (17 << 20) + (1 << 20)  # one pack may have been in the air
    restore_snapshot(repository, again.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


def test_two_at_once_both_commit_and_restore(storage: S3Storage, tmp_path: Path) -> None:
    initialise_repository(storage, PASSPHRASE)
    trees = [make_plain_tree(tmp_path / f"source-{n}", seed=n // 2, large_bytes=12 << 20) for n in range(4)]

    def run(number: int) -> SnapshotResult:
        return back_up(open_repository(storage, PASSPHRASE), trees[number], f"run-{number}", kind="full")

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(4)))
    repository = open_repository(storage, PASSPHRASE)
    assert sorted(repository.refresh().snapshots) == sorted(result.snapshot_id for result in results)
    for number, result in enumerate(results):
        restore_snapshot(repository, result.snapshot_id, tmp_path / f"target-{number}")
        assert describe(tmp_path / f"target-{number}") == describe(trees[number])


def test_two_attempts_of_one_run_make_one_snapshot(storage: S3Storage, tmp_path: Path) -> None:
    initialise_repository(storage, PASSPHRASE)
    tree = make_plain_tree(tmp_path / "source")
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: back_up(open_repository(storage, PASSPHRASE), tree, "run-1"), range(4))
        )
    assert len({result.snapshot_id for result in results}) == 1
    assert sorted(result.reused for result in results) == [False, True, True, True]
    assert len(open_repository(storage, PASSPHRASE).refresh().snapshots) == 1


def test_two_initialise_at_once_end_in_one_repository(s3_client: Any, bucket: str) -> None:
    def initialise(_: int) -> str:
        return initialise_repository(S3Storage(s3_client, bucket, "new"), PASSPHRASE).repository_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(initialise, range(4)))) == 1


def test_log_loses_and_doubles_nothing(repository: Repository, storage: S3Storage) -> None:
    """Eight writers, more than two checkpoints; a reader from the start and one from a checkpoint agree."""
    each = 30

    def write(writer: int) -> None:
        log = CommitLog(storage, repository.ring)
        log.refresh()
        for number in range(each):
            body = {"snapshot_id": f"{writer}-{number}", "component": "c", "run_key": f"{writer}-{number}"}
            log.append("snapshot", body)

    follower = CommitLog(storage, repository.ring)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
        follower.refresh()
    names = [info.name for info in storage.list("log/")]
    assert names == [f"log/{seq:020d}.json" for seq in range(1, len(names) + 1)]
    kinds = [json.loads(storage.get(name, limit_bytes=1 << 20).split(b"\n")[0])["type"] for name in names]
    assert [seq for seq, kind in enumerate(kinds, 1) if kind == "checkpoint"] == [100, 200]
    fresh = CommitLog(storage, repository.ring).refresh()
    assert len(fresh.snapshots) == 8 * each
    assert fresh.snapshots == follower.refresh().snapshots


class LostAnswers(S3Storage):
    """The request arrives, the answer does not: the SDK tries again and is told that the name is taken."""

    def claim(self, name: str, data: bytes) -> bool:
        super().claim(name, data)
        return super().claim(name, data)


def test_a_lost_answer_is_recognised(storage: S3Storage, repository: Repository, tmp_path: Path) -> None:
    lossy = open_repository(LostAnswers(storage.client, storage.bucket, storage.prefix), PASSPHRASE)
    lossy.refresh()
    seq = lossy.log.append("snapshot", {"snapshot_id": "s", "component": "models", "run_key": "r"})
    assert seq == 1
    assert [info.name for info in storage.list("log/")] == [f"log/{1:020d}.json"]


def test_wrong_passphrase_is_refused_before_anything_is_read(
    storage: S3Storage, repository: Repository
) -> None:
    with pytest.raises(WrongKeyError, match="fits none of the 1 key slot"):
        open_repository(storage, "another")
    with pytest.raises(WrongKeyError):
        initialise_repository(storage, "another")  # and does not make a second repository
    assert len(list(storage.list("keys/"))) == 1
    with pytest.raises(RepositoryNotFoundError, match="no backup repository at s3://"):
        open_repository(S3Storage(storage.client, storage.bucket, "elsewhere"), PASSPHRASE)


def test_credentials_bucket_and_endpoint_are_named(seaweedfs: SeaweedFS, bucket: str) -> None:
    keys = {"access_key_id": seaweedfs.access_key_id, "secret_access_key": seaweedfs.secret_access_key}
    endpoint = {"endpoint_url": seaweedfs.endpoint_url}

    def storage(name: str = bucket, **changes: str) -> S3Storage:
        return S3Storage(create_client(**endpoint, **(keys | changes)), name)  # type: ignore[arg-type]

    with pytest.raises(CredentialsError, match="SignatureDoesNotMatch"):
        storage(secret_access_key="wrong").put("x", b"x")
    with pytest.raises(CredentialsError, match="InvalidAccessKeyId"):
        storage(access_key_id="WRONG").put("x", b"x")
    with pytest.raises(CredentialsError, match="SignatureDoesNotMatch"):
        storage(secret_access_key="wrong").check_bucket()  # though a HEAD has no body to say so
    with pytest.raises(BucketNotFoundError, match="bucket 'no-such-bucket' does not exist"):
        storage("no-such-bucket").check_bucket()
    (port,) = free_ports(1)
    client = create_client(endpoint_url=f"http://127.0.0.1:{port}", **keys)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match=f"http://127.0.0.1:{port} did not answer HeadBucket"):
        S3Storage(client, bucket).check_bucket()


@pytest.fixture
def rclone(rclone_url: str) -> S3Storage:
    """A real server that accepts If-None-Match and ignores it."""
    client = create_client(endpoint_url=rclone_url, access_key_id="key", secret_access_key="secret")
    return S3Storage(client, "bucket", "prefix")


def test_an_endpoint_that_ignores_conditions_is_refused(rclone: S3Storage) -> None:
    with pytest.raises(UnsafeEndpointError, match="ignores If-None-Match"):
        initialise_repository(rclone, PASSPHRASE)
    assert [info.name for info in rclone.list("") if not info.name.startswith("probe/")] == []


def test_each_run_probes_the_endpoint(repository: Repository, rclone: S3Storage, tmp_path: Path) -> None:
    """A repository that was moved to such an endpoint is not written to."""
    storage = repository.storage
    for info in storage.list(""):
        rclone.put(info.name, storage.get(info.name, limit_bytes=1 << 20))
    with pytest.raises(UnsafeEndpointError):
        back_up(open_repository(rclone, PASSPHRASE), make_plain_tree(tmp_path / "source"), "run-1")
    assert list(rclone.list("packs/")) == []


def test_a_restore_that_was_killed_is_continued(
    seaweedfs: SeaweedFS, storage: S3Storage, repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=60 << 20)
    (tree / "zz.bin").write_bytes(random.Random(3).randbytes(60 << 20))
    snapshot = back_up(repository, tree, "run-1", kind="full")
    process = subprocess.Popen(
        [sys.executable, "-c", RESTORE_PROCESS, snapshot.snapshot_id, tmp_path / "target"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    client = {
        "endpoint_url": seaweedfs.endpoint_url,
        "access_key_id": seaweedfs.access_key_id,
        "secret_access_key": seaweedfs.secret_access_key,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps([client, storage.bucket, storage.prefix, PASSPHRASE]) + "\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert process.stdout.readline() == "named\n"
    process.kill()
    process.communicate()
    original = describe(tree)
    for path, about in describe(tmp_path / "target").items():
        if not path.rpartition(b"/")[2].startswith(b".fastvlm-restore-") and "sha256" in about:
            assert about["sha256"] == original[path]["sha256"]  # whatever bears its name is whole
    result = restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "target")
    assert result.kept_files >= 1
    assert describe(tmp_path / "target") == original
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


RESTORE_PROCESS = """
import json, sys, time
from pathlib import Path
from fastvlm_ops.core.backup import S3Storage, create_client, open_repository, placing, restore_snapshot

give_name = placing.TreeWriter._give_name

def give_name_and_wait(writer, entry, *rest):
    give_name(writer, entry, *rest)
    if entry.path.endswith(b"weight.bin"):
        print("named", flush=True)
        time.sleep(600)  # to be killed with one file done and another not

placing.TreeWriter._give_name = give_name_and_wait
client, bucket, prefix, passphrase = json.loads(sys.stdin.readline())
repository = open_repository(S3Storage(create_client(**client), bucket, prefix), passphrase)
restore_snapshot(repository, sys.argv[1], Path(sys.argv[2]))
"""
