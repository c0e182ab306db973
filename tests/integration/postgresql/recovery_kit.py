"""A component of PostgreSQL in a repository, for the tests of recovery: bases and WAL put there directly."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from fastvlm_ops.core.backup import Repository, create_snapshot
from fastvlm_ops.core.backup.postgresql.base_backup import PostgreSQLClusterSource
from fastvlm_ops.core.backup.postgresql.cluster import identify
from fastvlm_ops.core.backup.postgresql.lsn import HISTORY_NAME, SEGMENT_NAME, Segment, parse_lsn
from fastvlm_ops.core.backup.postgresql.programs import Programs, run_as
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryPlan, RecoveryTarget, plan_recovery, recover
from fastvlm_ops.core.backup.postgresql.trial import TrialResult, check_recovered
from fastvlm_ops.core.backup.postgresql.trial_server import TrialServer
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import installed
from tests.integration.postgresql.conftest import execute, url_of

COMPONENT = "application_database"
#: Keeps the WAL until it is stored; the rest is as an original would have it, and a copy must not.
SETTINGS = {"wal_keep_size": "512MB", "synchronous_commit": "on", "autovacuum": "off"}


@dataclass
class Original:
    """A server whose base backups and WAL go to a repository."""

    server: PostgreSQL
    repository: Repository
    clients: Programs
    component: str = COMPONENT
    bases: list[str] = field(default_factory=list)

    def sql(self, statement: str) -> list[Any]:
        return execute(self.server, statement)

    def lsn(self) -> int:
        return parse_lsn(self.sql("SELECT pg_current_wal_insert_lsn()::text")[0][0])

    def now(self) -> datetime:
        return self.sql("SELECT clock_timestamp()")[0][0]

    def base(self) -> str:
        """Take a base backup; returns the snapshot's id."""
        source = PostgreSQLClusterSource(url_of(self.server), programs=self.clients)
        run_key = f"run {len(self.bases)} {self.server.port}"
        result = create_snapshot(
            self.repository, source, component=self.component, kind="full", run_key=run_key
        )
        self.bases.append(result.snapshot_id)
        return result.snapshot_id

    def insert(self, *texts: str) -> None:
        """Insert rows, each in a transaction of its own."""
        for text in texts:
            self.sql(f"INSERT INTO item (text) VALUES ('{text}')")

    def ship(self, *, without: Sequence[int] = ()) -> list[Segment]:
        """Finish the segment and store all that are finished, and the histories; returns the segments.

        :param without: numbers of segments to leave out
        """
        self.sql("SELECT pg_switch_wal()")
        cluster = identify(url_of(self.server))
        current = Segment.of(cluster.timeline, cluster.current_lsn, cluster.segment_bytes)
        store = WalStore(self.repository, self.component)
        shipped = []
        for path in sorted((self.server.data / "pg_wal").iterdir()):
            if HISTORY_NAME.fullmatch(path.name):
                store.put_history(path, system_id=cluster.system_id, timeline=int(path.name[:8], 16))
            if not SEGMENT_NAME.fullmatch(path.name):
                continue
            segment = Segment.parse(path.name, cluster.segment_bytes)
            # What was recycled has a name that is still to come.
            if segment.number < current.number and segment.number not in without:
                store.put_segment(
                    path, system_id=cluster.system_id, segment=segment, closed_at=datetime.now(UTC)
                )
                shipped.append(segment)
        return shipped


def recovered(
    original: Original,
    folder: Path,
    target: RecoveryTarget,
    *,
    snapshot_id: str | None = None,
    queries: Sequence[str] = (),
) -> tuple[RecoveryPlan, TrialResult]:
    """Plan, recover, and start on trial."""
    plan = plan_recovery(original.repository, original.component, target, snapshot_id=snapshot_id)
    recover(original.repository, plan, folder)
    trial = check_recovered(
        folder, programs=server_programs(original.server.major), queries=queries, timeout_seconds=120
    )
    return plan, trial


def server_programs(major: int) -> Programs:
    """Programs of a server, as the account that it runs as can reach them."""
    folder = installed(major)
    assert folder is not None
    return Programs(folder, f"{major}.0")


@contextmanager
def opened(folder: Path, major: int) -> Iterator[psycopg.Connection[Any]]:
    """Start what was recovered once more, as somebody would who puts it into service, and connect to it."""
    server = TrialServer(
        folder / "data",
        programs=server_programs(major),
        account=run_as(),
        log=folder / "again.log",
        hot_standby=True,
        superuser="fastvlm",
    )
    with server:
        deadline = time.monotonic() + 30
        while True:
            try:
                with server.connected("postgres", seconds=30) as connection:
                    yield connection
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, server.tail()
                assert not server.ended, server.tail()
                time.sleep(0.05)


def texts(folder: Path, major: int = 18) -> list[str]:
    """The rows of what was recovered, in the order in which they were inserted."""
    with opened(folder, major) as connection:
        rows = connection.execute("SELECT text FROM item ORDER BY id").fetchall()
        return [text for (text,) in rows]


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder that the account of a server can reach, which pytest's own are not for root."""
    parent = Path(tempfile.gettempdir()).resolve()
    if not all(path.stat().st_mode & 0o001 for path in (parent, *parent.parents)):
        parent = Path("/var/tmp")
    folder = Path(tempfile.mkdtemp(prefix="fastvlm-recovery-", dir=parent))
    os.chmod(folder, 0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
