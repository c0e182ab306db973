"""backup_wal: a window proven and recorded, and what is wrong in red, on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import ROOT
from tests.dags.support import parse_dags
from tests.wal_kit import wait_for
from tests.wal_stack import COMPONENT, Wal, postgresql_definitions


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The windows in an operations database of this test's own."""
    from fastvlm_ops.core.backup.wal_windows import read_windows
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    (tmp_path / "metrics").mkdir()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__METRICS_DIR", str(tmp_path / "metrics"))

    def read() -> Any:
        with OperationsDatabaseHook().open_store() as store:
            (row,) = read_windows(store)
        return row

    return read


def test_proves_the_window_then_names_the_gap(wal: Wal, rows: Any, run_dag: Any, tmp_path: Path) -> None:
    wal.write()
    run = run_dag("backup_wal")
    assert run.state == "success"
    (found,) = run.returned("watch_wal")
    assert found["component"] == COMPONENT
    assert (found["gap"], found["problems"]) == (None, [])
    assert rows().recoverable_until.isoformat() == found["recoverable_until"]
    metrics = (tmp_path / "metrics" / "fastvlm_backup.prom").read_text()
    assert f'fastvlm_backup_wal_gap{{component="{COMPONENT}"}} 0.0' in metrics

    again = run_dag("backup_wal")  # as a retry would: nothing was written since
    stored = wal.stored()
    assert again.returned("watch_wal")[0]["switched"] is False
    assert again.returned("watch_wal")[0]["until_lsn"] == found["until_lsn"]

    for _ in range(3):
        wal.write()
        wal.sql("SELECT pg_switch_wal()")
    wait_for(lambda: len(wal.stored()) >= len(stored) + 3, what=wal.receiver.text)
    victim = wal.stored()[-2]
    storage = wal.repository.storage
    (key,) = [info.name for info in storage.list(f"wal/{COMPONENT}/") if info.name.endswith(victim)]
    storage.client.delete_object(Bucket=storage.bucket, Key=storage.prefix + key)
    red = run_dag("backup_wal")
    assert red.state == "failed"
    assert red.tasks["outcome"] == ["upstream_failed"]
    assert red.tasks["record_backup"] == ["success"]
    (evidence,) = red.failures("watch_wal")
    assert f"segment {victim} is missing" in evidence["message"]
    assert "trigger backup_full" in evidence["message"]
    assert evidence["component"] == COMPONENT
    assert victim in rows().gap


def test_a_server_that_is_away_is_said_and_the_window_still_recorded(
    wal: Wal, rows: Any, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_FASTVLM_POSTGRES", "postgres://nobody:secret-of-mine@127.0.0.1:1/postgres"
    )
    run = run_dag("backup_wal")
    assert run.state == "failed"
    (evidence,) = run.failures("watch_wal")
    assert evidence["error"] == "ServerUnreachableError"
    assert "127.0.0.1:1/postgres cannot be reached" in evidence["message"]
    assert "secret-of-mine" not in str(run.xcoms)
    row = rows()
    assert row.recoverable_until is not None
    assert (row.lag_bytes, row.server_lsn) == (None, None)


def test_without_a_slot_there_is_no_schedule_and_no_green_run(
    kit: Any, connection: dict[str, Any], run_dag: Any
) -> None:
    dag = parse_dags(ROOT / "dags")["backup_wal"]
    assert dag.schedule is None
    run = run_dag("backup_wal")
    assert run.state == "failed"
    assert list(run.tasks) == ["nothing_to_watch"]


def test_with_one_it_runs_every_five_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import CronTriggerTimetable

    postgresql_definitions(tmp_path / "include")
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "include"))
    dag = parse_dags(ROOT / "dags")["backup_wal"]
    assert dag.schedule == CronTriggerTimetable("*/5 * * * *", timezone="UTC")
    assert set(dag.task_ids) == {"watch_wal", "record_backup", "outcome"}
