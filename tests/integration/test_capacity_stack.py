"""`make demo-capacity` with a few dates: a backfill by Airflow's own command, and a person who is asked."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import capacity as tables
from fastvlm_ops.local.airflow_api import AirflowClient, AirflowError, RunResult
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import program
from fastvlm_ops.local.stack import history_end
from fastvlm_ops.local.state import DemoState
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

DAG, TASK = "capacity_forecast", "approve_scale_down"
DATES = 4
LAST = history_end() - timedelta(days=30)
#: Uses little of its four replicas.
IDLE = "telemetry-gateway"


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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    try:
        program("prometheus")
        program("promtool")
    except ProcessStartError as error:
        pytest.skip(str(error))
    state = DemoState(tmp_path_factory.mktemp("demo") / "demo")
    command = [sys.executable, "-m", "fastvlm_ops.local.demo_capacity", f"--dates={DATES}"]
    command += ["--state-dir", str(state.folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Demo(state, done.stdout)
    finally:
        outside = state.processes.outside()
        assert state.stop(patience_seconds=0) == []
        assert not any(folder.exists() for folder in outside)
        for big in ("kit", "s3/data", "prometheus"):  # pytest keeps the folders of three runs
            shutil.rmtree(state.folder / big, ignore_errors=True)


def approved(airflow: AirflowClient, run_id: str) -> RunResult:
    """Approve what a run asks, and wait until it ends.

    An answer that comes before a busy scheduler has seen the task step aside counts as its failure: the task
    then asks again.
    """
    for _ in range(3):
        question = airflow.wait_for_question(DAG, run_id, TASK, timeout_seconds=180)
        assert IDLE in question["body"]
        time.sleep(10)
        airflow.answer(DAG, run_id, TASK, "Approve")
        try:
            return airflow.wait_for_run(DAG, run_id, progress=lambda _: None, timeout_seconds=90)
        except AirflowError as error:
            last = error
    raise last


def test_every_date_is_forecast_and_scored(demo: Demo) -> None:
    dates = [LAST - timedelta(days=day) for day in range(DATES)][::-1]
    backfilled = [row for row in demo.rows(tables.forecasts) if row["as_of"] <= LAST]
    assert sorted({row["as_of"] for row in backfilled}) == dates
    assert {row["run_key"].partition("__")[0] for row in backfilled} == {"capacity_forecast/backfill"}
    scores = demo.rows(tables.scores)
    assert {(row["as_of"], row["horizon_days"]) for row in scores} >= {
        (date, days) for date in dates for days in (7, 30)
    }
    assert f"{DATES} dates backfilled" in demo.output
    assert len(re.findall(r"^(?:cpu|memory|requests) +(?:7|30) +\d+ ", demo.output, re.M)) == 6


def test_a_scale_down_is_approved_by_a_person(demo: Demo) -> None:
    planned = {row["service"]: row for row in demo.rows(tables.recommendations) if row["as_of"] == LAST}
    assert planned[IDLE]["action"] == "scale_down", planned[IDLE]["reason"]
    assert planned[IDLE]["applied_state"] == "planned"
    facts = demo.state.running()
    assert facts is not None
    with AirflowClient(facts["url"], facts["user"], facts["password"]) as airflow:
        conf = {"as_of": LAST.isoformat(), "dry_run": False}
        run_id = airflow.trigger(DAG, conf)
        run = approved(airflow, run_id)
    assert run.state == "success"
    decided = {row["service"]: row for row in demo.rows(tables.recommendations) if row["as_of"] == LAST}
    assert decided[IDLE]["action"] == "scale_down"
    assert decided[IDLE]["applied_state"] == "approved"
    assert decided["vlm-api"]["applied_state"] == (
        "approved" if decided["vlm-api"]["action"] == "scale_up" else "planned"
    )
