"""Clocks that are three days off, either way: order is the log's, people are told, nothing is lost by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    RetentionPolicy,
    S3Storage,
    list_sets,
    open_repository,
    plan_retention,
    restore_snapshot,
    select_set,
)
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

# A process whose clock is off from before anything is imported. Requests are signed with its time too, unless
# ``signs_right``: as for an endpoint that does not look at it, of which there are some.
CHILD = """
import datetime as dates, json, sys, time
job = json.loads(sys.stdin.readline())
shift = job["days"] * 86_400
clock, clock_ns, right = time.time, time.time_ns, dates.datetime
time.time = lambda: clock() + shift
time.time_ns = lambda: clock_ns() + shift * 1_000_000_000
class Shifted(dates.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.now(dates.UTC).replace(tzinfo=None)
dates.datetime = Shifted
import botocore.auth
from fastvlm_ops.core.backup import s3_requests
if job["signs_right"]:
    s3_requests.datetime = right
    botocore.auth.get_current_datetime = lambda *_, **__: right.now(dates.UTC).replace(tzinfo=None)
from pathlib import Path
from fastvlm_ops.core import backup
storage = backup.S3Storage(backup.create_client(**job["client"]), job["bucket"], job["prefix"])
try:
    repository = backup.open_repository(storage, job["passphrase"])
    made = backup.create_snapshot(
        repository, backup.FolderSource(Path(job["folder"])), component="models",
        kind="incremental", run_key=job["run_key"],
    )
    backup.publish_set(
        repository, set_id=job["run_key"], kind="incremental", run_key=job["run_key"],
        components=["models"], timestamp=dates.datetime.now(dates.UTC),
    )
    print(json.dumps(made.as_dict()))
except backup.BackupError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error), "retryable": error.retryable}))
"""


def back_up_at(
    seaweedfs: SeaweedFS, storage: S3Storage, folder: Path, run_key: str, days: int, *, signs_right: bool
) -> dict[str, Any]:
    """A backup by a machine whose clock is so many days ahead."""
    client = {
        "endpoint_url": seaweedfs.endpoint_url,
        "access_key_id": seaweedfs.access_key_id,
        "secret_access_key": seaweedfs.secret_access_key,
    }
    job = {"client": client, "bucket": storage.bucket, "prefix": storage.prefix, "passphrase": PASSPHRASE}
    job |= {"folder": os.fspath(folder), "run_key": run_key, "days": days, "signs_right": signs_right}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(job), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("days", "which"), [(3, "72.0 hours ahead of"), (-3, "72.0 hours behind")])
def test_a_server_that_looks_at_the_clock_refuses_and_the_clock_is_named(
    seaweedfs: SeaweedFS, repository: Repository, tmp_path: Path, days: int, which: str
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=3, large_bytes=1000)
    before = [info.name for info in repository.storage.list("")]
    found = back_up_at(seaweedfs, repository.storage, tree, "run", days, signs_right=False)
    assert (found.get("error"), found.get("retryable")) == ("ClockError", False), found
    assert f"this machine's clock is {which} that of S3; set it" in found["text"]
    assert [info.name for info in repository.storage.list("")] == before


def test_order_is_the_logs_and_nothing_is_forgotten_wrongly(
    seaweedfs: SeaweedFS, repository: Repository, storage: S3Storage, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source", files=6, large_bytes=100_000)
    trees, made = {}, {}
    for number, days in enumerate((0, 3, -3, 0)):
        (tree / "group-1" / "file-1.yaml").write_text(f"day: {number}\n")  # of one size
        run_key = f"run-{number}"
        made[run_key] = back_up_at(seaweedfs, storage, tree, run_key, days, signs_right=True)
        trees[run_key] = describe(tree)
        warned = [warning for warning in made[run_key]["warnings"] if "clock" in warning]
        which = {3: "72.0 hours ahead of", -3: "72.0 hours behind"}.get(days)
        assert [f"this machine's clock is {which} that of S3; set it (chrony)"] * bool(days) == warned

    opened = open_repository(storage, PASSPHRASE)
    sets = list_sets(opened)
    assert [backup.set_id for backup in sets] == list(trees), "in the order in which they were made"
    assert [backup.timestamp for backup in sets] != sorted(backup.timestamp for backup in sets)
    parents = [found["parent"] for found in made.values()]
    assert parents == [None, *(found["snapshot_id"] for found in made.values())][:-1]
    assert select_set(opened, "latest").set_id == "run-3"
    now = datetime.now(UTC) + timedelta(seconds=5)
    assert select_set(opened, now.isoformat()).set_id == "run-3", "by the clock of S3, which is right"
    for run_key, tree_then in trees.items():
        target = tmp_path / run_key
        restore_snapshot(opened, made[run_key]["snapshot_id"], target)
        assert describe(target) == tree_then

    for off in (timedelta(0), timedelta(days=3), timedelta(days=-3)):
        plan = plan_retention(
            sets, RetentionPolicy(keep_last=2), now=now + off, verified=frozenset({"run-0", "run-1"})
        )
        kept = {planned.set_id for planned in plan.kept}
        assert {"run-3", "run-2", "run-1"} <= kept, "the newest by the log, and the last verified"
        of_the_future = {backup.set_id for backup in sets if _time(backup.timestamp) > now + off}
        assert of_the_future <= kept
        assert kept == {"run-3", "run-2", "run-1"} | of_the_future


def _time(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)
