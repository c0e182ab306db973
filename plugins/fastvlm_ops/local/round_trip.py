"""The demo's story: a full backup, a day of changes, an incremental backup, a restore, and the comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.local.airflow_api import AirflowClient, RunResult, failed_tasks
from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.console import Console
from fastvlm_ops.local.stack import Stack
from fastvlm_ops.local.writer import InconsistentDatabaseError, check_database, digest_at

FOLDERS = ("models", "configuration", "uploads")
DATABASE_COMPONENT = "application_data"
TARGET = "demo"
_DAGS = ("backup_full", "backup_incremental", "restore_backup")


class RoundTripError(Exception):
    """A run failed, or what was restored is not what was backed up."""


@dataclass(frozen=True)
class Check:
    """What came of comparing a restored component with its source.

    :param component: its name
    :param size_bytes: that were compared
    :param text: what was found, for people
    """

    component: str
    size_bytes: int
    text: str


@dataclass
class RoundTrip:
    """What the story came to.

    :param seconds: of each step that is not a run
    :param runs: by DAG id
    :param checks: of the restored components
    """

    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, RunResult] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    def backup_id(self, dag_id: str) -> str:
        """Return the id of the backup set that a run published."""
        return str(self.runs[dag_id].values("publish_backup")[0]["set_id"])


def run_round_trip(stack: Stack, console: Console) -> RoundTrip:
    """Run it on a stack that is up.

    :raises RoundTripError: a run failed, or what was restored is not what was backed up
    :raises AirflowError: Airflow refused a request, or a run did not end in time
    """
    story = RoundTrip()
    with stack.client() as airflow:
        for dag_id in _DAGS:
            airflow.wait_for_dag(dag_id)
        _run(airflow, console, story, "backup_full")
        console.say("a day goes by: a new model version, edited configuration, new uploads")
        began = time.monotonic()
        stack.evolve_kit()
        story.seconds["a day of changes"] = time.monotonic() - began
        at_least = check_database(stack.database).events
        _run(airflow, console, story, "backup_incremental")
        conf = {"backup_id": "latest", "components": [], "target": TARGET, "dry_run": False}
        _run(airflow, console, story, "restore_backup", conf)
    console.say("comparing what was restored with its source")
    began = time.monotonic()
    story.checks = [*_check_folders(stack), _check_database(stack, at_least)]
    story.seconds["comparison"] = time.monotonic() - began
    return story


def _run(
    airflow: AirflowClient,
    console: Console,
    story: RoundTrip,
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
) -> None:
    console.say(f"{dag_id}: triggered")
    progress: Callable[[str], None] = lambda line: console.say(f"{dag_id}: {line}")  # noqa: E731
    run = story.runs[dag_id] = airflow.run(dag_id, conf, progress=progress)
    if run.state == "success":
        console.say(f"{dag_id}: done in {run.seconds:.1f} s")
        return
    failed = failed_tasks(run)
    reasons = [f"{f'{task.task_id} {task.label}'.strip()}: {airflow.failure(run, task)}" for task in failed]
    raise RoundTripError("\n".join([f"{dag_id} failed.", *reasons]))


def _check_folders(stack: Stack) -> list[Check]:
    checks = []
    for name in FOLDERS:
        found = compare_trees(stack.state.kit / name, stack.state.restored / TARGET / name)
        if found.differences:
            shown = "\n".join(f"  {difference}" for difference in found.differences[:10])
            raise RoundTripError(f"{name} as restored differs in {len(found.differences)} places:\n{shown}")
        text = f"equal: {found.entries} entries, bytes, modes, owners, times, links, attributes"
        checks.append(Check(name, found.size_bytes, text))
    return checks


def _check_database(stack: Stack, at_least: int) -> Check:
    """Check that the restored database is what some transaction left, and is as new as its backup.

    :param at_least: events that there were when the backup began
    """
    restored = stack.state.restored / TARGET / DATABASE_COMPONENT / stack.database.name
    try:
        chain = check_database(restored)
    except InconsistentDatabaseError as error:
        raise RoundTripError(str(error)) from error
    if chain.events < at_least:
        raise RoundTripError(f"{restored} has {chain.events} events; {at_least} were there before the backup")
    if digest_at(stack.database, chain.events) != chain.digest:
        raise RoundTripError(f"{restored} is not a past state of {stack.database}")
    text = f"consistent, and what the live one was at event {chain.events}"
    return Check(DATABASE_COMPONENT, restored.stat().st_size, text)
