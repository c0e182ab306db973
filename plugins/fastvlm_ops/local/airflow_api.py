"""A small client of Airflow's REST API: trigger a run, watch it, read what its tasks returned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

_ENDED = {"success", "failed"}
_STEP_ASIDE_SECONDS = 3
_TASK_FAILED = {"failed", "upstream_failed"}


class AirflowError(Exception):
    """Airflow refused a request, or a run failed."""


@dataclass(frozen=True)
class TaskResult:
    """A task of a run that ended.

    :param task_id: of the task
    :param map_index: -1 where it is not mapped
    :param label: what tells mapped tasks apart
    :param state: as in ``success``
    :param attempt: the last one's number, from 1; 0 where there was none
    :param seconds: that it ran for
    :param value: that it returned; None where it returned nothing
    """

    task_id: str
    map_index: int
    label: str
    state: str
    attempt: int
    seconds: float
    value: Any


@dataclass(frozen=True)
class RunResult:
    """A run that ended.

    :param dag_id: of the DAG
    :param run_id: of the run
    :param state: ``success`` or ``failed``
    :param seconds: from its start to its end
    :param tasks: its tasks, in the order in which they started
    """

    dag_id: str
    run_id: str
    state: str
    seconds: float
    tasks: list[TaskResult] = field(default_factory=list)

    def values(self, task_id: str) -> list[Any]:
        """Return what a task returned: one value, or one for each of its mapped tasks."""
        tasks = sorted(self.tasks, key=lambda task: task.map_index)
        return [task.value for task in tasks if task.task_id == task_id]


class AirflowClient:
    """Speaks to one Airflow as one user.

    :param url: of the api-server
    :param user: name
    :param password: of the user
    :param transport: that requests go through; the network unless given
    """

    def __init__(
        self, url: str, user: str, password: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._user = user
        self._password = password
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False, transport=transport)

    def __enter__(self) -> AirflowClient:
        self.log_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def log_in(self) -> None:
        """Get a token.

        :raises AirflowError: the user is refused
        """
        token = self._call("POST", "/auth/token", json={"username": self._user, "password": self._password})
        self._http.headers["Authorization"] = f"Bearer {token['access_token']}"

    def wait_for_dag(self, dag_id: str, *, timeout_seconds: float = 90) -> None:
        """Wait until Airflow knows a DAG.

        :raises AirflowError: it does not in time; the message says which files could not be imported
        """
        deadline = time.monotonic() + timeout_seconds
        while (answer := self._http.get(f"/api/v2/dags/{dag_id}")).status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                errors = self._call("GET", "/api/v2/importErrors").get("import_errors", [])
                found = "\n".join(f"{error['filename']}: {error['stack_trace']}" for error in errors)
                raise AirflowError(f"DAG {dag_id} did not appear ({answer.status_code}). {found}".strip())
            time.sleep(0.3)

    def run(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        progress: Callable[[str], None],
        timeout_seconds: float = 600,
    ) -> RunResult:
        """Trigger a run and wait until it ends.

        :param conf: values of the DAG's Params
        :param progress: called with a line whenever a task starts or ends
        :raises AirflowError: it was refused, or it did not end in time
        """
        run_id = self.trigger(dag_id, conf)
        return self.wait_for_run(dag_id, run_id, progress=progress, timeout_seconds=timeout_seconds)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Create a run of a DAG, which is unpaused for it, and return its id."""
        run = self._call(
            "POST", f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf or {})}
        )
        self.unpause(dag_id)
        return str(run["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run by its schedule."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keep a DAG from running, and its runs from going on."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": True})

    def mark_failed(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, as a person would who wants it to end."""
        self._call("PATCH", _path(dag_id, run_id), json={"state": "failed"})

    def wait_for_question(
        self, dag_id: str, run_id: str, task_id: str, *, timeout_seconds: float = 60
    ) -> dict[str, Any]:
        """Wait until a task asks a person for an answer, and return what it asks, as the API describes it.

        :raises AirflowError: it does not in time
        """
        deadline = time.monotonic() + timeout_seconds
        path = f"{_path(dag_id, run_id)}/taskInstances/{task_id}"
        while (state := self._call("GET", path)["state"]) != "awaiting_input":
            if time.monotonic() > deadline:
                raise AirflowError(f"{task_id} of {run_id} does not ask for an answer: it is {state}")
            time.sleep(0.3)
        # An answer before the scheduler has seen that the task stepped aside would count as its failure.
        time.sleep(_STEP_ASIDE_SECONDS)
        return self._call("GET", f"{path}/-1/hitlDetails")

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Answer a task that asks a person.

        :param option: as in ``Approve``
        """
        path = f"{_path(dag_id, run_id)}/taskInstances/{task_id}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task of a run that has ended run again, and all that come after it.

        :param task_id: all of its mapped tasks
        """
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "only_failed": False,
            "include_downstream": True,
        }
        self._call("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body)

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return all runs of a DAG, a hundred at most, as the API describes them."""
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        found: list[dict[str, Any]] = self._call("GET", path, params={"limit": 100})["dag_runs"]
        return found

    def wait_for_backfill(
        self,
        dag_id: str,
        count: int,
        *,
        progress: Callable[[str], None],
        timeout_seconds: float = 1800,
    ) -> list[dict[str, Any]]:
        """Wait until so many runs of a DAG that a backfill made have ended, and return them.

        :param count: that the backfill was to make
        :param progress: called with a line whenever another run has ended
        :raises AirflowError: they did not end in time
        """
        deadline = time.monotonic() + timeout_seconds
        known = -1
        while True:
            runs = [run for run in self.runs(dag_id) if run["run_type"] == "backfill"]
            ended = sum(run["state"] in _ENDED for run in runs)
            if ended != known:
                progress(f"{ended} of {count} runs have ended")
                known = ended
            if ended >= count:
                return runs
            if time.monotonic() > deadline:
                raise AirflowError(
                    f"{ended} of {count} runs of {dag_id} ended within {timeout_seconds:.0f} s"
                )
            time.sleep(2)

    def wait_for_run(
        self, dag_id: str, run_id: str, *, progress: Callable[[str], None], timeout_seconds: float = 600
    ) -> RunResult:
        """Wait until a run ends, and return it with what its tasks returned.

        :raises AirflowError: it did not end in time
        """
        path = _path(dag_id, run_id)
        deadline = time.monotonic() + timeout_seconds
        known: dict[tuple[str, int], str] = {}
        while True:
            run = self._call("GET", path)
            _tell(self._instances(path), known, progress)
            if run["state"] in _ENDED:
                break
            if time.monotonic() > deadline:
                raise AirflowError(f"run {run_id} of {dag_id} did not end within {timeout_seconds:.0f} s")
            time.sleep(0.5)
        return RunResult(
            dag_id=dag_id,
            run_id=run_id,
            state=run["state"],
            seconds=_seconds(run["start_date"], run["end_date"]),
            tasks=[self._result(path, instance) for instance in self._instances(path)],
        )

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a run in the order in which they started, as the API describes them."""
        return self._instances(_path(dag_id, run_id))

    def failure(self, run: RunResult, task: TaskResult) -> str:
        """Return what a task's last attempt failed with: its error, else the end of its log."""
        path = f"{_path(run.dag_id, run.run_id)}/taskInstances/{task.task_id}/logs/{task.attempt}"
        content = self._call("GET", path, params={"map_index": task.map_index}).get("content", [])
        entries: list[dict[str, Any]]
        entries = [entry if isinstance(entry, dict) else {"event": entry} for entry in content]
        errors = [error for entry in entries for error in entry.get("error_detail") or []]
        if errors:
            return f"{errors[-1].get('exc_type')}: {errors[-1].get('exc_value')}"
        return "\n".join(str(entry.get("event", "")) for entry in entries[-15:])

    def _instances(self, path: str) -> list[dict[str, Any]]:
        found = self._call("GET", f"{path}/taskInstances", params={"limit": 100})["task_instances"]
        return sorted(found, key=lambda instance: (instance["start_date"] or "~", instance["map_index"]))

    def _result(self, path: str, instance: dict[str, Any]) -> TaskResult:
        task_id, map_index = instance["task_id"], instance["map_index"]
        answer = self._http.get(
            f"{path}/taskInstances/{task_id}/xcomEntries/return_value",
            params={"map_index": map_index, "stringify": False},
        )
        return TaskResult(
            task_id=task_id,
            map_index=map_index,
            label=_label(instance),
            state=instance["state"] or "none",
            attempt=instance["try_number"],
            seconds=_seconds(instance["start_date"], instance["end_date"]),
            value=answer.json()["value"] if answer.status_code == httpx.codes.OK else None,
        )

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise AirflowError(f"{method} {path}: {error}") from error
        if answer.is_error:
            raise AirflowError(f"{method} {path} was refused: {answer.status_code} {answer.text[:500]}")
        document: dict[str, Any] = answer.json()
        return document


def failed_tasks(run: RunResult) -> list[TaskResult]:
    """Return the tasks that failed by themselves, in the order in which they started."""
    return [task for task in run.tasks if task.state == "failed"]


def _tell(
    instances: list[dict[str, Any]], known: dict[tuple[str, int], str], progress: Callable[[str], None]
) -> None:
    """Say what began or ended since the last call."""
    for instance in instances:
        key, state = (instance["task_id"], instance["map_index"]), instance["state"]
        if known.get(key) == state:
            continue
        known[key] = state
        name = f"{instance['task_id']} {_label(instance)}".strip()
        if state in {"running", "up_for_retry", "skipped"} | _TASK_FAILED:
            progress(f"{name}: {state.replace('_', ' ')}")
        elif state == "success":
            progress(f"{name}: done in {_seconds(instance['start_date'], instance['end_date']):.1f} s")


def _path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"


def _label(instance: dict[str, Any]) -> str:
    if instance["map_index"] < 0:
        return ""
    # The task itself gives the name, once it runs; until then the field holds the number.
    name, number = instance.get("rendered_map_index"), str(instance["map_index"])
    return f"[{number}]" if name in (None, number) else str(name)


def _seconds(start: str | None, end: str | None) -> float:
    if not start or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
