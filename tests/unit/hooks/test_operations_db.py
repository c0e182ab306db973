"""The connection to the operations database: what it accepts, and what stands in for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from fastvlm_ops import settings
from fastvlm_ops.core.store import SchemaVersionError
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, OperationsDatabaseHook, connection_url
from fastvlm_ops.local.postgres import PostgreSQL

VARIABLE = "AIRFLOW_CONN_FASTVLM_OPS_DB"


def url_of(**fields: Any) -> str:
    connection = Connection(conn_id="fastvlm_ops_db", **fields)
    return connection_url(connection).render_as_string(hide_password=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that ``database_path`` names; there is no connection."""
    file = tmp_path / "operations.db"
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(file))
    return file


def test_without_a_connection_it_is_a_file_made_at_first_use(file: Path) -> None:
    for _ in range(2):
        with OperationsDatabaseHook().open_store() as store:
            assert store.engine.url.database == str(file)
    assert OperationsDatabaseHook().test_connection() == (
        True,
        f"The operations database sqlite:///{file} answers and is up to date.",
    )


def test_a_folder_that_is_not_there_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(file.parent / "nowhere" / "ops.db"))
    well, message = OperationsDatabaseHook().test_connection()
    assert not well
    assert "[fastvlm_ops] database_path is" in message
    with pytest.raises(settings.SettingError):
        OperationsDatabaseHook().open_store()


def test_another_connection_that_is_not_defined_is_no_file(file: Path) -> None:
    with pytest.raises(OperationsDatabaseError, match="Connection 'absent': is not defined; create it"):
        OperationsDatabaseHook("absent").open_store()
    assert not file.exists()


def test_a_broken_connection_is_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"conn_type": "mysql", "host": "h", "schema": "d"}))
    with pytest.raises(OperationsDatabaseError, match="is of type 'mysql'; it must be postgres, or sqlite"):
        OperationsDatabaseHook().open_store()
    assert not file.exists()


def test_a_database_with_a_connection_is_migrated_by_a_person(
    postgres: PostgreSQL, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.make_database("test_hook")
    fields = {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": postgres.port,
        "login": postgres.user,
        "password": postgres.password,
        "schema": "test_hook",
    }
    monkeypatch.setenv(VARIABLE, json.dumps(fields))
    hook = OperationsDatabaseHook()
    with pytest.raises(SchemaVersionError, match="holds no tables yet"):
        hook.open_store()
    hook.migrate()
    well, message = hook.test_connection()
    assert well, message
    assert postgres.password not in message
    monkeypatch.setenv(VARIABLE, json.dumps({**fields, "password": "sesame-open"}))
    well, message = hook.test_connection()
    assert not well
    assert "password authentication failed" in message
    assert "sesame-open" not in message
    assert not file.exists()
    postgres.drop_database("test_hook")


def test_masks_its_password() -> None:
    from airflow.sdk._shared.secrets_masker import redact

    url_of(conn_type="postgres", host="h", schema="d", login="u", password="a long secret")
    assert redact("a long secret") == "***"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (
            {"conn_type": "postgres", "host": "h", "port": 1, "schema": "d", "login": "u", "password": "p@/"},
            "postgresql+psycopg://u:p%40%2F@h:1/d",
        ),
        (
            {
                "conn_type": "postgres",
                "host": "h",
                "schema": "d",
                "extra": json.dumps({"sslmode": "verify-full", "cursor": "dictcursor"}),
            },
            "postgresql+psycopg://h/d?sslmode=verify-full",
        ),
        ({"conn_type": "sqlite", "host": "/srv/ops.db"}, "sqlite:////srv/ops.db"),
        ({"uri": "sqlite:////srv/ops.db"}, "sqlite:////srv/ops.db"),
        ({"uri": "postgres://u:p@h:1/d"}, "postgresql+psycopg://u:p@h:1/d"),
        ({"uri": "postgresql://u:p@h:1/d?sslmode=require"}, "postgresql+psycopg://u:p@h:1/d?sslmode=require"),
    ],
)
def test_reads(fields: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = fields.pop("uri", None)
    if uri is None:
        assert url_of(**fields) == url
        return
    monkeypatch.setenv(VARIABLE, uri)  # as Airflow itself takes an address apart
    connection = OperationsDatabaseHook().get_connection("fastvlm_ops_db")
    assert connection_url(connection).render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "postgres", "schema": "d"}, "the field host is empty"),
        ({"conn_type": "postgres", "host": "h"}, r"the field schema \(the database's name\) is empty"),
        ({"conn_type": "sqlite", "host": "ops.db"}, r"is 'ops\.db', which is not an absolute path"),
        ({"conn_type": "sqlite"}, "is '', which is not an absolute path"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OperationsDatabaseError, match=rf"Connection 'fastvlm_ops_db': .*{message}") as caught:
        url_of(**fields)
    assert caught.value.retryable is False
