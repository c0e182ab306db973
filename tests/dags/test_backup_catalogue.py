"""The catalogue of backups behind every backup DAG: recorded whatever happened, and hiding nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_kit import COMPONENTS, Kit, set_connection

RECORDING = [
    "backup_configuration",
    "backup_full",
    "backup_incremental",
    "backup_maintenance",
    "backup_replicate",
    "restore_backup",
]


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the operations database of a test is."""
    path = tmp_path / "operations.db"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(path))
    return path


@pytest.fixture
def ask(database: Path) -> Callable[[Callable[[Any], Any]], Any]:
    """A function that asks the catalogue."""
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.store import open_store

    def asking(question: Callable[[Any], Any]) -> Any:
        with open_store(f"sqlite:///{database}") as store:
            return question(Catalogue(store))

    return asking


@pytest.mark.parametrize("dag_id", RECORDING)
def test_the_verdict_and_the_record_decide_the_state_of_a_run(
    dag_id: str, airflow_dags: dict[str, Any]
) -> None:
    dag = airflow_dags[dag_id]
    assert {task.task_id for task in dag.tasks if not task.downstream_task_ids} == {
        "outcome",
        "record_backup",
    }
    record, outcome = dag.get_task("record_backup"), dag.get_task("outcome")
    assert record.upstream_task_ids == outcome.upstream_task_ids
    assert (record.trigger_rule, outcome.trigger_rule) == ("all_done", "all_success")


def test_a_failed_verdict_stays_failed_though_it_is_recorded(
    run_dag: Any, kit: Kit, connection: dict[str, Any], ask: Any
) -> None:
    database = kit.folder / "data" / "application.db"
    good = database.read_bytes()
    database.write_bytes(good[:4096] + b"\xff" * (len(good) - 4096))
    run = run_dag("backup_full")
    assert run.tasks["publish_backup"] == ["failed"]
    assert run.tasks["record_backup"] == ["success"]
    assert run.tasks["outcome"] == ["upstream_failed"]
    assert run.state == "failed"
    (recorded,) = run.returned("record_backup")
    assert (recorded["sets"], recorded["snapshots"]) == (0, 3)
    restore = run_dag("restore_backup", {"target": "drill"})
    assert (restore.state, restore.tasks["record_backup"]) == ("failed", ["success"])


def test_a_record_that_fails_leaves_the_backup_published_and_the_run_red(
    run_dag: Any, kit: Kit, connection: dict[str, Any], database: Path
) -> None:
    database.write_bytes(b"no database at all" * 100)
    run = run_dag("backup_incremental")
    assert (run.tasks["publish_backup"], run.tasks["outcome"]) == (["success"], ["success"])
    assert (run.tasks["record_backup"], run.state) == (["failed"], "failed")
    assert "file is not a database" in run.failures("record_backup")[0]["message"]
    planned = run_dag("restore_backup", {"target": "drill"})
    assert planned.tasks["confirm_restore"] == ["success"]


def test_what_is_done_with_a_backup_is_in_the_catalogue(
    run_dag: Any, kit: Kit, connection: dict[str, Any], ask: Any
) -> None:
    (published,) = run_dag("backup_full").returned("publish_backup")
    found = ask(lambda catalogue: catalogue.set(published["set_id"]))
    assert [member.component for member in found.members] == COMPONENTS
    assert (found.files, found.size_bytes) == (published["files"], published["size_bytes"])
    assert (found.last_verified.level_or_where, found.last_restored) == ("members", None)

    run_dag("restore_backup", {"target": "dry"})
    assert ask(lambda catalogue: catalogue.set(published["set_id"])).last_restored is None
    conf = {"target": "drill", "components": ["uploads"], "dry_run": False}
    assert run_dag("restore_backup", conf).state == "success"
    found = ask(lambda catalogue: catalogue.set(published["set_id"]))
    restored = {m.component: m.last_restored.level_or_where for m in found.members if m.last_restored}
    assert restored == {"uploads": "new folder"}

    assert run_dag("backup_maintenance", {"level": "full"}).state == "success"
    found = ask(lambda catalogue: catalogue.set(published["set_id"]))
    assert (found.last_verified.level_or_where, found.last_verified.ok) == ("full", True)


def test_damage_that_maintenance_finds_is_in_the_catalogue(
    published: None, run_dag: Any, s3_client: Any, bucket: str, ask: Any
) -> None:
    listing = s3_client.list_objects_v2(Bucket=bucket, Prefix="kit/packs/")
    for item in listing["Contents"]:
        s3_client.delete_object(Bucket=bucket, Key=item["Key"])
    run = run_dag("backup_maintenance", {"level": "listing"})
    assert (run.state, run.tasks["record_backup"]) == ("failed", ["success"])
    found = ask(lambda catalogue: catalogue.set("full-0"))
    assert (found.last_verified.ok, found.last_verified.text) == (False, "listing: damaged")


def test_the_deadline(
    run_dag: Any, kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    unknown = run_dag("backup_deadline")
    assert unknown.state == "failed"
    assert "was never filled" in unknown.failures("check_backup_age")[0]["message"]

    run_dag("backup_full")
    run = run_dag("backup_deadline")
    assert run.state == "success"
    assert run.returned("check_backup_age") == [{"ages_hours": dict.fromkeys(COMPONENTS, 0.0)}]

    set_connection(monkeypatch, {**connection, "password": "wrong"})
    assert run_dag("backup_deadline").state == "success", "which needs no bucket"
    database.write_bytes(b"no database at all" * 100)
    assert run_dag("backup_deadline").state == "failed"
