"""airflow_maintenance on a real metadata database: old rows go, young ones stay, none without a backup."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from fastvlm_ops.core.airflow_maintenance import CleaningError
from fastvlm_ops.core.programs import airflow_environment
from fastvlm_ops.operators import airflow_maintenance
from fastvlm_ops.operators.airflow_maintenance import (
    CleanAirflowDatabaseOperator,
    PlanAirflowCleaningOperator,
)
from tests.airflow_kit import Kit
from tests.unit.operators.support import Context, failure

DAG = "airflow_maintenance"
NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=200), NOW - timedelta(days=20)
REALLY = {"dry_run": False, "without_backup": True}
COMPONENT = """
version: 1
components:
  - {name: airflow, kind: airflow_database, newest_backup_max_age_hours: 26}
  - {name: objects, kind: airflow_objects}
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated metadata database with nothing in it; about 8 s."""
    path = tmp_path_factory.mktemp("metadata") / "airflow.db"
    airflow(path, "db", "migrate")
    return path


@pytest.fixture
def metadata(template: Path, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A metadata database with old and young rows, which the connection names."""
    path = tmp_path / "airflow.db"
    with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
    add_rows(path)
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_AIRFLOW_DB", f"sqlite:///{path}")
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    return path


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts another components.yaml in place."""

    def put(text: str) -> None:
        folder = tmp_path / "include"
        folder.mkdir(exist_ok=True)
        (folder / "components.yaml").write_text(text)
        monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(folder))

    return put


def airflow(path: Path, *arguments: str) -> str:
    environment = airflow_environment(URL.create("sqlite", database=str(path)))
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        for n, when in enumerate([OLD] * 30 + [YOUNG] * 12):
            stamp = when.strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("INSERT INTO log (dttm, event) VALUES (?, ?)", (stamp, f"event {n}"))
            database.execute("INSERT INTO import_error (timestamp, filename) VALUES (?, ?)", (stamp, f"f{n}"))
        for dag_id, days in [("busy", 200), ("busy", 150), ("busy", 20), ("quiet", 210), ("quiet", 180)]:
            stamp = (NOW - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute(
                "INSERT INTO dag_run (dag_id, run_id, run_type, run_after, start_date)"
                " VALUES (?, ?, 'scheduled', ?, ?)",
                (dag_id, f"{days} days ago", stamp, stamp),
            )
        database.commit()


def runs(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT dag_id, run_id FROM dag_run ORDER BY dag_id, start_date").fetchall()


def left(path: Path) -> tuple[int, int, int]:
    """Old and young events, and import errors."""
    with closing(sqlite3.connect(path)) as database:
        found = database.execute(
            "SELECT sum(dttm < ?), sum(dttm >= ?), (SELECT count(*) FROM import_error) FROM log"
            " WHERE event LIKE 'event %'",
            (str(NOW - timedelta(days=90)), str(NOW - timedelta(days=90))),
        )
        return tuple(int(value or 0) for value in found.fetchone())


def archives(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [name for (name,) in names if name.startswith("_airflow_deleted")]


def test_by_hand_it_is_a_dry_run_that_says_what_would_go(run_dag: Any, metadata: Path) -> None:
    run = run_dag(DAG)
    assert run.state == "success"
    (plan,) = run.returned("plan")
    assert (plan["old"]["log"], plan["old"]["import_error"], plan["keep_days"]) == (30, 30, 90)
    assert plan["young"]["import_error"] == 12
    assert "has no component of kind airflow_database" in plan["refusal"]
    assert run.returned("verdict")[0]["dry_run"] is True
    assert left(metadata) == (30, 12, 42)


def test_old_rows_go_and_young_ones_stay(run_dag: Any, metadata: Path) -> None:
    run = run_dag(DAG, REALLY)
    assert run.state == "success"
    assert left(metadata) == (0, 12, 12)
    assert runs(metadata) == [("busy", "20 days ago"), ("quiet", "180 days ago")]
    assert run.returned("plan")[0]["old"]["dag_run"] == 3
    (verified,) = run.returned("verify")
    assert set(verified["old"].values()) == {0}
    assert verified["young"]["import_error"] == 12
    assert not archives(metadata)
    assert clean(without_backup=True).execute(context()) == {"cleaned": True}
    assert left(metadata) == (0, 12, 12), "again, it finds nothing"


def test_tables_that_are_named_are_the_only_ones(run_dag: Any, metadata: Path) -> None:
    assert run_dag(DAG, {**REALLY, "tables": ["import_error"]}).state == "success"
    assert left(metadata) == (30, 12, 12)
    unknown = PlanAirflowCleaningOperator(task_id="plan", tables=["import_error", "dag_rum"])
    assert "dag_rum cannot be cleaned; leave tables empty for all, or choose of" in failure(
        unknown, context()
    )


def clean(*, without_backup: bool = False) -> CleanAirflowDatabaseOperator:
    cutoff = (NOW - timedelta(days=90)).isoformat()
    plan = {"dry_run": False, "without_backup": without_backup, "cutoff": cutoff, "tables": []}
    return CleanAirflowDatabaseOperator(task_id="clean", plan=plan)


def test_without_a_backup_it_is_refused(metadata: Path, define: Any) -> None:
    assert "has no component of kind airflow_database with the connection" in failure(clean())
    define(COMPONENT)  # now there is one, so that it has to be backed up
    assert "the catalogue of backups was never filled" in failure(clean(without_backup=True))
    define("version: 1\ncomponents: []\n")
    assert "it is not known whether" in failure(clean(without_backup=True))
    assert left(metadata) == (30, 12, 42)


def test_with_a_new_backup_it_cleans_and_with_an_old_one_it_does_not(
    run_dag: Any, metadata: Path, define: Any, connection: dict[str, Any]
) -> None:
    define(COMPONENT)
    assert run_dag("backup_incremental").state == "success"
    define(COMPONENT.replace("26", "0.000001"))
    assert "backup overdue: airflow" in failure(clean())
    assert left(metadata) == (30, 12, 42)
    define(COMPONENT)
    assert clean().execute(context()) == {"cleaned": True}
    assert left(metadata) == (0, 12, 12)


def test_a_command_that_does_not_end_is_killed_and_the_next_run_goes_on(
    run_dag: Any, metadata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(metadata, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")  # so that counting goes on beside the lock
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(airflow_maintenance, "CLEAN_SECONDS", 8.0)
        run = run_dag(DAG, REALLY)
        other.execute("ROLLBACK")
    assert run.state == "failed"
    assert "airflow db clean" in message(run, "clean")
    assert "did not end within 8 s and was killed" in message(run, "clean")
    assert left(metadata)[1] == 12
    assert "not done: clean, verify" in message(run, "verdict")
    monkeypatch.setattr(airflow_maintenance, "CLEAN_SECONDS", 600.0)
    assert clean(without_backup=True).execute(context()) == {"cleaned": True}
    assert left(metadata) == (0, 12, 12)


def test_a_table_that_cannot_be_cleaned_is_a_failure(metadata: Path) -> None:
    with closing(sqlite3.connect(metadata)) as database:
        database.execute(
            "CREATE TRIGGER keep BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    with pytest.raises(CleaningError, match=r"airflow db clean ended with status 1:[^$]*'log'") as caught:
        clean(without_backup=True).execute(context())
    assert caught.value.retryable, "for the database may only have been busy"
    assert left(metadata)[:2] == (30, 12)


def test_what_only_becomes_old_by_cleaning_goes_too(metadata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback of a deadline that goes with its run, when Airflow happens to look at callbacks first."""
    old, later = str(OLD.replace(tzinfo=None)), str((NOW + timedelta(days=9)).replace(tzinfo=None))
    with closing(sqlite3.connect(metadata)) as database:
        (run,) = database.execute("SELECT id FROM dag_run WHERE run_id = '200 days ago'").fetchone()
        values = ("c" * 32, "triggerer", "import_path", "{}", "scheduled", 1, old)
        database.execute(
            "INSERT INTO callback (id, type, fetch_method, data, state, priority_weight, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        database.execute(
            "INSERT INTO deadline (id, created_at, last_updated_at, dagrun_id, deadline_time, missed,"
            " callback_id) VALUES (?, ?, ?, ?, ?, 0, ?)",
            ("d" * 32, old, old, run, later, "c" * 32),
        )
        database.commit()
    monkeypatch.setenv("PYTHONHASHSEED", seed_that_puts("callback", "dag_run"))
    operator = clean(without_backup=True)
    operator.plan["tables"] = ["dag_run", "callback"]
    operator.execute(context())
    with closing(sqlite3.connect(metadata)) as database:
        assert database.execute("SELECT count(*) FROM deadline").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM callback").fetchone() == (0,)


def seed_that_puts(first: str, second: str) -> str:
    """Airflow goes through a set of names, whose order the seed decides."""
    for seed in map(str, range(50)):
        command = [sys.executable, "-c", f"print(next(iter({{{first!r}, {second!r}}})))"]
        if subprocess.check_output(command, env={"PYTHONHASHSEED": seed}, text=True).strip() == first:
            return seed
    raise AssertionError("no seed does")


def test_without_the_connection_it_says_how_to_add_it(
    metadata: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_FASTVLM_AIRFLOW_DB")
    said = failure(PlanAirflowCleaningOperator(task_id="plan"), context())
    assert "Connection 'fastvlm_airflow_db': is not defined." in said
    assert "airflow connections add fastvlm_airflow_db --conn-uri" in said


def test_runs_of_the_schedule_delete(metadata: Path) -> None:
    scheduled = context("scheduled")
    assert PlanAirflowCleaningOperator(task_id="plan").execute(scheduled)["dry_run"] is False


def context(run_type: str = "manual") -> Context:
    made = Context(moment=NOW)
    made["dag_run"].run_type = run_type
    return made


def message(run: Any, task_id: str) -> str:
    (failure,) = run.failures(task_id)
    return str(failure["message"])
