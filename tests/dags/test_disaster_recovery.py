"""Every drill that is shipped, for real: on a service that is really broken, and backups in a real bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.dags.support import DRILLS, Run
from tests.drill_stack import Drilled

RESTORE_TEST = "disaster_recovery_restore_test"
STEPS = [
    "guard_drill",
    "approve_drill",
    "arm_drill",
    "simulate_failure",
    "verify_failover",
    "restore_service",
    "validate_recovery",
    "undo_fault",
    "report_drill",
]


def why(run: Run) -> list[Any]:
    """What the failed tasks of a run say."""
    return [run.failures(task) for task in STEPS if run.failures(task)]


@pytest.mark.parametrize("dag_id", [RESTORE_TEST, *DRILLS])
def test_passes_for_real(drilled: Drilled, run_dag: Callable[..., Run], dag_id: str) -> None:
    assert run_dag("backup_full").state == "success"
    run = run_dag(dag_id, {"dry_run": False})
    assert (run.state, why(run)) == ("success", [])
    assert run.tasks == dict.fromkeys(STEPS, ["success"])
    (report,) = run.returned("report_drill")
    assert report["verdict"] == "PASS", report["reason"]
    assert report["rto_seconds"] is not None
    assert report["rpo_seconds"] is not None
    names = {uri.rpartition("/")[2] for uri in report["evidence"]}
    assert {"evidence.json", "report.html", "report.md", "hashes.txt"} <= names
    assert drilled.left() == []
