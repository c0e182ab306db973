"""Every DAG runs to its end, on a real S3 server; those that can destroy something as a dry run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dags.support import BEFORE, DRILLS, RUNS


# Drills are run for real, in test_disaster_recovery.py: one service of theirs is enough.
@pytest.mark.parametrize("dag_id", [dag_id for dag_id in RUNS if dag_id not in DRILLS])
def test_runs_to_its_end(dag_id: str, published: None, run_dag: Any, request: pytest.FixtureRequest) -> None:
    if dag_id.startswith("capacity_"):
        request.getfixturevalue("metrics")
    if dag_id.startswith("coreml_"):
        request.getfixturevalue("models")
    if dag_id == "backup_wal":
        request.getfixturevalue("wal")
    if dag_id == "backup_replicate":
        request.getfixturevalue("second_place")
    if dag_id in BEFORE:
        assert run_dag(BEFORE[dag_id], RUNS[BEFORE[dag_id]]).state == "success"
    run = run_dag(dag_id, RUNS[dag_id])
    assert run.state == "success"
    assert {state for states in run.tasks.values() for state in states} == {"success"}
