"""Programs as children: their end, what they leave, and what is told of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fastvlm_ops.core.programs import (
    ProgramError,
    ProgramTimeoutError,
    airflow_environment,
    kill_running,
    run,
)

# Starts a child of its own, notes both, and waits.
PARENT = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(60)
"""


def python(code: str, *arguments: str, timeout_seconds: float = 30) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return run(command, name="it", environment=os.environ, timeout_seconds=timeout_seconds).text


def wait_until_gone(file: Path) -> None:
    deadline = time.monotonic() + 10
    while any(is_alive(int(pid)) for pid in file.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_gives_what_it_wrote() -> None:
    assert python("print('told')") == "told\n"


def test_what_it_makes_is_its_users_alone(tmp_path: Path) -> None:
    python("import sys; open(sys.argv[1], 'w').close()", str(tmp_path / "made"))
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_a_failure_is_told_without_its_output() -> None:
    with pytest.raises(ProgramError, match=r"^it ended with status 3$") as caught:
        python("import sys; print('a secret'); sys.exit(3)")
    assert caught.value.tail() == "a secret"


def test_what_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"^it cannot be started: No such file"):
        run([str(tmp_path / "none")], name="it", environment={}, timeout_seconds=1)


def test_a_time_out_kills_it_with_all_that_it_started(tmp_path: Path) -> None:
    with pytest.raises(ProgramTimeoutError, match="did not end within 2 s and was killed"):
        python(PARENT, str(tmp_path / "pids"), timeout_seconds=2)
    wait_until_gone(tmp_path / "pids")


def test_a_task_that_is_killed_takes_its_programs_along(tmp_path: Path) -> None:
    def kill_when_it_runs() -> None:
        while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
            time.sleep(0.02)
        kill_running()

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    with pytest.raises(ProgramError, match="was killed by signal SIGKILL"):
        python(PARENT, str(tmp_path / "pids"))
    killer.join()
    wait_until_gone(tmp_path / "pids")


def test_airflow_gets_the_database_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", "sqlite+aiosqlite:////another.db")
    environment = airflow_environment(make_url("postgresql+psycopg://me:p%40ss@db:5433/airflow"))
    address = "postgresql+psycopg2://me:p%40ss@db:5433/airflow"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == address
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC" not in environment
