"""A broken definition file: its DAGs stay where they are and fail with the reason; all others work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import ROOT
from tests.dags.support import parse_dags

WAL = "backup_wal"
CONSUMERS = ["backup_configuration", "backup_full", "backup_incremental", WAL]
BENCHMARK = "coreml_benchmark"
BROKEN = """
version: 1
components:
  - name: models
    kind: files
    pfad: models
"""


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An include folder that the setting points to, without ``components.yaml``."""
    folder = Path(shutil.copytree(ROOT / "include", tmp_path / "include"))
    (folder / "components.yaml").unlink()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(folder))
    return folder


def failing_message(dag: Any) -> str:
    """The message of a DAG's only task."""
    (task,) = dag.tasks
    assert task.task_id == "definition_error"
    return task.message


def when(dag: Any) -> Any:
    """A DAG's schedule; for one that an event starts, the names of its assets, which nobody watches now."""
    if dag.dag_id == BENCHMARK:
        return dag.schedule.timetable, [asset.name for asset in dag.schedule.asset_condition.objects]
    return [asset.name for asset in dag.schedule] if isinstance(dag.schedule, list) else dag.schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BROKEN, ["line 6, components[0].pfad: is not a known key", "components[0].path: is missing"]),
        ("version: 1\ncomponents: []\n", ["components: the list is empty"]),
        ("version: 1\ncomponents: [\n", ["is not valid YAML"]),
        (None, ["does not exist"]),
    ],
    ids=["key", "empty list", "syntax", "absent"],
)
def test_each_consumer_fails_with_file_and_key(
    include: Path, text: str | None, expected: list[str], airflow_dags: dict[str, Any]
) -> None:
    if text is not None:
        (include / "components.yaml").write_text(text)
    dags = parse_dags(ROOT / "dags")  # and has no import error, which would take DAGs off the list
    assert set(dags) == set(airflow_dags)
    for dag_id in CONSUMERS:
        message = failing_message(dags[dag_id])
        for part in [str(include / "components.yaml"), *expected]:
            assert part in message
            assert part in dags[dag_id].doc_md
        if dag_id == WAL:  # the intact file has nothing to watch; of the broken one, that is not known
            assert (dags[dag_id].schedule is None, airflow_dags[dag_id].schedule) == (False, None)
        else:
            assert when(dags[dag_id]) == when(airflow_dags[dag_id])
        assert dags[dag_id].tags == airflow_dags[dag_id].tags
    for dag_id in set(dags) - set(CONSUMERS):
        assert dags[dag_id].task_ids == airflow_dags[dag_id].task_ids


def test_a_broken_coreml_yaml_is_one_failing_dag(include: Path, airflow_dags: dict[str, Any]) -> None:
    shutil.copy(ROOT / "include" / "components.yaml", include)
    (include / "coreml.yaml").write_text("version: 1\nmodels: []\ndevices: []\n")
    dags = parse_dags(ROOT / "dags")
    message = failing_message(dags[BENCHMARK])
    assert f"{include / 'coreml.yaml'}" in message
    assert "models: the list is empty" in message
    assert message in dags[BENCHMARK].doc_md
    assert when(dags[BENCHMARK]) == when(airflow_dags[BENCHMARK])
    for dag_id in set(dags) - {BENCHMARK}:
        assert dags[dag_id].task_ids == airflow_dags[dag_id].task_ids


def test_an_absent_include_folder_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "nowhere"))
    message = failing_message(parse_dags(ROOT / "dags")["backup_full"])
    assert "include_dir is" in message
    assert "AIRFLOW__FASTVLM_OPS__INCLUDE_DIR" in message


def test_a_run_of_it_is_red(include: Path, run_dag: Any) -> None:
    (include / "components.yaml").write_text("version: 1\ncomponents: []\n")
    run = run_dag("backup_full")
    assert run.state == "failed"
    assert run.tasks == {"definition_error": ["failed"]}
