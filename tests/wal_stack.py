"""Fixtures of tests that run backup_wal: a PostgreSQL component, its base backup, and a receiver at work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from tests.airflow_home import ROOT
from tests.wal_kit import RunningReceiver, add_base, wait_for

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Repository
    from fastvlm_ops.local.postgres import PostgreSQL

COMPONENT = "application_database"
SLOT = "fastvlm_ops"


@dataclass
class Wal:
    """A server and its receiver."""

    server: PostgreSQL
    repository: Repository
    receiver: RunningReceiver
    include: Path

    def sql(self, statement: str) -> Any:
        """Run a statement; returns its first value."""
        with psycopg.connect(self.server.url().replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def stored(self) -> list[str]:
        """Names of the segments in the bucket."""
        found = self.repository.storage.list(f"wal/{COMPONENT}/")
        return [info.name.rpartition("/")[2] for info in found]

    def write(self) -> None:
        self.sql("SELECT pg_logical_emit_message(true, 'test', repeat('x', 5000))")


def postgresql_definitions(include: Path) -> None:
    """Copy the definitions, with a component of kind postgresql beside the others."""
    include.mkdir()
    content = yaml.safe_load((ROOT / "include" / "components.yaml").read_text())
    content["components"].append(
        {
            "name": COMPONENT,
            "kind": "postgresql",
            "connection": "fastvlm_postgres",
            "slot": SLOT,
            "switch_wal_after_seconds": 10,
        }
    )
    for path in (ROOT / "include").glob("*.yaml"):
        (include / path.name).write_text(path.read_text())
    (include / "components.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="session")
def wal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL with small segments; one in each test process."""
    from fastvlm_ops.local.postgres import PostgreSQL

    with PostgreSQL(tmp_path_factory.mktemp("postgres"), segment_mb=1, die_with_parent=True) as server:
        yield server


@pytest.fixture
def wal(
    wal_server: PostgreSQL,
    kit: Any,
    connection: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Wal]:
    """A component whose WAL is received, with a base backup, and something written since."""
    from fastvlm_ops.core.backup import S3Storage, create_client, initialise_repository, open_repository
    from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn
    from fastvlm_ops.core.backup.postgresql.programs import find_programs
    from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings, WalReceiver
    from fastvlm_ops.local.postgres_programs import client_programs

    include = tmp_path / "include"
    postgresql_definitions(include)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    monkeypatch.setenv(
        "AIRFLOW_CONN_FASTVLM_POSTGRES",
        f"postgres://{wal_server.user}:{wal_server.password}@127.0.0.1:{wal_server.port}/postgres",
    )
    extra = connection["extra"]
    client = create_client(
        endpoint_url=extra["endpoint_url"],
        access_key_id=connection["login"],
        secret_access_key=connection["password"],
    )
    storage = S3Storage(client, extra["bucket"], extra["prefix"])
    repository = initialise_repository(storage, extra["repository_passphrase"])
    settings = ReceiverSettings(
        component=COMPONENT,
        url=make_url(wal_server.url()),
        slot=SLOT,
        spool_folder=tmp_path / "spool",
        spool_limit_bytes=1 << 30,
        programs=find_programs(14, folder=client_programs(), needed=("pg_receivewal",)),
    )

    def opened() -> Repository:
        return open_repository(storage, extra["repository_passphrase"])

    receiver = RunningReceiver(lambda tell: WalReceiver(settings, opened, tell))
    wal = Wal(wal_server, repository, receiver, include)
    wait_for(lambda: any("starting log streaming" in line for line in receiver.lines), what=receiver.text)
    start_lsn = parse_lsn(wal.sql("SELECT pg_current_wal_insert_lsn()::text"))
    add_base(
        repository,
        tmp_path / "base",
        "base",
        start_lsn=start_lsn,
        system_id=wal.sql("SELECT system_identifier::text FROM pg_control_system()"),
        component=COMPONENT,
    )
    wal.write()
    wal.sql("SELECT pg_switch_wal()")
    wait_for(wal.stored, what=receiver.text)
    yield wal
    receiver.stop()
    wait_for(lambda: not wal.sql("SELECT bool_or(active) FROM pg_replication_slots"))
    wal.sql("SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots")
