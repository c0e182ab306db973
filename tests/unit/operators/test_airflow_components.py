"""Airflow's own database and objects as components of a backup: checked, backed up, and never in place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from tests.airflow_kit import Kit
from tests.unit.operators.support import Context, create, failure

TEXT = """
version: 1
components:
  - {name: uploads, kind: files, path: uploads}
  - {name: airflow, kind: airflow_database}
  - {name: objects, kind: airflow_objects, connection: other_db}
"""


@pytest.fixture
def metadata(kit: Kit, connection: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that stands for Airflow's own, and the definitions that name it."""
    path = tmp_path / "airflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE dag_run (id INTEGER PRIMARY KEY)")
        database.commit()
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "components.yaml").write_text(TEXT)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "include"))
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_AIRFLOW_DB", f"sqlite:///{path}")
    return path


def prepare(*components: str) -> backup.PrepareRepositoryOperator:
    return backup.PrepareRepositoryOperator(task_id="prepare", components=list(components))


def test_all_that_cannot_be_backed_up_is_named_at_once(metadata: Path, kit: Kit) -> None:
    metadata.unlink()
    said = failure(prepare("uploads", "airflow", "objects")).splitlines()
    assert len(said) == 2
    assert "components[1].connection (airflow): Connection 'fastvlm_airflow_db': the file " in said[0]
    assert "components[2].connection (objects): Connection 'other_db': is not defined. " in said[1]


def test_it_is_not_restored_in_place(metadata: Path, kit: Kit) -> None:
    names = ["uploads", "airflow"]
    prepare(*names).execute(Context())
    for name in names:
        create(name).execute(Context())
    backup.PublishBackupOperator(task_id="p", components=names, kind="full").execute(Context())
    before = metadata.read_bytes()

    def plan(**arguments: Any) -> backup.PlanRestoreOperator:
        return backup.PlanRestoreOperator(
            task_id="plan", backup_id="latest", dry_run=False, overwrite=True, **arguments
        )

    said = failure(plan(in_place=True))
    assert "airflow is of kind airflow_database, which is not restored in place" in said
    assert "docs/runbooks/airflow_maintenance.md" in said
    assert [step["component"] for step in plan(in_place=True, components=["uploads"]).execute(Context())] == [
        "uploads"
    ]
    (step,) = plan(target="drill", components=["airflow"]).execute(Context())
    backup.RestoreBackupOperator(task_id="restore", dry_run=False, **step).execute(Context())
    assert (kit.restores / "drill" / "airflow" / "airflow.db").read_bytes() == before == metadata.read_bytes()
