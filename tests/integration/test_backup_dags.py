"""The backup DAGs under a running scheduler: what an event starts, and what a person has to approve.

One Airflow for all tests, which build on each other in the order in which they stand.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.airflow_api import AirflowClient, RunResult
from fastvlm_ops.local.airflow_stack import USER, AirflowStack, Folders
from fastvlm_ops.local.processes import Processes
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.airflow_kit import write_little

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
WATCHER = "backup_configuration"
QUIET_SECONDS = 45


@dataclass
class Up:
    """An Airflow that is up, and a small kit with a published full backup."""

    folder: Path
    airflow: AirflowStack
    client: AirflowClient
    connection: dict[str, Any]
    full_set: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def kit(self) -> Path:
        return self.folder / "kit"

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> RunResult:
        return self.client.run(dag_id, conf, progress=print, timeout_seconds=180)

    def finish(self, dag_id: str, run_id: str) -> RunResult:
        return self.client.wait_for_run(dag_id, run_id, progress=print, timeout_seconds=180)

    def watcher_runs(self) -> list[dict[str, Any]]:
        return sorted(self.client.runs(WATCHER), key=lambda run: run["run_after"])

    def next_watcher_run(self, known: int, since: datetime, timeout_seconds: float = 120) -> RunResult:
        """Wait for the run after those that are known, and note how long it took to start."""
        deadline = time.monotonic() + timeout_seconds
        while not [run for run in self.watcher_runs()[known:] if run["start_date"]]:
            assert time.monotonic() < deadline, f"no run; {self.log('triggerer')[-3000:]}"
            time.sleep(0.3)
        run = self.watcher_runs()[known]
        self.seconds["start"] = (datetime.fromisoformat(run["start_date"]) - since).total_seconds()
        print(f"the run started {self.seconds['start']:.1f} s after the change")
        return self.finish(WATCHER, run["dag_run_id"])

    def log(self, process: str) -> str:
        return (self.folder / "logs" / f"{process}.log").read_text(errors="replace")

    def watched_since(self, starts: int) -> datetime:
        """Wait until the trigger has started this many times in all; return when it did the last time."""
        deadline = time.monotonic() + 90
        while (
            len(found := re.findall(r"^(\S+Z) .* trigger .* starting", self.log("triggerer"), re.M)) < starts
        ):
            assert time.monotonic() < deadline, self.log("triggerer")[-3000:]
            time.sleep(0.5)
        return datetime.fromisoformat(found[starts - 1])

    def verdict(self, run: RunResult, task_id: str = "confirm_restore") -> str:
        """Say why the task that gives the verdict failed."""
        (task,) = [task for task in run.tasks if task.task_id == task_id]
        return self.client.failure(run, task)


def make_kit(folder: Path) -> None:
    files = {
        "models/fastvlm.mlpackage/Manifest.json": "{}",
        "configuration/service.yaml": "port: 8080\n",
        "configuration/regions/eu.yaml": "name: eu\n",
        "uploads/photo.jpg": "as it was",
        "uploads/other.jpg": "the same all the time",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "data").mkdir()
    with closing(sqlite3.connect(folder / "data" / "application.db")) as database:
        database.execute("CREATE TABLE request (id INTEGER PRIMARY KEY)")
        database.commit()


def connection_to(server: SeaweedFS) -> dict[str, Any]:
    server.make_bucket("backups")
    extra = {"bucket": "backups", "endpoint_url": server.endpoint_url, "repository_passphrase": "of a test"}
    login, password = server.access_key_id, server.secret_access_key
    return {"conn_type": "fastvlm_s3", "login": login, "password": password, "extra": extra}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "scratch").mkdir()
    make_kit(folder / "kit")
    processes = Processes(folder)
    options = {"include_dir": write_little(folder), "kit_dir": folder / "kit"}
    options |= {"restore_dir": folder / "restores", "scratch_dir": folder / "scratch"}
    folders = Folders(ROOT, folder / "airflow", folder / "logs", folder / "scratch")
    airflow = AirflowStack(folders, processes, options=options)
    server = SeaweedFS(folder / "s3", processes=processes)
    try:
        migration = airflow.start_migration()
        server.start()
        assert processes.wait(migration) == 0, migration.log.read_text()
        connection = connection_to(server)
        airflow.start({"fastvlm_s3": connection})
        airflow.wait(print)
        with AirflowClient(airflow.url, USER, airflow.password) as client:
            yield prepared(Up(folder, airflow, client, connection))
    finally:
        processes.stop(patience_seconds=0)
        shutil.rmtree(folder / "s3" / "data", ignore_errors=True)  # pytest keeps the folders of three runs


def prepared(up: Up) -> Up:
    """Make a full backup, and wait for the run that begins the watch."""
    for dag_id in (WATCHER, "backup_full", "restore_backup"):
        up.client.wait_for_dag(dag_id)
    up.client.unpause(WATCHER)  # the DAG processor takes up to half a minute to see it
    since = datetime.now(UTC)
    full = up.run("backup_full")
    assert full.state == "success"
    up.full_set = full.values("publish_backup")[0]["set_id"]
    first = up.next_watcher_run(0, since)
    assert first.state == "success"
    return up


def test_the_doctor_finds_nothing_wrong(up: Up) -> None:
    command = [sys.executable, "-m", "fastvlm_ops.cli", "doctor", "--json"]
    environment = up.airflow.environment() | {"AIRFLOW_CONN_FASTVLM_S3": json.dumps(up.connection)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    unwell = {check: finding for check, finding in findings.items() if finding["state"] != "ok"}
    # DAGs that this test leaves paused; it has no Prometheus, and no service for drills.
    assert unwell.keys() == {"dags", "prometheus", "service fastvlm_service"}
    assert {finding["state"] for finding in unwell.values()} == {"warning"}
    assert result.returncode == 0
    assert findings["scheduler"]["found"].startswith("runs; last heartbeat ")
    assert "opens with the passphrase" in findings["repository"]["found"]
    assert "its tables are at version" in findings["operations database"]["found"]


def test_a_burst_of_edits_starts_one_run_within_a_minute(up: Up) -> None:
    known = len(up.watcher_runs())
    for port in (8081, 8082, 8083):
        (up.kit / "configuration" / "service.yaml").write_text(f"port: {port}\n")
        time.sleep(0.5)
    (up.kit / "configuration" / "regions" / "us.yaml").write_text("name: us\n")
    run = up.next_watcher_run(known, datetime.now(UTC))
    assert up.seconds["start"] < 60
    assert run.state == "success"
    (value,) = run.values("back_up_changes")
    assert value["outcome"] == "published"
    assert value["kind"] == "configuration"
    assert [member["component"] for member in value["snapshots"]] == ["configuration"]

    # Quiet from here on. A triggerer that starts anew must find that nothing changed meanwhile.
    up.airflow.kill_one("triggerer")
    up.airflow.start_one("triggerer")


IN_PLACE = {
    "components": ["uploads"],
    "paths": ["photo.jpg"],
    "in_place": True,
    "overwrite": True,
    "dry_run": False,
}


@pytest.fixture
def photo(up: Up) -> Path:
    """A file in service that is not what it was when it was backed up."""
    path = up.kit / "uploads" / "photo.jpg"
    path.write_text("damaged")
    return path


def test_a_restore_that_is_rejected_touches_nothing_and_is_red(up: Up, photo: Path) -> None:
    run_id = up.client.trigger("restore_backup", IN_PLACE)
    question = up.client.wait_for_question("restore_backup", run_id, "approve_restore")
    assert question["defaults"] == ["Reject"]
    assert f"| uploads | `{photo.parent}` | 1 | 9 B | 0 | **1** |" in question["body"]
    assert f"`{up.full_set}`" in question["body"]
    assert photo.read_text() == "damaged"
    up.client.answer("restore_backup", run_id, "approve_restore", "Reject")
    run = up.finish("restore_backup", run_id)
    assert run.state == "failed"
    assert [task.state for task in run.tasks if task.task_id == "restore_backup"] == ["skipped"]
    assert f"not restored: uploads; rejected by {USER}: nothing was touched" in up.verdict(run)
    assert photo.read_text() == "damaged"


def test_a_restore_that_nobody_answers_is_rejected(up: Up, photo: Path) -> None:
    run = up.run("restore_backup", {**IN_PLACE, "approval_timeout_minutes": 0.05})
    assert run.state == "failed"
    assert "not restored: uploads; nobody answered in time" in up.verdict(run)
    assert photo.read_text() == "damaged"


def test_a_restore_that_is_approved_can_be_undone(up: Up, photo: Path) -> None:
    added = photo.with_name("added.jpg")
    added.write_text("since then")
    run_id = up.client.trigger("restore_backup", IN_PLACE)
    up.client.wait_for_question("restore_backup", run_id, "approve_restore")
    up.client.answer("restore_backup", run_id, "approve_restore", "Approve")
    run = up.finish("restore_backup", run_id)
    assert run.state == "success"
    assert photo.read_text() == "as it was"
    assert added.read_text() == "since then"
    (value,) = run.values("confirm_restore")
    kept = Path(value["replaced_in"]["uploads"])
    assert (kept / "photo.jpg").read_text() == "damaged"
    assert not kept.is_relative_to(photo.parent), "else the next backup would have it"
    (decision,) = run.values("approve_restore")
    assert (decision["approved"], decision["by"]) == (True, USER)


def test_a_dry_run_asks_nobody(up: Up, photo: Path) -> None:
    run = up.run("restore_backup", {**IN_PLACE, "dry_run": True})
    assert run.state == "success"
    assert [answer["needed"] for answer in run.values("approve_restore")] == [False]
    assert run.values("restore_backup")[0]["replaced_files"] == 1
    assert photo.read_text() == "damaged"


def test_no_run_starts_when_nothing_changed(up: Up) -> None:
    watched = (datetime.now(UTC) - up.watched_since(starts=2)).total_seconds()
    time.sleep(max(0.0, QUIET_SECONDS - watched))
    assert len(up.watcher_runs()) == 2, "the one that began the watch, and that of the burst"


def test_a_change_while_the_triggerer_was_down_starts_a_run(up: Up) -> None:
    up.airflow.kill_one("triggerer")
    (up.kit / "configuration" / "service.yaml").write_text("port: 9000\n")
    time.sleep(1)
    up.airflow.start_one("triggerer")
    run = up.next_watcher_run(2, datetime.now(UTC))
    assert [value["outcome"] for value in run.values("back_up_changes")] == ["published"]
    assert len(up.watcher_runs()) == 3


def test_backups_are_not_removed_when_a_person_rejects_it(up: Up) -> None:
    dag_id = "backup_maintenance"
    run_id = up.client.trigger(dag_id, {"level": "listing", "dry_run": False})
    question = up.client.wait_for_question(dag_id, run_id, "approve_pruning")
    assert question["defaults"] == ["Reject"]
    assert "- `configuration-" in question["body"], "of which only the newest is kept"
    assert up.full_set not in question["body"]
    up.client.answer(dag_id, run_id, "approve_pruning", "Reject")
    run = up.finish(dag_id, run_id)
    assert run.state == "failed"
    states = {task.task_id: task.state for task in run.tasks}
    assert (states["forget_backups"], states["collect_garbage"]) == ("skipped", "skipped")
    assert f"nothing was removed: rejected by {USER}: nothing was touched" in up.verdict(
        run, "confirm_maintenance"
    )
