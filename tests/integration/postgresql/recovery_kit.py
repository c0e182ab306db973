"""A component of PostgreSQL in a repository, for the tests of recovery: bases and WAL put there directly."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from fastvlm_ops.core.backup import Repository, S3Storage, create_snapshot, initialise_repository
from fastvlm_ops.core.backup.postgresql.base_backup import PostgreSQLClusterSource
from fastvlm_ops.core.backup.postgresql.cluster import identify
from fastvlm_ops.core.backup.postgresql.lsn import HISTORY_NAME, SEGMENT_NAME, Segment, parse_lsn
from fastvlm_ops.core.backup.postgresql.programs import Programs, run_as
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget, plan_recovery, recover
from fastvlm_ops.core.backup.postgresql.trial import TrialResult, check_recovered
from fastvlm_ops.core.backup.postgresql.trial_server import TrialServer, give_to, wait_until
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import installed
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.postgresql.conftest import execute, url_of

COMPONENT = "application_database"
#: Keeps the WAL until it is stored.
SETTINGS = {
    "wal_keep_size": "512MB",
    "synchronous_commit": "on",
    "track_commit_timestamp": "on",
    "autovacuum": "off",
}
ROWS = "SELECT string_agg(text, '' ORDER BY id) FROM item"
LATER = "SELECT to_regclass('later')"


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

    def committed_at(self, text: str) -> datetime:
        rows = self.sql("SELECT text, pg_xact_commit_timestamp(xmin) FROM item")
        return dict(rows)[text]

    def base(self) -> str:
        """Take a base backup; returns the snapshot's id."""
        source = PostgreSQLClusterSource(url_of(self.server), programs=self.clients)
        run_key = uuid.uuid4().hex
        result = create_snapshot(
            self.repository, source, component=self.component, kind="full", run_key=run_key
        )
        self.bases.append(result.snapshot_id)
        return result.snapshot_id

    def insert(self, text: str) -> None:
        self.sql(f"INSERT INTO item (text) VALUES ('{text}')")  # noqa: S608 - a letter of a test

    def promote(self) -> None:
        """End the timeline where it is, and go on with the next one."""
        (self.server.data / "recovery.signal").touch()
        os.chown(self.server.data / "recovery.signal", *_owner(self.server.data))
        self.server.restart({"restore_command": "false"})
        deadline = time.monotonic() + 60
        while self.sql("SELECT pg_is_in_recovery()") == [(True,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

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
                timeline = int(path.name[:8], 16)
                store.put_history(path, system_id=cluster.system_id, timeline=timeline)
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
        self, folder: Path, target: RecoveryTarget, *queries: str, snapshot_id: str | None = None
    ) -> TrialResult:
        """Recover into a folder, and start it on trial."""
        plan = plan_recovery(self.repository, self.component, target, snapshot_id=snapshot_id)
        recover(self.repository, plan, folder)
        return self.trial(folder, *queries)

    def trial(self, folder: Path, *queries: str) -> TrialResult:
        programs = server_programs(self.server.major)
        return check_recovered(
            folder, programs=programs, clients=self.clients, queries=queries, timeout_seconds=120
        )

    def alone(self, folder: Path, query: str) -> list[str]:
        """Start a base backup that was restored by itself, as anybody would; returns the row of a query."""
        account = run_as()
        give_to(folder, account)
        server = TrialServer(
            folder / "data",
            programs=server_programs(self.server.major),
            account=account,
            log=folder / "log",
            hot_standby=True,
            superuser=self.server.user,
        )
        with server:
            deadline = time.monotonic() + 60
            wait_until(lambda: _answers(server), server, deadline, "it answered")
            with server.connected("postgres", seconds=30) as connection:
                return [str(value) for value in connection.execute(query.encode()).fetchone()]

    def rows(self, folder: Path, target: RecoveryTarget, *, snapshot_id: str | None = None) -> str:
        """What a recovery brings back of the table, one letter a row."""
        trial = self.recovered(folder, target, ROWS, snapshot_id=snapshot_id)
        assert trial.verified == trial.amcheck == "passed"
        return trial.queries[0]["row"][0]


def _answers(server: TrialServer) -> bool:
    try:
        with server.connected("postgres", seconds=30):
            return True
    except psycopg.OperationalError:
        return False


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def server_programs(major: int) -> Programs:
    """Programs of a server, as the account that it runs as can reach them."""
    folder = installed(major)
    assert folder is not None
    return Programs(folder, f"{major}.0")


@contextmanager
def new_repository(seaweedfs: Any, s3_client: Any) -> Iterator[Repository]:
    """A repository in a bucket of its own."""
    bucket = seaweedfs.make_bucket(f"test-{uuid.uuid4().hex[:12]}")
    yield initialise_repository(S3Storage(s3_client, bucket, "some/prefix"), PASSPHRASE)
    s3_client.delete_bucket(Bucket=bucket)


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder that the account of a server can reach, which pytest's own are not for root."""
    parent = Path(tempfile.gettempdir()).resolve()
    if not all(path.stat().st_mode & 0o001 for path in (parent, *parent.parents)):
        parent = Path("/var/tmp")
    folder = Path(tempfile.mkdtemp(prefix="fastvlm-recovery-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
