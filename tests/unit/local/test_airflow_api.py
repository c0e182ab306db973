"""The REST client against an Airflow made of canned answers, and the report of what it found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fastvlm_ops.local.airflow_api import AirflowClient, AirflowError, RunResult, TaskResult, failed_tasks
from fastvlm_ops.local.report import story_text
from fastvlm_ops.local.round_trip import Check, RoundTrip

RUN = "/api/v2/dags/backup_full/dagRuns/manual__1"
ERROR = {"event": "Task failed", "error_detail": [{"exc_type": "SourceError", "exc_value": "no such folder"}]}


def instance(task_id: str, state: str, map_index: int = -1, label: str | None = None) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "map_index": map_index,
        "rendered_map_index": label,
        "state": state,
        "try_number": 1,
        "start_date": "2026-01-01T00:00:01Z",
        "end_date": "2026-01-01T00:00:03.5Z",
    }


class CannedAirflow:
    """Answers by path; the run has failed when it is looked at the second time."""

    def __init__(self) -> None:
        self.looks = 0
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answer(request.method, request.url.path)
        return httpx.Response(404, text="not here") if answer is None else httpx.Response(200, json=answer)

    def answer(self, method: str, path: str) -> dict[str, Any] | None:
        if path == "/api/v2/importErrors":
            return {"import_errors": [{"filename": "broken.py", "stack_trace": "SyntaxError"}]}
        if path == "/auth/token":
            return {"access_token": "t0ken"}
        if path == RUN:
            self.looks += 1
            state = "failed" if self.looks > 1 else "running"
            return {"state": state, "start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:00:04Z"}
        if path == f"{RUN}/taskInstances":
            return {"task_instances": self.instances()}
        if path.endswith("/taskInstances/prepare/xcomEntries/return_value"):
            return {"value": {"ready": True}}
        if path.endswith("/taskInstances/create/logs/1"):
            return {"content": [{"event": "hello"}, ERROR, {"event": "bye"}]}
        if path.endswith("/taskInstances/approve"):
            return {"state": "awaiting_input"}
        if path.endswith("/taskInstances/create"):
            return {"state": "running"}
        if (method, path) == ("GET", f"{RUN}/taskInstances/approve/-1/hitlDetails"):
            return {"subject": "Really?"}
        if (method, path) == ("POST", "/api/v2/dags/backup_full/dagRuns"):
            return {"dag_run_id": "manual__1"}
        return {} if method == "PATCH" else None

    def instances(self) -> list[dict[str, Any]]:
        prepare = instance("prepare", "success" if self.looks > 1 else "running")
        mapped = [instance("create", "failed", 0, "models"), instance("create", "upstream_failed", 1, "1")]
        return [prepare, *mapped] if self.looks > 1 else [prepare]


@pytest.fixture
def canned() -> CannedAirflow:
    return CannedAirflow()


@pytest.fixture
def airflow(canned: CannedAirflow) -> Iterator[AirflowClient]:
    with AirflowClient("http://test", "admin", "secret", transport=httpx.MockTransport(canned)) as client:
        yield client


def test_a_run_is_watched_to_its_end(airflow: AirflowClient, canned: CannedAirflow) -> None:
    lines: list[str] = []
    run = airflow.run("backup_full", {"a": 1}, progress=lines.append)
    assert lines == [
        "prepare: running",
        "prepare: done in 2.5 s",
        "create models: failed",
        "create [1]: upstream failed",
    ]
    assert (run.state, run.seconds, run.values("prepare")) == ("failed", 4.0, [{"ready": True}])
    assert [task.label for task in failed_tasks(run)] == ["models"]
    assert airflow.failure(run, failed_tasks(run)[0]) == "SourceError: no such folder"
    assert canned.requests[-1].headers["Authorization"] == "Bearer t0ken"


def test_what_is_refused_is_said(airflow: AirflowClient) -> None:
    with pytest.raises(AirflowError, match="was refused: 404 not here"):
        airflow.trigger("unknown")
    with pytest.raises(AirflowError, match=r"DAG unknown did not appear \(404\)\. broken\.py: SyntaxError"):
        airflow.wait_for_dag("unknown", timeout_seconds=0)


def test_a_question_is_waited_for_and_answered(
    airflow: AirflowClient, canned: CannedAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvlm_ops.local.airflow_api._STEP_ASIDE_SECONDS", 0)
    assert airflow.wait_for_question("backup_full", "manual__1", "approve") == {"subject": "Really?"}
    airflow.answer("backup_full", "manual__1", "approve", "Reject")
    request = canned.requests[-1]
    assert (request.method, request.url.path) == ("PATCH", f"{RUN}/taskInstances/approve/-1/hitlDetails")
    assert json.loads(request.content) == {"chosen_options": ["Reject"], "params_input": {}}
    with pytest.raises(AirflowError, match="create of manual__1 does not ask for an answer: it is running"):
        airflow.wait_for_question("backup_full", "manual__1", "create", timeout_seconds=0)


def test_a_run_that_does_not_end(airflow: AirflowClient) -> None:
    with pytest.raises(AirflowError, match="did not end within 0 s"):
        airflow.wait_for_run("backup_full", "manual__1", progress=print, timeout_seconds=0)


def task(task_id: str, value: Any, map_index: int = -1) -> TaskResult:
    return TaskResult(task_id, map_index, "", "success", 1, 1.0, value)


def backup(dag_id: str, set_id: str) -> RunResult:
    made = [
        {"component": name, "size_bytes": 1 << 20, "new_bytes": 1 << 10, "duration_seconds": 0.5}
        for name in ("models", "uploads")
    ]
    published = {"set_id": set_id, "size_bytes": 2 << 20, "new_bytes": 2 << 10}
    tasks = [
        *(task("create_backup", value, index) for index, value in reversed(list(enumerate(made)))),
        task("publish_backup", published),
    ]
    return RunResult(dag_id, "manual__1", "success", 7.25, tasks)


def test_the_report() -> None:
    restored = {
        "component": "models",
        "size_bytes": 1 << 20,
        "fetched_bytes": 1 << 10,
        "duration_seconds": 0.4,
    }
    story = RoundTrip(
        seconds={"a day of changes": 3.0, "comparison": 0.2},
        runs={
            "backup_full": backup("backup_full", "full-1"),
            "backup_incremental": backup("backup_incremental", "incremental-2"),
            "restore_backup": RunResult(
                "restore_backup", "r", "success", 5, [task("restore_backup", restored)]
            ),
        },
        checks=[Check("models", 1 << 20, "equal: 3 entries")],
    )
    text = story_text(story, {"Airflow": 20.0})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2:6] == [
        "Airflow ready after 20.0",
        "backup_full 7.2 2.0 MiB 2.0 KiB",
        "models 0.5 1.0 MiB 1.0 KiB",
        "uploads 0.5 1.0 MiB 1.0 KiB",
    ]
    assert "restore_backup 5.0 1.0 MiB 1.0 KiB" in lines
    assert "backup_incremental incremental-2" in lines
    assert lines[-2:] == ["The restored tree equals its source:", "models equal: 3 entries"]
