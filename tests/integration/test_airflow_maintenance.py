"""Airflow backs its own database up and cleans it, in tasks of a running scheduler that may not use it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.airflow_stack import USER, AirflowStack, Folders
from fastvlm_ops.local.processes import Processes
from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
DAG = "airflow_maintenance"
SECRET = "the-password-of-a-connection"
COMPONENTS = """
version: 1
components:
  - {name: airflow, kind: airflow_database}
  - {name: objects, kind: airflow_objects}
"""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[AirflowStack, AirflowClient]]:
    """An Airflow that is up, with the connection to its own database, which has something old in it."""
    for name in ("include", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "include" / "components.yaml").write_text(COMPONENTS)
    processes = Processes(tmp_path)
    options = {name: tmp_path / name.partition("_")[0] for name in ("include_dir", "scratch_dir")}
    options["restore_dir"] = tmp_path / "restores"
    folders = Folders(ROOT, tmp_path / "airflow", tmp_path / "logs", tmp_path / "scratch")
    airflow = AirflowStack(folders, processes, options=options)
    server = SeaweedFS(tmp_path / "s3", processes=processes)
    try:
        migration = airflow.start_migration()
        server.start()
        server.make_bucket("backups")
        assert processes.wait(migration) == 0, migration.log.read_text()
        extra = {"bucket": "backups", "endpoint_url": server.endpoint_url, "repository_passphrase": "of it"}
        keys = {"login": server.access_key_id, "password": server.secret_access_key}
        own = {"conn_type": "sqlite", "host": str(folders.home / "airflow.db")}
        fill(airflow, folders.home / "airflow.db")
        s3 = {"conn_type": "fastvlm_s3", **keys, "extra": extra}
        airflow.start({"fastvlm_s3": s3, "fastvlm_airflow_db": own})
        airflow.wait(print)
        with AirflowClient(airflow.url, USER, airflow.password) as client:
            yield airflow, client
    finally:
        processes.stop(patience_seconds=0)
        shutil.rmtree(tmp_path / "s3" / "data", ignore_errors=True)  # pytest keeps the folders of three runs


def fill(airflow: AirflowStack, database: Path) -> None:
    uri = f"postgres://me:{SECRET}@shop.example.org/orders"
    command = [sys.executable, "-m", "airflow", "connections", "add", "shop", "--conn-uri", uri]
    subprocess.run(command, env=airflow.environment(), check=True, capture_output=True, timeout=120)
    with closing(sqlite3.connect(database)) as opened:
        for days in (200, 100, 20):
            stamp = str((datetime.now(UTC) - timedelta(days=days)).replace(tzinfo=None))
            opened.execute("INSERT INTO log (dttm, event) VALUES (?, ?)", (stamp, f"{days} days ago"))
        opened.commit()


def events(airflow: AirflowStack) -> list[str]:
    with closing(sqlite3.connect(airflow.folders.home / "airflow.db")) as opened:
        rows = opened.execute("SELECT event FROM log WHERE event LIKE '%days ago' ORDER BY dttm").fetchall()
    return [event for (event,) in rows]


def test_it_backs_itself_up_then_cleans_and_tells_no_secret(up: tuple[AirflowStack, AirflowClient]) -> None:
    airflow, client = up

    def run(dag_id: str, conf: dict[str, Any]) -> Any:
        client.wait_for_dag(dag_id)
        client.unpause(dag_id)
        return client.run(dag_id, conf, progress=print, timeout_seconds=240)

    refused = run(DAG, {"dry_run": False})
    assert refused.state == "failed"
    assert events(airflow) == ["200 days ago", "100 days ago", "20 days ago"]

    published = run("backup_full", {})
    assert published.state == "success"
    members = published.values("publish_backup")[0]["snapshots"]
    assert [member["component"] for member in members] == ["airflow", "objects"]

    cleaned = run(DAG, {"dry_run": False})
    assert cleaned.state == "success"
    assert cleaned.values("verdict")[0]["dry_run"] is False
    assert cleaned.values("plan")[0]["old"]["log"] == 2
    assert events(airflow) == ["20 days ago"]

    restored = run("restore_backup", {"target": "drill", "components": ["objects"], "dry_run": False})
    assert restored.state == "success"
    folder = airflow.folders.home.parent
    exported = json.loads((folder / "restores" / "drill" / "objects" / "connections.json").read_text())
    assert exported["shop"]["password"] == SECRET
    pools = json.loads((folder / "restores" / "drill" / "objects" / "pools.json").read_text())
    assert {"default_pool", "fastvlm_backup", "fastvlm_maintenance"} <= set(pools)

    assert not list((folder / "scratch").glob("fastvlm-*"))
    logs = [path for where in ("airflow/logs", "logs") for path in (folder / where).rglob("*.log")]
    assert len(logs) > 10
    assert not [path for path in logs if SECRET in path.read_text(errors="replace")]
