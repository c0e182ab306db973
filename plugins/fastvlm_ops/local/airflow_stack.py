"""Airflow on this machine: api-server, scheduler, DAG processor and triggerer, on loopback, over SQLite
unless told otherwise.

`airflow standalone` would open log servers on all interfaces, and leave its children when it is stopped.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from fastvlm_ops.core.programs.proc import session_members
from fastvlm_ops.local.ports import HOST, bypass_proxies, free_ports
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

USER = "admin"
# Tasks wait for the network and for each other more than they compute, but each is a Python process.
PARALLELISM = 4

_COMPONENTS = {
    "api-server": ["api-server", "--workers", "1"],
    # Their log servers would listen on all interfaces; the api-server reads the files itself.
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
_HEALTH = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


@dataclass(frozen=True)
class Folders:
    """Where the project is, and where Airflow works.

    :param project: holds dags/, plugins/ and include/
    :param home: AIRFLOW_HOME; made where absent
    :param logs: for the output of the processes
    :param scratch: the temporary folder of all that Airflow starts
    """

    project: Path
    home: Path
    logs: Path
    scratch: Path


class AirflowStack:
    """Airflow's four processes.

    :param folders: where things are
    :param processes: that keeps its processes
    :param options: of the section ``[fastvlm_ops]``
    :param additions: to the environment of its processes
    :param changes: to Airflow's own settings, by section and key
    """

    def __init__(
        self,
        folders: Folders,
        processes: Processes,
        *,
        options: Mapping[str, Path],
        additions: Mapping[str, str] | None = None,
        changes: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self.folders = folders
        self.processes = processes
        self.password = secrets.token_urlsafe(12)
        #: Of Airflow's own database, to be changed before it is made.
        self.database_url = f"sqlite:///{folders.home / 'airflow.db'}"
        self._port = free_ports(1)[0]
        self._options = options
        self._additions = dict(additions or {})
        self._changes = changes or {}
        self._keys = {
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        }
        self._running: dict[str, Process] = {}
        self._variables: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where the UI and the REST API are."""
        return f"http://{HOST}:{self._port}"

    def start_migration(self) -> Process:
        """Begin to create Airflow's database. It needs nothing else, so other things can start beside it."""
        bypass_proxies()
        for folder in (self.folders.home, self.folders.logs, self.folders.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_password()
        return self._start("db-migrate", ["db", "migrate"], {})

    def start(self, connections: Mapping[str, Mapping[str, object]]) -> None:
        """Start the four processes, after the migration.

        :param connections: by id: type, login, password, extra, as in ``AIRFLOW_CONN_<ID>``. They are kept
            in the environment of the processes, which only their owner can read.
        :raises ProcessStartError: the pools that the DAGs use cannot be made
        """
        self._variables = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()
        }
        self._make_pools()
        for name in _COMPONENTS:
            self.start_one(name)

    def start_one(self, name: str) -> None:
        """Start one of the four again, after it was killed.

        :param name: as in ``triggerer``
        """
        self._running[name] = self._start(name, _COMPONENTS[name], self._variables)

    def kill_one(self, name: str) -> None:
        """Kill one of the four and what it has started, as a crash would.

        :param name: as in ``triggerer``
        """
        leader = self._running.pop(name).id
        for member in list(session_members(leader)):
            member.signal(signal.SIGKILL)

    def wait(self, progress: Callable[[str], None], *, timeout_seconds: float = 120) -> None:
        """Wait until all four say that they are healthy.

        :param progress: called with what is still missing, when that changes
        :raises ProcessStartError: one of them ended, or is not healthy in time
        """
        deadline = time.monotonic() + timeout_seconds
        said = ""
        while missing := self._unhealthy():
            for process in self._running.values():
                process.check()
            if time.monotonic() > deadline:
                raise ProcessStartError(f"not healthy: {', '.join(missing)}; logs: {self.folders.logs}")
            if (line := f"waiting for {', '.join(missing)}") != said:
                progress(line)
                said = line
            time.sleep(0.3)

    def run_command(self, name: str, arguments: list[str]) -> Path:
        """Run one of Airflow's commands to its end, as a person would on this machine.

        :param name: of its log
        :param arguments: as in ``["backfill", "create", …]``
        :returns: the file with its output
        :raises ProcessStartError: it failed; the message ends with the end of its output
        """
        process = self._start(name, arguments, self._variables)
        if self.processes.wait(process):
            raise ProcessStartError(
                f"airflow {' '.join(arguments[:2])} failed; the end of {process.log}:\n{tail(process.log)}"
            )
        return process.log

    def environment(self) -> dict[str, str]:
        """Return the environment that Airflow's processes get, less the connections."""
        return {**_inherited(), **self._additions, **dict(self._settings()), **self._keys}

    def _settings(self) -> Iterator[tuple[str, str]]:
        folders = self.folders
        yield "AIRFLOW_HOME", str(folders.home)
        yield "TMPDIR", str(folders.scratch)
        # Keeps /proc/<pid>/environ readable, by which `make down` finds what is left after a crash.
        yield "SPT_NOENV", "1"
        sections: dict[str, dict[str, object]] = {
            "core": {
                "executor": "LocalExecutor",
                "parallelism": PARALLELISM,
                "dags_folder": folders.project / "dags",
                "plugins_folder": folders.project / "plugins",
                "load_examples": False,
                "execution_api_server_url": f"{self.url}/execution/",
                "simple_auth_manager_users": f"{USER}:admin",
                "simple_auth_manager_passwords_file": self._password_file,
            },
            "database": {"sql_alchemy_conn": self.database_url},
            "api": {"host": HOST, "port": self._port, "base_url": self.url, "workers": 1},
            "logging": {"base_log_folder": folders.home / "logs"},
            "usage_data_collection": {"enabled": False},
            "fastvlm_ops": dict(self._options),
        }
        for section in {**sections, **self._changes}:
            options = {**sections.get(section, {}), **self._changes.get(section, {})}
            for option, value in options.items():
                yield f"AIRFLOW__{section}__{option}".upper(), str(value)

    @property
    def _password_file(self) -> Path:
        return self.folders.home / "passwords.json"

    def _write_password(self) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(json.dumps({USER: self.password}))

    def _make_pools(self) -> None:
        """Make the pools: the scheduler would leave tasks of a pool that does not exist where they are."""
        process = self.processes.start(
            "pools",
            [sys.executable, "-m", "fastvlm_ops.cli.pools"],
            environment=self.environment(),
            log=self.folders.logs / "pools.log",
            folder=self.folders.home,
        )
        if status := self.processes.wait(process):
            raise ProcessStartError(f"making the pools ended with status {status}; log: {process.log}")

    def _start(self, name: str, arguments: list[str], variables: Mapping[str, str]) -> Process:
        return self.processes.start(
            name,
            [sys.executable, "-m", "airflow", *arguments],
            environment={**self.environment(), **variables},
            log=self.folders.logs / f"{name}.log",
            folder=self.folders.home,
        )

    def _unhealthy(self) -> list[str]:
        try:
            answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5, trust_env=False)
            health = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return list(_COMPONENTS)
        return [name for name, key in _HEALTH.items() if (health.get(key) or {}).get("status") != "healthy"]


def _inherited() -> dict[str, str]:
    """Return this environment less what would change how Airflow or boto3 behave."""
    ours = ("AIRFLOW", "AWS_", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE", "PYTEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
