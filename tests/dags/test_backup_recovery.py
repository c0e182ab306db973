"""restore_backup for a cluster of PostgreSQL: planned by a dry run, recovered, started on trial, recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import S3Storage, initialise_repository, publish_set
from fastvlm_ops.core.backup.postgresql.programs import find_programs
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import client_programs
from fastvlm_ops.operators.backup import (
    ConfirmRestoreOperator,
    PlanRestoreOperator,
    RestoreBackupOperator,
)
from tests.airflow_kit import ROOT, Kit
from tests.integration.postgresql.recovery_kit import (
    COMPONENT,
    ROWS,
    SETTINGS,
    Original,
    folder_for_servers,
)
from tests.unit.operators.support import Context, failure

DEFINITIONS = f"""
version: 1
components:
  - name: models
    kind: files
    path: models
  - name: {COMPONENT}
    kind: postgresql
    checks: ["{ROWS}"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    folder = tmp_path_factory.mktemp("postgres")
    with PostgreSQL(folder, settings=SETTINGS, segment_mb=1, die_with_parent=True) as running:
        yield running


@pytest.fixture
def restores(kit: Kit, server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings and connections for a kit with a cluster; the folder below which restores write."""
    shutil.copytree(ROOT / "include", tmp_path / "include")
    (tmp_path / "include" / "components.yaml").write_text(DEFINITIONS)
    connection = {"conn_type": "postgres", "host": "127.0.0.1", "port": server.port, "schema": "postgres"}
    connection |= {"login": server.user, "password": server.password}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_POSTGRES", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "include"))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__POSTGRESQL_BIN_DIR", str(client_programs()))
    with folder_for_servers() as folder:
        monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__RESTORE_DIR", str(folder))
        yield folder


@pytest.fixture
def original(
    server: PostgreSQL, connection: dict[str, Any], s3_client: Any, kit: Kit, restores: Path
) -> Original:
    """A published set with a base backup, and WAL after it."""
    extra = connection["extra"]
    storage = S3Storage(s3_client, extra["bucket"], extra["prefix"])
    repository = initialise_repository(storage, extra["repository_passphrase"])
    clients = find_programs(server.major, folder=client_programs())
    original = Original(server, repository, clients)
    original.sql("DROP TABLE IF EXISTS item, later")
    original.sql("CREATE TABLE item (id serial, text text)")
    original.insert("a")
    original.base()
    run_key = repository.refresh().snapshots[original.bases[0]]["run_key"]
    publish_set(
        repository,
        set_id="full-0",
        kind="full",
        run_key=run_key,
        components=[COMPONENT],
        timestamp=datetime(2026, 1, 4, tzinfo=UTC),
    )
    original.insert("b")
    return original


def test_a_cluster_is_recovered_to_a_time(
    original: Original, run_dag: Callable[..., Any], restores: Path
) -> None:
    moment = original.now().isoformat()
    original.insert("c")
    original.ship()
    conf = {"target": "drill", "recover_time": moment}
    planned = run_dag("restore_backup", conf)
    assert planned.state == "success"
    (result,) = planned.returned("restore_backup")
    assert (result["dry_run"], result["trial"]) == (True, None)
    assert result["recovery"]["segments"] >= 1
    assert result["recovery"]["window"]["gap"] is None
    assert not list(restores.iterdir()), "a dry run writes nothing"

    run = run_dag("restore_backup", {**conf, "dry_run": False})
    assert run.state == "success"
    (verdict,) = run.returned("confirm_restore")
    found = verdict["recovered"][COMPONENT]
    assert found["target"] == f"the time {moment}"
    assert found["trial"]["queries"] == [{"query": ROWS, "row": ["ab"]}]
    assert found["trial"]["unchecked"] == []
    assert sorted(path.name for path in (restores / "drill" / COMPONENT).iterdir()) == [
        "data",
        "recovery.json",
        "trial.log",
        "wal_restore",
    ]
    noted = original.repository.refresh().checks[original.bases[0]]["restored"]
    assert noted["where"] == "new folder"
    assert original.server.password not in json.dumps(run.xcoms)


def plan(target: str | None, recovery: dict[str, Any] | None = None, **form: Any) -> PlanRestoreOperator:
    return PlanRestoreOperator(
        task_id="plan", backup_id="latest", target=target, recovery=recovery, dry_run=False, **form
    )


def test_without_a_target_the_base_backup_is_restored_alone(original: Original, restores: Path) -> None:
    (step,) = plan("alone").execute(Context())
    assert step["recovery"] is None
    RestoreBackupOperator(task_id="restore", dry_run=False, **step).execute(Context())
    restored = restores / "alone" / COMPONENT
    assert (restored / "backup_label").is_file()
    # Over another cluster, whose files would stay in it, nothing is restored; nor is there a recovery.
    assert "which is restored into a new or an empty folder only" in failure(plan("alone", overwrite=True))
    original.ship()
    assert "is not empty" in failure(plan("alone", {"latest": True}, overwrite=True))
    (restores / "moved").mkdir()
    restored.rename(restores / "moved" / "data")
    assert original.alone(restores / "moved", ROWS) == ["a"]


def test_what_the_form_cannot_mean_is_refused(original: Original, restores: Path) -> None:
    original.ship()
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"time": "2020-01-04T12:00:00+00:00"}, {}, "it is before the end of base backup"),
        ({"time": "2020-01-04T12:00:00"}, {}, "has no zone"),
        ({"lsn": "0/1", "name": "a"}, {}, "one target, but lsn and name are given"),
        ({"latest": True, "name": "a"}, {}, "turn To the newest off"),
        ({"action": "pause"}, {}, "how to recover is given, but not where to"),
        ({"latest": True}, {"paths": ["base"]}, "part of a cluster cannot be recovered"),
        ({"latest": True}, {"in_place": True, "target": None}, "which is not restored in place"),
        ({}, {"in_place": True, "target": None}, "which is not restored in place"),
    ]
    for recovery, form, message in cases:
        assert message in failure(plan(**{"target": "a", "recovery": recovery, **form}))
    assert not list(restores.iterdir())


def test_a_trial_that_cannot_be_is_known_before_anything_is_written(
    original: Original, restores: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original.ship()
    (step,) = plan("drill", {"latest": True}).execute(Context())
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__POSTGRESQL_BIN_DIR", str(tmp_path))
    for dry_run in (True, False):
        restore = RestoreBackupOperator(task_id="restore", dry_run=dry_run, **step)
        assert f"postgres of PostgreSQL {original.server.major} must be in {tmp_path}" in failure(restore)
    assert not list(restores.iterdir())


def test_the_verdict_needs_the_trial() -> None:
    recovery = {"trial": True, "plan": {"target": "the end"}}
    steps = [{"component": "a", "recovery": recovery}]
    results = [{"component": "a", "replaced_in": None, "trial": None}]
    verdict = ConfirmRestoreOperator(task_id="t", steps=steps, results=results, dry_run=False)
    assert "a was recovered, but not started on trial" in failure(verdict)
