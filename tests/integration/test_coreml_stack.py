"""`make demo-coreml` with one bad version: started by a new package, asked about, and cleared."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import coreml as tables
from fastvlm_ops.local.airflow_api import AirflowClient, AirflowError, RunResult
from fastvlm_ops.local.demo_coreml import LINUX, PHONE
from fastvlm_ops.local.state import DemoState
from tests.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DAG, TASK = "coreml_benchmark", "approve_promotion"
MEASURED = {
    (PHONE, "VisionEncoder", "CPU_AND_NE"),
    (PHONE, "TextDecoder", "CPU_AND_NE"),
    (LINUX, "VisionEncoder", "CPU_ONLY"),
}


@dataclass(frozen=True)
class Demo:
    """A demo that is up, and what it printed."""

    state: DemoState
    output: str

    def rows(self, table: Any) -> list[dict[str, Any]]:
        """All rows of a table of the operations database, in order."""
        file = self.state.folder / "airflow" / "fastvlm_ops.db"
        with open_store(f"sqlite:///{file}") as store, store.read() as connection:
            found = connection.execute(select(table).order_by(*table.primary_key.columns))
            return [dict(row) for row in found.mappings()]

    def client(self) -> AirflowClient:
        """A client of its Airflow, to be entered."""
        facts = self.state.running()
        assert facts is not None
        return AirflowClient(facts["url"], facts["user"], facts["password"])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    state = DemoState(tmp_path_factory.mktemp("demo") / "demo")
    command = [sys.executable, "-m", "fastvlm_ops.local.demo_coreml", "--nights=1", "--worse=1"]
    command += ["--state-dir", str(state.folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Demo(state, done.stdout)
    finally:
        outside = state.processes.read().get("outside")
        assert state.stop(patience_seconds=0) == []
        assert outside is None or not Path(outside).exists()
        for big in ("kit", "s3/data", "coreml"):  # pytest keeps the folders of three runs
            shutil.rmtree(state.folder / big, ignore_errors=True)


def where(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["device"], row["model"], row["compute_unit"]


def approved(airflow: AirflowClient, run_id: str) -> RunResult:
    """Approve what a run asks, and wait until it ends.

    An answer that comes before a busy scheduler has seen the task step aside counts as its failure: the task
    then asks again.
    """
    for _ in range(3):
        question = airflow.wait_for_question(DAG, run_id, TASK, timeout_seconds=400)
        assert re.search(r"\| VisionEncoder \| 2 \| iphone-15-pro .*REGRESSION", question["body"])
        time.sleep(10)
        airflow.answer(DAG, run_id, TASK, "Approve")
        try:
            return airflow.wait_for_run(DAG, run_id, progress=lambda _: None, timeout_seconds=120)
        except AirflowError as error:
            last = error
    raise last


def test_a_new_package_starts_a_run_and_the_first_is_accepted(demo: Demo) -> None:
    with demo.client() as airflow:
        first = min(airflow.runs(DAG), key=lambda run: run["run_after"])
    assert first["run_type"] == "asset_triggered"
    assert first["state"] == "success"
    key = f"{DAG}/{first['dag_run_id']}"
    assert {where(row) for row in demo.rows(tables.runs) if row["run_key"] == key} == MEASURED
    accepted = [row for row in demo.rows(tables.baselines) if row["run_key"] == key]
    assert {where(row) for row in accepted} == MEASURED
    assert {row["accepted_by"] for row in accepted} == {"green"}


def test_what_is_worse_is_named_with_its_size_and_kept_out(demo: Demo) -> None:
    worse = {row["run_key"] for row in demo.rows(tables.runs) if row["version"] == "2"}
    verdicts = {(*where(row), row["metric"]): row for row in demo.rows(tables.verdicts)}
    slower = verdicts[PHONE, "VisionEncoder", "CPU_AND_NE", "latency_p50"]
    assert slower["run_key"] in worse
    assert slower["verdict"] == "REGRESSION"
    assert slower["change"] > 0.03
    assert slower["confidence"] > 0.99
    assert verdicts[PHONE, "TextDecoder", "CPU_AND_NE", "parity"]["verdict"] == "REGRESSION"
    assert re.search(
        r"REGRESSION: VisionEncoder on iphone-15-pro \(CPU_AND_NE\): latency_p50 \+\d+\.\d%,"
        r" confidence (above )?99",
        demo.output,
    )
    assert not worse & {row["run_key"] for row in demo.rows(tables.baselines)}, "nor elsewhere"


def test_a_cleared_task_measures_nothing_again(demo: Demo) -> None:
    def facts() -> tuple[Any, ...]:
        return demo.rows(tables.runs), demo.rows(tables.sessions), demo.rows(tables.baselines)

    with demo.client() as airflow:
        first = min(airflow.runs(DAG), key=lambda run: run["run_after"])["dag_run_id"]
        before = facts()
        airflow.clear(DAG, first, f"benchmark_{PHONE}")
        time.sleep(2)  # until the run is queued again
        run = airflow.wait_for_run(DAG, first, progress=lambda _: None, timeout_seconds=300)
    assert run.state == "success"
    assert [one["reused"] for one in run.values(f"benchmark_{PHONE}")] == [True, True]
    assert facts() == before


def test_a_person_accepts_what_is_worse_on_purpose(demo: Demo) -> None:
    with demo.client() as airflow:
        run = approved(airflow, airflow.trigger(DAG, {"promote": "ask"}))
    key = f"{DAG}/{run.run_id}"
    (promoted,) = run.values("promote_baseline")
    assert {one["model"] for one in promoted["models"]} == {"VisionEncoder", "TextDecoder"}
    accepted = {
        where(row): row["accepted_by"] for row in demo.rows(tables.baselines) if row["run_key"] == key
    }
    assert set(accepted) == MEASURED
    assert accepted[PHONE, "VisionEncoder", "CPU_AND_NE"] == "admin"
    assert run.state == "success", "what a person has accepted keeps no release back"
