"""`make demo-disaster-recovery`: a backup is restored on trial, and a process of a service is killed.

Everything is made and started on this machine, below one folder, and listens on loopback only. What is broken
is really broken: a replica of a small inference service gets SIGKILL.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastvlm_ops.core.config.components import load_components
from fastvlm_ops.local.airflow_api import AirflowClient, RunResult
from fastvlm_ops.local.console import Console, table
from fastvlm_ops.local.demo import Demo, run_demo
from fastvlm_ops.local.service.demo_service import DemoService
from fastvlm_ops.local.stack import Extras, Stack
from fastvlm_ops.local.state import DemoState

DRILLS = ("restore_test", "service_process_killed")
ALL = (
    *DRILLS,
    "service_hung",
    "primary_database_lost",
    "model_store_lost",
    "object_store_unreachable",
    "configuration_corrupted",
)
BACKUP = "backup_full"
CONNECTION, DATABASE_CONNECTION = "fastvlm_service", "fastvlm_service_db"
_ROWS = 200


class DemoDrillError(Exception):
    """A run did not end as it should."""


def main() -> int:
    """Start Airflow, S3 and a service here; test a restore, break the service, and say how it recovered."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--drills", default=",".join(DRILLS), help="with commas, or all; default: %(default)s")
    chosen = own.parse_known_args()[0].drills
    drills = ALL if chosen == "all" else tuple(chosen.split(","))
    place = Place()

    def stack_of(state: DemoState, project: Path) -> Stack:
        return Stack(state, project, extras=place.extras(state, project))

    def story(stack: Stack, console: Console) -> str:
        return tell(stack, console, place, drills)

    description = str(main.__doc__)
    return run_demo(
        Demo("make demo-disaster-recovery", description, (DemoDrillError,), story, stack_of), [own]
    )


class Place:
    """The service of a demo, which starts beside Airflow, and what is backed up."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._started: Future[None] | None = None
        self.service: DemoService | None = None

    def extras(self, state: DemoState, project: Path) -> Extras:
        """Return what is special about the demo.

        :param state: its folder
        :param project: that the definition files come from
        """
        include = make_include(state.folder, project, service_folder(state))
        make_data(state.kit)
        return Extras(include, kit=False, prepare=lambda stack: self.prepare(stack, state))

    def prepare(self, stack: Stack, state: DemoState) -> Mapping[str, Mapping[str, Any]]:
        """Begin to start the service; return the connections that lead to it.

        :param stack: whose S3 server runs
        :param state: the demo's folder
        """
        self.service = DemoService(
            service_folder(state), state.processes, object_store_url=stack.s3.endpoint_url
        )
        self._started = self._pool.submit(self.service.start)
        return {
            CONNECTION: {
                "conn_type": "fastvlm_service",
                "host": self.service.control_address,
                "extra": {"database_conn_id": DATABASE_CONNECTION},
            },
            DATABASE_CONNECTION: {
                "conn_type": "postgres",
                "host": "127.0.0.1",
                "login": self.service.database_user,
                "password": self.service.database_password,
                "schema": self.service.database_name,
            },
        }

    def wait(self) -> None:
        """Wait until the service is healthy.

        :raises ProcessStartError: it did not become so
        """
        if self._started is not None:
            self._started.result()


def service_folder(state: DemoState) -> Path:
    """Return the folder of the service.

    :param state: of the demo
    """
    return state.folder / "service"


def make_include(folder: Path, project: Path, service: Path) -> Path:
    """Write definition files by which the service's models and configuration are backed up.

    :param folder: that they go below
    :param project: that all others come from
    :param service: folder of the service
    """
    import shutil

    include = Path(shutil.copytree(project / "include", folder / "include"))
    places = service / "places"
    definitions = {
        "version": 1,
        "components": [
            {"name": "models", "kind": "files", "path": str(places / "model_store")},
            {"name": "configuration", "kind": "files", "path": str(places / "configuration")},
            {"name": "application_data", "kind": "sqlite", "path": "data/application.db"},
        ],
    }
    (include / "components.yaml").write_text(yaml.safe_dump(definitions, sort_keys=False))
    load_components(include)
    return include


def make_data(kit: Path) -> None:
    """Write a small database.

    :param kit: folder that it goes below
    """
    (kit / "data").mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(kit / "data" / "application.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS request (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany(
            "INSERT INTO request (text) VALUES (?)", [(f"request {n}",) for n in range(_ROWS)]
        )
    database.close()


def tell(stack: Stack, console: Console, place: Place, drills: tuple[str, ...]) -> str:
    """Run it on a stack that is up, and return what is printed at the end.

    :param stack: that is up
    :param console: for progress
    :param place: with the service
    :param drills: names of the scenarios
    :raises DemoDrillError: a run did not end as it should
    :raises AirflowError: Airflow refused a request, or a run did not end in time
    """
    console.say("waiting for the service: two replicas behind a balancer, and two databases")
    place.wait()
    with stack.client() as airflow:
        airflow.wait_for_dag(BACKUP)
        backup = _run(airflow, console, BACKUP, {})
        if backup.state != "success":
            raise DemoDrillError(
                f"{backup.run_id} of {BACKUP} is {backup.state}: {_failures(airflow, backup)}"
            )
        results = [drill(airflow, console, name) for name in drills]
    rows: list[tuple[str, ...]] = [("drill", "verdict", "RTO", "RPO", "seconds")]
    rows += [
        (
            name,
            said["verdict"],
            _seconds(said.get("rto_seconds")),
            _seconds(said.get("rpo_seconds")),
            f"{run.seconds:.0f}",
        )
        for name, run, said in results
    ]
    reasons = [f"{name}: {said['reason']}" for name, _, said in results]
    return "\n".join([table(rows), "", *reasons, "", "Evidence: the page Operations, Drills."])


def drill(airflow: AirflowClient, console: Console, name: str) -> tuple[str, RunResult, dict[str, Any]]:
    """Run a drill for real.

    :param airflow: client of the API
    :param console: for progress
    :param name: of the scenario
    :returns: the name, the run, and what its report says
    :raises DemoDrillError: it did not pass
    """
    dag_id = f"disaster_recovery_{name}"
    airflow.wait_for_dag(dag_id)
    run = _run(airflow, console, dag_id, {"dry_run": False})
    said = run.values("report_drill")
    if run.state != "success" or not said:
        raise DemoDrillError(f"{run.run_id} of {dag_id} is {run.state}: {_failures(airflow, run)}")
    return name, run, said[0]


def _run(airflow: AirflowClient, console: Console, dag_id: str, conf: Mapping[str, Any]) -> RunResult:
    console.say(f"{dag_id}: triggered")
    return airflow.run(dag_id, conf, progress=partial(_progress, console, dag_id))


def _progress(console: Console, dag_id: str, line: str) -> None:
    console.say(f"{dag_id}: {line}")


def _failures(airflow: AirflowClient, run: RunResult) -> str:
    failed = [task for task in run.tasks if task.state == "failed"]
    return "; ".join(f"{task.task_id}: {airflow.failure(run, task)}" for task in failed)


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
