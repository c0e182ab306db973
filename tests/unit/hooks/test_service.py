"""The connection to a service: what it accepts, and what its test says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from airflow.sdk import Connection

from fastvlm_ops.core.services.process_control import ProcessControl
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.service import ServiceHook, settings_of

ADDRESS = "unix:/run/service/control.sock"


def read(extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    fields = {"host": ADDRESS, **fields}
    return settings_of(
        Connection(conn_id="s", conn_type="fastvlm_service", extra=json.dumps(extra or {}), **fields)
    )


def test_reads_all_fields() -> None:
    assert read({"database_conn_id": "service_db"}, host=f" {ADDRESS} ") == (ADDRESS, "service_db")
    assert read({"database_conn_id": ""}) == (ADDRESS, None)
    assert read({"database_conn_id": None}) == (ADDRESS, None)


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ({}, {"host": ""}, "the field host is empty; enter unix:"),
        ({}, {"host": "  "}, "the field host is empty"),
        ({}, {"port": 80}, "are not read; empty them"),
        ({}, {"login": "me"}, "are not read; empty them"),
        ({}, {"password": "secret"}, "are not read; empty them"),
        ({"database_conn": "x"}, {}, "unknown field 'database_conn'; did you mean 'database_conn_id'?"),
        ({"database_conn_id": 5}, {}, "'database_conn_id' is no text"),
    ],
)
def test_refuses(extra: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConnectionSettingError) as caught:
        read(extra, **fields)
    assert str(caught.value).startswith("Connection 's': ")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def define(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_FASTVLM_SERVICE", json.dumps({"conn_type": "fastvlm_service", "host": host})
    )


def test_gives_the_control_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, ADDRESS)
    control = ServiceHook().control()
    assert isinstance(control, ProcessControl)
    assert control.address == ADDRESS


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8080", "unix:", "unix:relative.sock", "/run/control.sock"]
)
def test_refuses_other_addresses(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    define(monkeypatch, host)
    with pytest.raises(ConnectionSettingError, match="Connection 'fastvlm_service': the field host: "):
        ServiceHook().control()
    good, said = ServiceHook().test_connection()
    assert (good, "the field host" in said) == (False, True)


def test_says_what_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    define(monkeypatch, f"unix:{tmp_path}/absent.sock")
    good, said = ServiceHook().test_connection()
    assert good is False
    assert f"{tmp_path}/absent.sock cannot be asked" in said


def test_an_absent_connection_is_named() -> None:
    with pytest.raises(ConnectionSettingError, match="'absent': is not defined; create it with the type"):
        _ = ServiceHook("absent").settings


def test_the_module_is_light_enough_for_a_dag_file() -> None:
    code = (
        "import sys, fastvlm_ops.hooks.service;"
        "print([name for name in sys.modules if name.startswith('fastvlm_ops.core')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] in {"[]", "['fastvlm_ops.core']"}
