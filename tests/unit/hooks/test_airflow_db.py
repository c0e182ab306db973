"""The connection to Airflow's own database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_ops.hooks.airflow_db import AirflowDatabaseError, AirflowDatabaseHook
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError

VARIABLE = "AIRFLOW_CONN_FASTVLM_AIRFLOW_DB"


def test_an_address_as_airflow_has_it_in_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "airflow.db").touch()
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/airflow.db")
    url = AirflowDatabaseHook().url()
    assert (url.drivername, url.database) == ("sqlite", f"{tmp_path}/airflow.db")
    monkeypatch.setenv(VARIABLE, "postgresql+psycopg2://airflow:p%40ss@db.example.org:5433/airflow")
    url = AirflowDatabaseHook().get_conn()
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "airflow", "p@ss")
    assert (url.host, url.port, url.database) == ("db.example.org", 5433, "airflow")


def test_a_missing_connection_is_named_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(AirflowDatabaseError) as caught:
        AirflowDatabaseHook().url()
    said = str(caught.value)
    assert "Connection 'fastvlm_airflow_db': is not defined" in said
    assert caught.value.retryable is False
    command = said.partition("create it with: ")[2]
    assert command.startswith("airflow connections add fastvlm_airflow_db --conn-uri")


def test_that_command_makes_a_connection_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(AirflowDatabaseError) as caught:
        AirflowDatabaseHook().url()
    command = str(caught.value).partition("create it with: ")[2]
    database = tmp_path / "airflow.db"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    export = ["airflow", "connections", "export", str(tmp_path / "c.env")]
    for arguments in (["airflow", "db", "migrate"], ["bash", "-c", command], export):
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    exported = (tmp_path / "c.env").read_text()
    (line,) = [line for line in exported.splitlines() if line.startswith("fastvlm_airflow_db=")]
    monkeypatch.setenv(VARIABLE, line.partition("=")[2])
    assert AirflowDatabaseHook().url().database == str(database)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(AirflowDatabaseError, match=r"none\.db does not exist on this worker"):
        AirflowDatabaseHook().url()


def test_another_database_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mysql://me:word@host/airflow")
    with pytest.raises(OperationsDatabaseError, match="is of type 'mysql'; it must be postgres, or sqlite"):
        AirflowDatabaseHook().url()
