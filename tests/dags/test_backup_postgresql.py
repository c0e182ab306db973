"""The backup DAGs with a cluster of PostgreSQL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import client_programs
from tests.airflow_home import ROOT
from tests.airflow_kit import Kit

pytestmark = pytest.mark.slow

DEFINITIONS = "version: 1\ncomponents:\n  - {name: cluster, kind: postgresql}\n"


@pytest.fixture
def cluster(
    wal_server: PostgreSQL,
    kit: Kit,
    connection: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Definitions with a cluster only, and the connection to it."""
    shutil.copytree(ROOT / "include", tmp_path / "include")
    (tmp_path / "include" / "components.yaml").write_text(DEFINITIONS)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path / "include"))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__POSTGRESQL_BIN_DIR", str(client_programs()))
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "port": wal_server.port, "schema": "postgres"}
    fields |= {"login": wal_server.user, "password": wal_server.password}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_POSTGRES", json.dumps(fields))
    return fields


def test_a_base_is_backed_up_verified_and_published(
    cluster: dict[str, Any], wal_server: PostgreSQL, run_dag: Callable[..., Any]
) -> None:
    full = run_dag("backup_full")
    assert full.state == "success"
    (first,) = full.returned("create_backup")
    assert first["files"] > 900
    (verified,) = full.returned("verify_backup")
    assert verified["verified_snapshots"] == [first["snapshot_id"]]

    incremental = run_dag("backup_incremental")
    assert incremental.state == "success"
    (second,) = incremental.returned("create_backup")
    assert second["parent"] == first["snapshot_id"]
    assert second["new_bytes"] < first["new_bytes"] / 2
    for run in (full, incremental):
        assert wal_server.password not in json.dumps(run.xcoms)


def test_what_keeps_a_base_from_being_made_is_said_before_anything_is_sent(
    cluster: dict[str, Any],
    run_dag: Callable[..., Any],
    s3_client: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_POSTGRES", json.dumps({**cluster, "password": "not it"}))
    run = run_dag("backup_full")
    assert run.state == "failed"
    (failure,) = run.failures("prepare_repository")
    assert "components[0].connection (cluster)" in failure["message"]
    assert "password authentication failed" in failure["message"]
    assert "not it" not in json.dumps(run.xcoms)
    assert "Contents" not in s3_client.list_objects_v2(Bucket=bucket)
