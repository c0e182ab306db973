"""`make demo-disaster-recovery`, all drills on a running scheduler, and drills that die in the middle."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from fastvlm_ops.core.disaster_recovery.fault_entries import FaultEntry, entry_file, read_entry
from fastvlm_ops.core.disaster_recovery.faults import is_left
from fastvlm_ops.core.disaster_recovery.planning import fault_id
from fastvlm_ops.core.programs.proc import ProcessId, session_members
from fastvlm_ops.core.services.process_control import ProcessControl
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import disaster_recovery as tables
from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.demo_disaster_recovery import ALL, DRILLS
from fastvlm_ops.local.state import DemoState
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

#: Hangs a replica, and then waits for what never comes.
STUCK, ASKED = "disaster_recovery_stuck", "disaster_recovery_asked"
TIME_TO_LIVE = 25.0
#: For a busy machine, after the time to live.
PATIENCE = 15.0


@dataclass(frozen=True)
class Demo:
    """A demo that is up, and what it printed."""

    state: DemoState
    output: str

    def rows(self, table: Any) -> list[dict[str, Any]]:
        """All rows of a table of the operations database."""
        file = self.state.folder / "airflow" / "fastvlm_ops.db"
        with open_store(f"sqlite:///{file}") as store, store.read() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def drill(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """The row of a drill."""
        return next(row for row in self.rows(tables.drills) if row["run_key"] == f"{dag_id}/{run_id}")

    def entry(self, dag_id: str, run_id: str) -> FaultEntry | None:
        """The entry of a run's fault; None where there is none."""
        file = entry_file(self.state.folder / "airflow" / "drills", fault_id(f"{dag_id}/{run_id}"))
        return read_entry(file) if file.exists() else None

    def client(self) -> AirflowClient:
        """A client of its Airflow, to be entered."""
        facts = self.state.running()
        assert facts is not None
        return AirflowClient(facts["url"], facts["user"], facts["password"])

    def wait_until_steady(self) -> None:
        """Wait until every part of the service is healthy."""
        control = ProcessControl(f"unix:{self.state.folder / 'service' / 'control' / 'control.sock'}")
        wait(lambda: all(one.healthy for one in control.view().instances), 120, "the service is not healthy")


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    state = DemoState(tmp_path_factory.mktemp("demo") / "demo")
    command = [sys.executable, "-m", "fastvlm_ops.local.demo_disaster_recovery"]
    command += ["--state-dir", str(state.folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        write_scenarios(state.folder / "include" / "disaster_recovery")
        yield Demo(state, done.stdout)
    finally:
        outside = state.processes.outside()
        assert state.stop(patience_seconds=0) == []
        assert not any(folder.exists() for folder in outside)
        for big in ("s3/data", "service"):  # pytest keeps the folders of three runs
            shutil.rmtree(state.folder / big, ignore_errors=True)


def write_scenarios(folder: Path) -> None:
    """Write a drill that gets stuck after its fault, and one that asks a person."""
    hung = yaml.safe_load((folder / "service_hung.yaml").read_text())
    hung["schedule"] = None
    asked = {**hung, "approval": "always", "approval_timeout_minutes": 0.1}
    (folder / "asked.yaml").write_text(yaml.safe_dump(asked))
    hung["steps"]["simulate_failure"]["time_to_live_seconds"] = TIME_TO_LIVE
    never = {"check": "service_says", "path": "/readyz", "status": 418, "within_seconds": 600}
    hung["steps"]["verify_failover"] = [never]
    (folder / "stuck.yaml").write_text(yaml.safe_dump(hung))


def test_the_demo_prints_what_was_measured(demo: Demo) -> None:
    for name in DRILLS:
        assert re.search(rf"^{name} +PASS +\d+\.\d s +\d+\.\d s", demo.output, re.M), demo.output
    assert {(row["scenario"], row["verdict"]) for row in demo.rows(tables.drills)} == {
        (name, "PASS") for name in DRILLS
    }
    assert all(row["undone_at"] for row in demo.rows(tables.faults))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in DRILLS])
def test_every_drill_passes_on_a_scheduler(demo: Demo, name: str) -> None:
    demo.wait_until_steady()
    dag_id = f"disaster_recovery_{name}"
    with demo.client() as airflow:
        run = airflow.run(dag_id, {"dry_run": False}, progress=lambda _: None, timeout_seconds=900)
        said = [airflow.failure(run, task) for task in run.tasks if task.state == "failed"]
    assert (run.state, said) == ("success", [])
    row = demo.drill(dag_id, run.run_id)
    assert row["verdict"] == "PASS", row["reason"]
    entry = demo.entry(dag_id, run.run_id)
    assert entry is not None
    assert entry.is_closed
    assert is_left(entry.fault, entry.hit) is None


@pytest.mark.slow
def test_an_approval_that_times_out_is_a_no(demo: Demo) -> None:
    with demo.client() as airflow:
        airflow.wait_for_dag(ASKED)
        run = airflow.run(ASKED, {"dry_run": False}, progress=lambda _: None, timeout_seconds=300)
    assert run.state == "failed"
    row = demo.drill(ASKED, run.run_id)
    assert row["verdict"] == "REFUSED"
    assert "nobody answered in time" in row["reason"]
    assert row["fault_at"] is None
    assert demo.entry(ASKED, run.run_id) is None


def broken(demo: Demo, airflow: AirflowClient) -> tuple[str, FaultEntry]:
    """Start the drill that gets stuck, and wait until its fault is there."""
    demo.wait_until_steady()
    airflow.wait_for_dag(STUCK)
    run_id = airflow.trigger(STUCK, {"dry_run": False})

    def injected() -> FaultEntry | None:
        entry = demo.entry(STUCK, run_id)
        return entry if entry and entry.state == "injected" else None

    entry = wait(injected, 180, "the fault was not injected")
    assert is_left(entry.fault, entry.hit) is not None
    return run_id, entry


def gone(demo: Demo, run_id: str, seconds: float) -> FaultEntry:
    """Wait until nothing of a run's fault is left."""

    def closed() -> FaultEntry | None:
        entry = demo.entry(STUCK, run_id)
        return entry if entry and entry.is_closed else None

    entry = wait(closed, seconds, "the fault is still there")
    assert is_left(entry.fault, entry.hit) is None
    return entry


def state_of(airflow: AirflowClient, run_id: str, task_id: str) -> str | None:
    """State of a task of a run of the drill that gets stuck."""
    return next(task["state"] for task in airflow.tasks(STUCK, run_id) if task["task_id"] == task_id)


def is_idle(process: ProcessId) -> bool:
    """Whether a process of the executor has no task."""
    try:
        return b"<idle>" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return True  # it has ended


def end(airflow: AirflowClient, run_id: str) -> None:
    """Mark a run as failed, and wait until its teardown has ended well."""
    airflow.mark_failed(STUCK, run_id)

    wait(lambda: state_of(airflow, run_id, "undo_fault") == "success", 240, "undo_fault did not succeed")


@pytest.mark.slow
def test_a_run_that_is_marked_failed_leaves_nothing(demo: Demo) -> None:
    with demo.client() as airflow:
        run_id, _ = broken(demo, airflow)
        end(airflow, run_id)
        gone(demo, run_id, PATIENCE)
        run = airflow.wait_for_run(STUCK, run_id, progress=lambda _: None, timeout_seconds=120)
    assert run.state == "failed"
    states = {task.task_id: task.state for task in run.tasks}
    assert (states["restore_service"], states["report_drill"]) == ("skipped", "failed")
    assert demo.drill(STUCK, run_id)["verdict"] in {"FAIL", "INCONCLUSIVE", "ABORTED"}


@pytest.mark.slow
def test_a_task_that_is_killed_with_its_supervisor_leaves_nothing(demo: Demo) -> None:
    with demo.client() as airflow:
        run_id, _ = broken(demo, airflow)
        scheduler = next(one for one in demo.state.processes.recorded() if one.name == "scheduler")
        wait(lambda: state_of(airflow, run_id, "verify_failover") == "running", 60, "it did not begin")
        for member in list(session_members(scheduler.id)):
            # Not those that wait: one of them has the lock of the queue, and would keep it for ever.
            if member.pid != scheduler.id.pid and not is_idle(member):
                member.signal(signal.SIGKILL)
        entry = gone(demo, run_id, TIME_TO_LIVE + PATIENCE)
        assert entry.undone_by in {"time_to_live", "holder"}
        end(airflow, run_id)


@pytest.mark.slow
def test_a_dag_that_is_paused_leaves_nothing(demo: Demo) -> None:
    with demo.client() as airflow:
        run_id, _ = broken(demo, airflow)
        airflow.pause(STUCK)
        assert gone(demo, run_id, TIME_TO_LIVE + PATIENCE).undone_by == "time_to_live"
        airflow.unpause(STUCK)
        end(airflow, run_id)


@pytest.mark.slow
def test_a_scheduler_that_is_stopped_leaves_nothing(demo: Demo) -> None:
    """The last one, since nothing runs afterwards."""
    with demo.client() as airflow:
        run_id, _ = broken(demo, airflow)
    scheduler = next(one for one in demo.state.processes.recorded() if one.name == "scheduler")
    for member in list(session_members(scheduler.id)):
        member.signal(signal.SIGKILL)
    assert gone(demo, run_id, TIME_TO_LIVE + PATIENCE).undone_by == "time_to_live"
