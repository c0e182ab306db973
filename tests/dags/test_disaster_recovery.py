"""Every drill that is shipped, for real: on a service that is really broken, and backups in a real bucket."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import ROOT
from tests.dags.support import DRILLS, Run, parse_dags
from tests.drill_stack import Drilled

RESTORE_TEST = "disaster_recovery_restore_test"
NEED_A_BACKUP = {
    RESTORE_TEST,
    "disaster_recovery_configuration_corrupted",
    "disaster_recovery_model_store_lost",
    "disaster_recovery_object_store_unreachable",
}
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
    if dag_id in NEED_A_BACKUP:
        assert run_dag("backup_full").state == "success"
    run = run_dag(dag_id, {"dry_run": False})
    assert (run.state, why(run)) == ("success", [])
    assert run.tasks == {task: ["success"] for task in STEPS}
    (report,) = run.returned("report_drill")
    assert report["verdict"] == "PASS", report["reason"]
    assert report["rto_seconds"] is not None
    assert report["rpo_seconds"] is not None
    names = {uri.rpartition("/")[2] for uri in report["evidence"]}
    assert {"evidence.json", "report.html", "report.md", "hashes.txt"} <= names
    assert drilled.left() == []


def rows(table: Any) -> list[dict[str, Any]]:
    """All rows of a table of the operations database that the operators use."""
    from sqlalchemy import select

    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store, store.read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def verdict_of(run_ids: set[str]) -> list[tuple[str, str]]:
    """Verdicts and reasons of drills that were not there before."""
    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    return [(row["verdict"], row["reason"]) for row in rows(drills) if row["run_key"] not in run_ids]


def known() -> set[str]:
    """Run keys of the drills so far."""
    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    return {row["run_key"] for row in rows(drills)}


KILLED = "disaster_recovery_service_process_killed"


def test_a_refused_drill_touches_nothing(
    drilled: Drilled, run_dag: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, view = known(), drilled.service.control.view()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DRILL_ENVIRONMENTS", "staging")
    run = run_dag(KILLED, {"dry_run": False})
    assert run.state == "failed"
    assert run.tasks["guard_drill"] == ["failed"]
    assert {run.tasks[task][0] for task in STEPS[1:-1]} == {"upstream_failed"}
    ((verdict, reason),) = verdict_of(before)
    assert verdict == "REFUSED"
    assert "'demo' is not on the list" in reason
    after = drilled.service.control.view()
    assert [one.identity for one in after.instances] == [one.identity for one in view.instances]


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(
    drilled: Drilled, run_dag: Callable[..., Run]
) -> None:
    view = drilled.service.control.view()
    run = run_dag(KILLED)
    assert run.state == "success"
    (guarded,) = run.returned("guard_drill")
    assert any("SIGKILL" in line and "replica-1" in line for line in guarded["outline"])
    after = drilled.service.control.view()
    assert [one.identity for one in after.instances] == [one.identity for one in view.instances]
    assert not list(drilled.drill_dir.rglob("*.json"))


def test_a_broken_scenario_is_one_failing_dag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_dags: dict[str, Any]
) -> None:
    include = Path(shutil.copytree(ROOT / "include", tmp_path / "include"))
    folder = include / "disaster_recovery"
    text = (folder / "service_hung.yaml").read_text()
    (folder / "service_hung.yaml").write_text(
        text.replace("blast_radius", "blast").replace("role:", "rolle:")
    )
    shutil.copy(folder / "restore_test.yaml", folder / "Restore_Test.yml")
    shutil.copy(folder / "restore_test.yaml", folder / "reaper.yaml")
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    dags = parse_dags(ROOT / "dags")
    assert set(airflow_dags) <= set(dags)
    failing = {
        dag_id: dag.tasks[0].message for dag_id, dag in dags.items() if dag.task_ids == ["definition_error"]
    }
    added = sorted(set(dags) - set(airflow_dags))
    assert sorted(failing) == sorted(["disaster_recovery_service_hung", *added])
    assert len(added) == 2
    assert "service_hung.yaml" in failing["disaster_recovery_service_hung"]
    assert "rolle" in failing["disaster_recovery_service_hung"]
    assert all("cannot be a scenario's" in failing[dag_id] for dag_id in added)


def test_a_running_drill_goes_by_the_plan_recorded_at_its_start(
    drilled: Drilled, run_dag: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvlm_ops.operators.disaster_recovery import ArmDrillOperator

    file = drilled.include / "disaster_recovery"
    shipped = file.resolve()
    file.unlink()
    shutil.copytree(shipped, file)
    arm = ArmDrillOperator.work

    def arm_and_edit(self: Any, context: Any) -> Any:
        (file / "service_process_killed.yaml").write_text("version: 1\n")
        return arm(self, context)

    monkeypatch.setattr(ArmDrillOperator, "work", arm_and_edit)
    run = run_dag(KILLED, {"dry_run": False})
    assert (run.state, why(run)) == ("success", [])
