"""The connection to a cluster that is backed up."""

from __future__ import annotations

import shlex

import pytest

from fastvlm_ops.hooks.operations_db import OperationsDatabaseError
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterError, PostgreSQLClusterHook

VARIABLE = "AIRFLOW_CONN_FASTVLM_POSTGRES"


def test_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        VARIABLE, "postgres://backup:p%40ss@db.example.org:5433/orders?sslmode=verify-full&cursor=dictcursor"
    )
    url = PostgreSQLClusterHook().url()
    assert (url.username, url.password, url.host, url.port) == ("backup", "p@ss", "db.example.org", 5433)
    assert (url.database, dict(url.query)) == ("orders", {"sslmode": "verify-full"})
    assert PostgreSQLClusterHook().get_conn() == url


def test_a_missing_connection_is_named_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(PostgreSQLClusterError, match="'fastvlm_postgres': is not defined") as caught:
        PostgreSQLClusterHook().url()
    assert caught.value.retryable is False
    command = shlex.split(str(caught.value).partition("Create it with: ")[2])
    assert command[:4] == ["airflow", "connections", "add", "fastvlm_postgres"]
    assert command[4::2] == [
        f"--conn-{name}" for name in ("type", "host", "port", "login", "password", "schema")
    ]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:////srv/a.db", "is of type 'sqlite'; it must be postgres"),
        ("mysql://a:b@c/d", "is of type 'mysql'; it must be postgres"),
        ("postgres://a:b@/d", "the field host is empty"),
        ("postgres://a:b@c", "the field schema .* is empty"),
    ],
)
def test_what_is_no_cluster_is_refused(uri: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(OperationsDatabaseError, match=said):
        PostgreSQLClusterHook().url()
