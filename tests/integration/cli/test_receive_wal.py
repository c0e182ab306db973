"""``fastvlm-ops receive-wal`` as a person or systemd starts it, on real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from fastvlm_ops.core.backup import S3Storage, initialise_repository
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.local.postgres_programs import client_programs
from tests.wal_kit import wait_for
from tests.wal_stack import COMPONENT, SLOT, postgresql_definitions, wal_server  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from fastvlm_ops.local.postgres import PostgreSQL
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def environment(
    wal_server: PostgreSQL,  # noqa: F811
    seaweedfs: SeaweedFS,
    bucket: str,
    tmp_path: Path,
) -> Iterator[dict[str, str]]:
    """Of an Airflow that knows the server and the bucket."""
    postgresql_definitions(tmp_path / "include")
    extra = {"bucket": bucket, "endpoint_url": seaweedfs.endpoint_url, "repository_passphrase": PASSPHRASE}
    s3 = {"conn_type": "fastvlm_s3", "login": seaweedfs.access_key_id, "extra": extra}
    s3["password"] = seaweedfs.secret_access_key
    server = f"{wal_server.user}:{wal_server.password}@127.0.0.1:{wal_server.port}/postgres"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS"))}
    yield {
        **kept,
        "PYTHONPATH": str(ROOT / "plugins"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__FASTVLM_OPS__INCLUDE_DIR": str(tmp_path / "include"),
        "AIRFLOW__FASTVLM_OPS__WAL_SPOOL_DIR": str(tmp_path / "spool"),
        "AIRFLOW__FASTVLM_OPS__POSTGRESQL_BIN_DIR": str(client_programs()),
        "AIRFLOW_CONN_FASTVLM_S3": json.dumps(s3),
        "AIRFLOW_CONN_FASTVLM_POSTGRES": f"postgres://{server}",
    }
    with psycopg.connect(wal_server.url().replace("+psycopg", ""), autocommit=True) as connection:
        wait_for(
            lambda: not connection.execute("SELECT bool_or(active) FROM pg_replication_slots").fetchone()[0]
        )
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastvlm_ops.cli", "receive-wal", *arguments]


def test_it_receives_until_it_is_stopped_and_tells_no_secret(
    environment: dict[str, str],
    wal_server: PostgreSQL,  # noqa: F811
    seaweedfs: SeaweedFS,
    bucket: str,
    tmp_path: Path,
) -> None:
    repository = initialise_repository(S3Storage(seaweedfs.client(), bucket), PASSPHRASE)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("--component", COMPONENT), env=environment, stdout=output, stderr=output
        )
    try:
        wait_for(lambda: "starting log streaming" in log.read_text(), 120, what=log.read_text)
        arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _started_by(process.pid)]
        assert any(b"pg_receivewal" in line for line in arguments)
        assert not any(wal_server.password.encode() in line for line in arguments)
        with psycopg.connect(wal_server.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            connection.execute("SELECT pg_switch_wal()")
            slot = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchone()
            assert slot == (SLOT,)
        wait_for(lambda: "is stored" in log.read_text(), what=log.read_text)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
    assert code == 0, log.read_text()
    assert list(WalStore(repository, COMPONENT).systems())
    text = log.read_text()
    assert f" {COMPONENT}: stopped\n" in text
    assert not any(secret in text for secret in (wal_server.password, PASSPHRASE, "secret_access_key"))
    for folder in (tmp_path / "spool" / COMPONENT, tmp_path / "spool" / COMPONENT / "segments"):
        assert folder.stat().st_mode & 0o777 == 0o700


def _started_by(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def test_what_cannot_be_received_is_said(environment: dict[str, str]) -> None:
    done = subprocess.run(
        command("--component", "models"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "'models' is of kind files; only components of kind postgresql have WAL" in done.stderr
