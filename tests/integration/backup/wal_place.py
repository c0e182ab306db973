"""A component whose WAL is received from a server that several tests share, and what tests do with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import make_url

from fastvlm_ops.core.backup import S3Storage, create_client, open_repository
from fastvlm_ops.core.backup.postgresql.lsn import Segment, parse_lsn
from fastvlm_ops.core.backup.postgresql.programs import find_programs
from fastvlm_ops.core.backup.postgresql.wal_names import object_name
from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings, WalReceiver
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.postgresql.window import RecoverableWindow, prove_window
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import client_programs
from tests.wal_kit import MIB, Forwarder, ReceiverProcess, RunningReceiver, add_base, wait_for

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Repository
    from fastvlm_ops.local.seaweedfs import SeaweedFS

PASSPHRASE = "a passphrase"
BUCKET = "wal-receiver"


@dataclass
class Place:
    """A component of its own on a server that all tests share, and how its WAL gets to a bucket."""

    server: PostgreSQL
    seaweedfs: SeaweedFS
    repository: Repository
    folder: Path
    component: str
    to_server: Forwarder
    to_s3: Forwarder
    limit_bytes: int = 1 << 30
    running: list[RunningReceiver | ReceiverProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url().replace(f":{self.server.port}/", f":{self.to_server.port}/")

    @property
    def store(self) -> WalStore:
        return WalStore(self.repository, self.component)

    def sql(self, *statements: str) -> Any:
        """Run statements; returns the last one's first value."""
        with psycopg.connect(self.server.url().replace("+psycopg", ""), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def write(self, segments: int = 1) -> Segment:
        """Have the server fill segments; returns the last of them."""
        for _ in range(segments):
            lsn = self.sql(
                "SELECT pg_logical_emit_message(true, 'test', repeat('x', 5000))", "SELECT pg_switch_wal()"
            )
        return Segment.of(self.timeline(), parse_lsn(lsn) - 1, MIB)

    def timeline(self) -> int:
        return int(self.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[:8], 16)

    def system_id(self) -> str:
        return self.sql("SELECT system_identifier::text FROM pg_control_system()")

    def base(self) -> None:
        """A base backup that starts where the server is, as far as WAL is concerned."""
        lsn = parse_lsn(self.sql("SELECT pg_current_wal_insert_lsn()::text"))
        add_base(
            self.repository,
            self.folder / "base",
            f"{self.component}/{lsn}",
            start_lsn=lsn,
            timeline=self.timeline(),
            system_id=self.system_id(),
            component=self.component,
        )

    def start(self, *, once: bool = False) -> RunningReceiver:
        running = RunningReceiver(self._receiver, once=once)
        self.running.append(running)
        return running

    def start_process(self) -> ReceiverProcess:
        process = ReceiverProcess(
            {
                "endpoint_url": f"http://127.0.0.1:{self.to_s3.port}",
                "access_key_id": self.seaweedfs.access_key_id,
                "secret_access_key": self.seaweedfs.secret_access_key,
                "bucket": BUCKET,
                "prefix": "some/prefix",
                "component": self.component,
                "url": self.url,
                "slot": self.component,
                "spool": str(self.folder / "spool"),
                "programs": str(client_programs()),
                "passphrase": PASSPHRASE,
            }
        )
        self.running.append(process)
        return process

    def _receiver(self, tell: Callable[[str], None]) -> WalReceiver:
        client = create_client(
            endpoint_url=f"http://127.0.0.1:{self.to_s3.port}",
            access_key_id=self.seaweedfs.access_key_id,
            secret_access_key=self.seaweedfs.secret_access_key,
            connect_timeout_seconds=1,
            read_timeout_seconds=5,
            attempts=1,
        )
        storage = S3Storage(client, BUCKET, "some/prefix")
        settings = ReceiverSettings(
            component=self.component,
            url=make_url(self.url),
            slot=self.component,
            spool_folder=self.folder / "spool",
            spool_limit_bytes=self.limit_bytes,
            programs=find_programs(14, folder=client_programs(), needed=("pg_receivewal",)),
        )
        return WalReceiver(settings, lambda: open_repository(storage, PASSPHRASE), tell)

    def status(self) -> dict[str, Any]:
        file = self.folder / "spool" / "status.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def wait_until_received(self, running: RunningReceiver | ReceiverProcess) -> None:
        wait_for(lambda: self.status().get("state") == "receiving", what=running.text)
        wait_for(lambda: self.slot()[0], what=running.text)

    def has_slot(self) -> bool:
        return self.component in (
            self.sql("SELECT array_agg(slot_name::text) FROM pg_replication_slots") or []
        )

    def slot(self) -> tuple[bool, str | None]:
        with psycopg.connect(self.server.url().replace("+psycopg", "")) as connection:
            query = "SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = %s"
            return connection.execute(query, [self.component]).fetchone() or (False, None)

    def wait_until_stored(self, segment: Segment, running: RunningReceiver | ReceiverProcess) -> None:
        name = object_name(self.component, self.system_id(), segment)

        def is_stored() -> bool:
            return any(info.name == name for info in self.repository.storage.list(name))

        wait_for(is_stored, seconds=60, what=lambda: running.text())

    def window(self) -> RecoverableWindow:
        return prove_window(self.repository, self.component)

    def wal_is_whole(self) -> bool:
        """Every stored segment can be fetched, and none is missing in between."""
        stored = self.store.segments(self.system_id(), MIB)
        into = self.folder / "fetched"
        into.mkdir(exist_ok=True)
        for item in stored:
            self.store.fetch(item.segment, self.system_id(), into)
        numbers = [item.segment.number for item in stored]
        return numbers == list(range(numbers[0], numbers[-1] + 1))
