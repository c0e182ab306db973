"""Everything that the demo runs: the kit and its writer, SeaweedFS, Airflow, and Prometheus where wanted."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.airflow_stack import USER, AirflowStack, Folders
from fastvlm_ops.local.console import Console
from fastvlm_ops.local.kit import DATABASE
from fastvlm_ops.local.metrics_history import write_history
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.processes import Process, ProcessStartError, tail
from fastvlm_ops.local.prometheus import Prometheus
from fastvlm_ops.local.seaweedfs import SeaweedFS
from fastvlm_ops.local.state import DemoState

BUCKET = "fastvlm-backups"
PREFIX = "demo"
WRITER = "writer"


def history_end() -> datetime:
    """Return where the generated history ends: midnight of today, in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True)
class Extras:
    """What is special about one demo.

    :param include: folder of its definition files; that of the project where None
    :param connections: further ones, by id
    :param environment: additions to that of Airflow's processes
    :param kit: whether there is a kit with a writer
    :param changes: to Airflow's own settings, by section and key
    :param prepare: called once S3 runs and before Airflow starts, which it must not hold up; returns further
        connections
    """

    include: Path | None = None
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    kit: bool = True
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    prepare: Callable[[Stack], Mapping[str, Mapping[str, Any]]] = lambda _: {}


class Stack:
    """The demo's processes.

    :param state: folder that all is kept in
    :param project: folder that holds dags/, plugins/ and include/
    :param metrics: whether there is a Prometheus, with half a year of generated history; Airflow then has
        PostgreSQL, for over SQLite `backfill create` fails beside a busy scheduler (database is locked)
    :param extras: of one demo
    """

    def __init__(
        self, state: DemoState, project: Path, *, metrics: bool = False, extras: Extras | None = None
    ) -> None:
        self.state = state
        self.project = project
        self.seconds: dict[str, float] = {}
        self.s3 = SeaweedFS(state.folder / "s3", processes=state.processes, metrics=metrics)
        self.prometheus: Prometheus | None = None
        self._metrics = metrics
        self._extras = extras or Extras()
        folders = Folders(project, state.folder / "airflow", state.logs, state.scratch)
        options = {
            "include_dir": self._extras.include or project / "include",
            "kit_dir": state.kit,
            "restore_dir": state.restored,
            "scratch_dir": state.scratch,
        }
        if metrics:
            options["metrics_dir"] = state.folder / "metrics"
        self.airflow = AirflowStack(
            folders,
            state.processes,
            options=options,
            additions=self._extras.environment,
            changes=self._extras.changes,
        )

    def start(self, console: Console) -> None:
        """Start everything, what can be at the same time, and wait until it is ready.

        :raises ProcessStartError: a process ended, or is not ready in time
        """
        began = time.monotonic()
        parts = ["building the demo kit"] if self._extras.kit else []
        console.say(", ".join([*parts, "creating Airflow's database, starting SeaweedFS"]))
        kit = self._start_kit("kit") if self._extras.kit else None
        if self._metrics:
            self._start_postgres()
        database = self.airflow.start_migration()
        self.s3.start()
        self.s3.make_bucket(BUCKET)
        self._note("S3 server", began, console, "waiting for Airflow's database")
        if self._metrics:
            console.say("writing half a year of metrics, and loading them into Prometheus")
            self.prometheus = self._start_prometheus()
            self._note("Prometheus", began, console)
        self._finish(database, "airflow db migrate")
        self._note("Airflow's database", began, console, "starting Airflow")
        connections = {
            "fastvlm_s3": self._connection(),
            **self._extras.connections,
            **self._extras.prepare(self),
        }
        if self.prometheus is not None:
            connections["fastvlm_prometheus"] = self.prometheus.connection()
        self.airflow.start(connections)
        if kit is not None:
            self._finish(kit, "building the demo kit")
            self._note("demo kit", began, console, "starting its writer")
            self._start_writer()
        self.airflow.wait(lambda line: console.say(f"Airflow: {line}"))
        self._note("Airflow", began, console)

    def evolve_kit(self) -> None:
        """Make the kit a day older.

        :raises ProcessStartError: it failed
        """
        self._finish(self._start_kit("kit-day-2", "--evolve"), "changing the demo kit")

    def client(self) -> AirflowClient:
        """Return a client of Airflow's REST API, to be entered."""
        return AirflowClient(self.airflow.url, USER, self.airflow.password)

    @property
    def database(self) -> Path:
        """The kit's database, which the writer keeps changing."""
        return self.state.kit / DATABASE

    def facts(self) -> dict[str, Any]:
        """Return what a person needs to use it, for the state file."""
        services = [process.name for process in self.state.processes.recorded() if process.id.alive]
        return {
            "services": services,
            "url": self.airflow.url,
            "user": USER,
            "password": self.airflow.password,
            "folder": str(self.state.folder),
        }

    def _connection(self) -> dict[str, Any]:
        return {
            "conn_type": "fastvlm_s3",
            "login": self.s3.access_key_id,
            "password": self.s3.secret_access_key,
            "extra": {
                "bucket": BUCKET,
                "prefix": PREFIX,
                "endpoint_url": self.s3.endpoint_url,
                "region_name": self.s3.region_name,
                "repository_passphrase": secrets.token_urlsafe(24),
            },
        }

    def _start_postgres(self) -> None:
        server = PostgreSQL(self.state.folder / "postgres", processes=self.state.processes)
        server.start()
        self.state.processes.note_outside(server.scratch)
        url = server.make_database("airflow")
        self.airflow.database_url = url.replace("+psycopg:", "+psycopg2:")

    def _start_prometheus(self) -> Prometheus:
        """Start it with its history, and what the S3 server serves."""
        (self.state.folder / "metrics").mkdir(exist_ok=True)
        server = Prometheus(
            self.state.folder / "prometheus",
            config=self.project / "include" / "observability" / "prometheus" / "prometheus.yml",
            targets={"s3": self.s3.metrics_addresses},
            processes=self.state.processes,
        )
        self.load_history(server)
        server.start()
        return server

    def load_history(self, server: Prometheus) -> None:
        """Load the history of a kit that ended this midnight.

        :param server: that does not run yet
        """
        file = self.state.scratch / "history.txt"
        write_history(file, end=history_end())
        server.load(file)
        file.unlink()

    def _start_kit(self, name: str, *options: str) -> Process:
        return self._start(name, "fastvlm_ops.local.kit", str(self.state.kit), *options)

    def _start_writer(self) -> Process:
        return self._start(WRITER, "fastvlm_ops.local.writer", str(self.database))

    def _start(self, name: str, module: str, *arguments: str) -> Process:
        return self.state.processes.start(
            name,
            [sys.executable, "-m", module, *arguments],
            environment=self.airflow.environment(),
            log=self.state.logs / f"{name}.log",
        )

    def _finish(self, process: Process, what: str) -> None:
        if self.state.processes.wait(process) != 0:
            raise ProcessStartError(f"{what} failed; the end of {process.log}:\n{tail(process.log)}")

    def _note(self, what: str, began: float, console: Console, then: str = "") -> None:
        self.seconds[what] = time.monotonic() - began
        console.say(f"{what}: ready" + (f"; {then}" if then else ""))
