"""Base backups of real servers: what comes back, what a second one costs, and what ends one."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastvlm_ops.core.backup import Repository, create_snapshot, restore_snapshot
from fastvlm_ops.core.backup.errors import BackupError, DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.base_backup import PostgreSQLClusterSource
from fastvlm_ops.core.backup.postgresql.cluster import identify
from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn
from fastvlm_ops.core.backup.postgresql.programs import Programs
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.programs import kill_running
from fastvlm_ops.local.postgres import PostgreSQL
from tests.integration.postgresql.conftest import MakeServer, execute, started, url_of
from tests.tcp_proxy import Passed, TcpProxy

pytestmark = pytest.mark.integration

FILL = "INSERT INTO {} SELECT n, md5(n::text), md5((n * 7)::text) FROM generate_series(1, {}) AS n"


@pytest.fixture(scope="module")
def orders(newest: PostgreSQL) -> Iterator[str]:
    """A database of 25 MiB; its name."""
    name = f"orders_{uuid.uuid4().hex[:8]}"
    newest.make_database(name)
    execute(newest, "CREATE TABLE orders (id int PRIMARY KEY, a text, b text)", name)
    execute(newest, FILL.format("orders", 200_000), name)
    execute(newest, "VACUUM (FREEZE, ANALYZE) orders", name)
    yield name
    newest.drop_database(name)


def back_up(
    repository: Repository, server: PostgreSQL, clients: Programs, run_key: str = "run", **options: Any
) -> Any:
    kind = options.pop("kind", "full")
    url = options.pop("url", url_of(server))
    progress = options.pop("progress", None)
    source = PostgreSQLClusterSource(url, programs=clients, **options)
    return create_snapshot(
        repository, source, component="cluster", kind=kind, run_key=run_key, progress=progress
    )


def manifest_of(repository: Repository, snapshot_id: str) -> dict[str, Any]:
    return read_manifest(repository, repository.refresh().snapshots[snapshot_id])


def restored(repository: Repository, snapshot_id: str, server: PostgreSQL) -> Path:
    """A snapshot's files in a new folder that the server's account can reach."""
    folder = server.scratch / f"restored-{uuid.uuid4().hex[:8]}"
    restore_snapshot(repository, snapshot_id, folder)
    return folder


def assert_nothing_visible(repository: Repository) -> None:
    assert not repository.refresh().snapshots


def verify_files(clients: Programs, folder: Path) -> str:
    """What pg_verifybackup says. It reads WAL only of its own version, which the start then does."""
    command = [clients.path("pg_verifybackup"), "--no-parse-wal", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def assert_intact(server: PostgreSQL, clients: Programs, folder: Path) -> None:
    """Every file is what the manifest says, by PostgreSQL's own program where there is one for it."""
    if server.major != 17:  # whose pg_control only a pg_verifybackup of 17 can read
        assert "successfully verified" in verify_files(clients, folder)
        return
    files = json.loads((folder / "backup_manifest").read_bytes())["Files"]
    assert len(files) > 900
    for file in files:
        assert hashlib.sha256((folder / file["Path"]).read_bytes()).hexdigest() == file["Checksum"], file


def test_a_base_restores_by_itself(server: PostgreSQL, clients: Programs, repository: Repository) -> None:
    names = [f"{kind}_{uuid.uuid4().hex[:8]}" for kind in ("full", "empty")]
    for name in names:
        server.make_database(name)
    try:
        execute(server, "CREATE TABLE kept (id int PRIMARY KEY, a text, b text)", names[0])
        execute(server, FILL.format("kept", 5000), names[0])
        execute(server, "CREATE UNLOGGED TABLE lost AS SELECT 1 AS n", names[0])
        execute(
            server,
            "CREATE TABLE wide AS SELECT string_agg(md5(n::text), '') AS w"
            " FROM generate_series(1, 40000) AS n",
            names[0],
        )
        (number,) = execute(server, "SELECT lo_from_bytea(0, 'a large object')", names[0])[0]
        before = identify(url_of(server))
        snapshot = back_up(repository, server, clients)
        execute(server, "DELETE FROM kept WHERE id > 10", names[0])
        evidence = manifest_of(repository, snapshot.snapshot_id)["evidence"]["postgresql"]
        assert (evidence["system_id"], evidence["major"]) == (before.system_id, server.major)
        assert (evidence["timeline"], evidence["segment_bytes"]) == (1, 1 << 20)
        assert before.current_lsn <= parse_lsn(evidence["start_lsn"]) < parse_lsn(evidence["stop_lsn"])
        assert before.now.isoformat() <= evidence["started_at"] < evidence["stopped_at"]
        folder = restored(repository, snapshot.snapshot_id, server)
        assert_intact(server, clients, folder)
        with started(server, folder) as connection:
            assert (
                connection.execute(
                    "SELECT datname FROM pg_database WHERE datname = ANY(%s)", [names]
                ).rowcount
                == 2
            )
            host = {"host": str(folder), "port": 5432, "user": server.user, "password": server.password}
            with psycopg.connect(**host, dbname=names[0]) as copy:
                assert copy.execute("SELECT count(*), max(id) FROM kept").fetchone() == (5000, 5000)
                assert copy.execute("SELECT length(w) FROM wide").fetchone() == (40000 * 32,)
                assert copy.execute("SELECT count(*) FROM lost").fetchone() == (0,)
                assert copy.execute("SELECT lo_get(%s)", [number]).fetchone() == (b"a large object",)
    finally:
        for name in names:
            server.drop_database(name)


def test_a_second_base_costs_what_changed(
    newest: PostgreSQL, orders: str, clients: Programs, repository: Repository
) -> None:
    first = back_up(repository, newest, clients, "first")
    # One row in a hundred, side by side as those of a day are.
    execute(newest, "UPDATE orders SET a = 'changed' WHERE id BETWEEN 10000 AND 12000", orders)
    second = back_up(repository, newest, clients, "second", kind="incremental")
    print(f"second base: {second.new_bytes / first.new_bytes:.1%} of the first's {first.new_bytes} bytes")
    assert second.parent == first.snapshot_id
    assert second.new_bytes <= 0.25 * first.new_bytes
    folder = restored(repository, second.snapshot_id, newest)
    assert_intact(newest, clients, folder)


@pytest.fixture(scope="module")
def restless(make_server: MakeServer) -> PostgreSQL:
    """A server that keeps no more WAL than it must, and may be stopped."""
    return make_server(settings={"wal_keep_size": "0", "max_wal_size": "2MB", "min_wal_size": "2MB"})


ENDINGS: dict[str, Callable[[Passed], None]] = {
    "connection cut": Passed.cut,
    "program killed": lambda _: kill_running(),
}


@pytest.mark.parametrize(
    ("ending", "share"),
    [("connection cut", 0.0005), ("connection cut", 0.5), ("connection cut", 0.999), ("program killed", 0.5)],
)
def test_a_stream_that_does_not_end_well_is_no_backup(
    ending: str,
    share: float,
    newest: PostgreSQL,
    orders: str,
    clients: Programs,
    repository: Repository,
    stream_bytes: int,
) -> None:
    with TcpProxy(newest.port, int(stream_bytes * share), ENDINGS[ending]) as proxy:
        with pytest.raises(DumpError, match="cannot be backed up: pg_basebackup") as caught:
            back_up(repository, newest, clients, url=url_of(newest).set(port=proxy.port))
        assert proxy.acted
    assert caught.value.retryable
    assert newest.password not in str(caught.value)
    assert_nothing_visible(repository)
    assert not bases_under_way(newest)


@pytest.fixture(scope="module")
def stream_bytes(newest: PostgreSQL, orders: str, clients: Programs) -> int:
    """About how much pg_basebackup receives."""
    return int(execute(newest, "SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0])


def bases_under_way(server: PostgreSQL) -> list[Any]:
    """Base backups, and slots of them, that the server still has after a while."""
    query = (
        "SELECT pid::text FROM pg_stat_replication UNION ALL"
        " SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'fastvlm_ops_base%'"
    )
    deadline = time.monotonic() + 10
    while (found := execute(server, query)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_a_server_that_crashes_meanwhile_leaves_no_backup(
    restless: PostgreSQL, clients: Programs, repository: Repository
) -> None:
    with TcpProxy(restless.port, 5 << 20, lambda _: restless.crash()) as proxy:
        with pytest.raises(DumpError, match="cannot be backed up"):
            back_up(repository, restless, clients, url=url_of(restless).set(port=proxy.port))
        assert proxy.acted
    assert_nothing_visible(repository)
    restless.restart()
    back_up(repository, restless, clients)
    assert len(repository.refresh().snapshots) == 1


def test_a_server_that_hangs_is_given_up(
    newest: PostgreSQL, orders: str, clients: Programs, repository: Repository
) -> None:
    begun = time.monotonic()
    try:
        with TcpProxy(newest.port, 5 << 20, lambda _: newest.pause()) as proxy:
            url = url_of(newest).set(port=proxy.port)
            with pytest.raises(DumpError, match="wrote nothing for 2 s and was killed"):
                back_up(repository, newest, clients, url=url, idle_seconds=2)
    finally:
        newest.resume()
    assert time.monotonic() - begun < 60
    assert_nothing_visible(repository)
    assert not bases_under_way(newest)


def test_wal_that_the_base_needs_is_kept(
    restless: PostgreSQL, clients: Programs, repository: Repository
) -> None:
    def write_wal(_: Passed) -> None:
        for number in range(8):
            execute(restless, f"CREATE TABLE t{number} (id int, a text, b text)")
            execute(restless, FILL.format(f"t{number}", 10_000))
            execute(restless, "CHECKPOINT")

    with TcpProxy(restless.port, 2 << 20, write_wal) as proxy:
        snapshot = back_up(repository, restless, clients, url=url_of(restless).set(port=proxy.port))
        assert proxy.acted
    assert not snapshot.warnings
    folder = restored(repository, snapshot.snapshot_id, restless)
    with started(restless, folder) as connection:
        assert connection.execute("SELECT count(*) FROM t7").fetchone() == (10_000,)


def test_the_password_is_seen_nowhere(
    newest: PostgreSQL,
    orders: str,
    clients: Programs,
    repository: Repository,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments: list[bytes] = []

    def look(_: Passed) -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments.append(file.read_bytes())
            except OSError:
                continue

    with caplog.at_level(logging.DEBUG), TcpProxy(newest.port, 5 << 20, look) as proxy:
        snapshot = back_up(repository, newest, clients, url=url_of(newest).set(port=proxy.port))
    assert any(b"pg_basebackup" in line for line in arguments)
    assert not any(newest.password.encode() in line for line in arguments)
    assert newest.password not in caplog.text
    assert newest.password not in str(manifest_of(repository, snapshot.snapshot_id))
    assert newest.password not in str(snapshot.as_dict())


def test_a_wrong_password_is_told_apart(
    newest: PostgreSQL, clients: Programs, repository: Repository
) -> None:
    with pytest.raises(DumpError, match=r"cannot be reached: .*password authentication failed") as caught:
        back_up(repository, newest, clients, url=url_of(newest).set(password="not-the-password"))
    assert "not-the-password" not in str(caught.value)
    assert_nothing_visible(repository)


def test_who_may_not_replicate_is_told_so(newest: PostgreSQL, clients: Programs) -> None:
    execute(newest, "DROP ROLE IF EXISTS reader")
    execute(newest, "CREATE ROLE reader LOGIN PASSWORD 'pw'")
    url = url_of(newest).set(username="reader", password="pw")
    with pytest.raises(SourceError, match="reader lacks the right to replicate: ALTER ROLE reader REPLIC"):
        PostgreSQLClusterSource(url, programs=clients).check()
    execute(newest, "ALTER ROLE reader REPLICATION")
    PostgreSQLClusterSource(url, programs=clients).check()


def test_the_right_to_replicate_is_enough(
    newest: PostgreSQL, clients: Programs, repository: Repository
) -> None:
    execute(newest, "DROP ROLE IF EXISTS replicator")
    execute(newest, "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'pw'")
    url = url_of(newest).set(username="replicator", password="pw")
    assert back_up(repository, newest, clients, url=url).files > 900


UNREADY = {"wal_level": "minimal", "max_wal_senders": "0", "allow_in_place_tablespaces": "on"}


@pytest.fixture(scope="module")
def unready(make_server: MakeServer) -> PostgreSQL:
    """A server that allows no base backups."""
    server = make_server(settings=UNREADY)
    execute(server, "CREATE TABLESPACE cold LOCATION ''")
    return server


def test_all_that_allows_no_base_is_named_with_its_remedy(unready: PostgreSQL, clients: Programs) -> None:
    with pytest.raises(SourceError) as caught:
        PostgreSQLClusterSource(url_of(unready), programs=clients).check()
    assert "tablespaces of its own (cold), and a stream holds one folder only: move" in str(caught.value)
    assert "wal_level is minimal: set it to replica" in str(caught.value)
    assert "max_wal_senders is 0: set it to 10" in str(caught.value)
    assert not caught.value.retryable


def test_a_tablespace_that_comes_after_the_check_is_refused(
    unready: PostgreSQL, clients: Programs, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    unready.restart({"wal_level": "replica", "max_wal_senders": "5"})
    monkeypatch.setattr(PostgreSQLClusterSource, "check", lambda self: None)
    with pytest.raises(SourceError, match=r"tablespaces of its own \(cold\)"):
        back_up(repository, unready, clients)
    assert_nothing_visible(repository)


def test_a_pg_hba_without_replication_is_told_with_the_line_to_add(
    unready: PostgreSQL, clients: Programs
) -> None:
    execute(unready, "DROP TABLESPACE cold")
    unready.restart({"wal_level": "replica", "max_wal_senders": "5"})
    file = unready.data / "pg_hba.conf"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if "replication" not in line) + "\n")
    execute(unready, "SELECT pg_reload_conf()")
    with pytest.raises(DumpError, match=r"pg_hba\.conf needs a line such as 'hostssl replication fastvlm"):
        PostgreSQLClusterSource(url_of(unready), programs=clients).check()


def test_older_programs_are_refused(newest: PostgreSQL) -> None:
    programs = Programs(Path("/nowhere"), "15.2")
    with pytest.raises(SourceError, match=r"pg_basebackup is 15\.2 and cannot read .* postgresql-client-18"):
        PostgreSQLClusterSource(url_of(newest), programs=programs).check()


@pytest.fixture(scope="module")
def damaged(make_server: MakeServer) -> PostgreSQL:
    """A server with a page that fails its checksum."""
    server = make_server()
    execute(server, "CREATE TABLE t AS SELECT n FROM generate_series(1, 5000) AS n")
    execute(server, "CHECKPOINT")
    file = server.data / execute(server, "SELECT pg_relation_filepath('t')")[0][0]
    with file.open("r+b") as opened:
        opened.seek(8192 + 4000)
        opened.write(b"damage")
    return server


def test_damaged_pages_end_a_backup_unless_told_otherwise(
    damaged: PostgreSQL, clients: Programs, repository: Repository
) -> None:
    with pytest.raises(SourceError, match=r"fail their checksums: .*base/5/\d+.*on_damaged_pages: warn"):
        back_up(repository, damaged, clients)
    assert_nothing_visible(repository)
    snapshot = back_up(repository, damaged, clients, on_damaged_pages="warn")
    assert any("fail their checksums" in warning for warning in snapshot.warnings)
    assert any("stored as they are" in warning for warning in snapshot.warnings)


def test_a_cluster_cannot_be_watched(newest: PostgreSQL, clients: Programs) -> None:
    from fastvlm_ops.core.backup.compare import quick_signature

    with pytest.raises(BackupError, match="cannot be watched for changes"):
        quick_signature(PostgreSQLClusterSource(url_of(newest), programs=clients))
