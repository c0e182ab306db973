"""The connection to Prometheus: what it accepts, and what its test says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from fastvlm_ops.core.prometheus.errors import PrometheusError
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.prometheus import PrometheusConnectionError, PrometheusHook, settings_of

URL = "https://prometheus.example.org:9090/base"


def read(extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    fields = {"host": URL, **fields}
    return settings_of(
        Connection(conn_id="p", conn_type="fastvlm_prometheus", extra=json.dumps(extra or {}), **fields)
    )


def test_reads_all_fields(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("ca_bundle", "client_cert", "client_key")}
    for file in files.values():
        file.touch()
    extra = {
        **{name: str(file) for name, file in files.items()},
        "headers": '{"X-Scope-OrgID": "tenant"}',
        "method": "GET",
        "timeout_seconds": "2.5",
        "retries": 1,
    }
    settings = read(extra, host=f"{URL}/", login="me", password="secret")
    assert settings.url == URL
    assert (settings.login, settings.password) == ("me", "secret")
    assert settings.verify == extra["ca_bundle"]
    assert settings.client_cert == (extra["client_cert"], extra["client_key"])
    assert settings.headers == {"X-Scope-OrgID": "tenant"}
    assert (settings.method, settings.timeout_seconds, settings.retries) == ("GET", 2.5, 1)
    assert "secret" not in repr(settings)
    assert "tenant" not in repr(settings)


def test_empty_fields_of_the_form_count_as_absent() -> None:
    empty = dict.fromkeys(("verify", "ca_bundle", "client_cert", "client_key", "headers", "method"))
    settings = read({**empty, "timeout_seconds": "", "retries": None}, login="", password="")
    assert settings.verify is True
    assert settings.client_cert is settings.login is settings.password is None
    assert (settings.headers, settings.method) == ({}, "POST")
    assert (settings.timeout_seconds, settings.retries) == (60, 3)


@pytest.mark.parametrize("value", [False, "false", "False"])
def test_the_certificate_check_can_be_turned_off(value: Any) -> None:
    assert read({"verify": value}).verify is False


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ({}, {"host": ""}, "the field host is empty; enter the server's URL"),
        ({}, {"host": "prometheus:9090"}, "host is 'prometheus:9090'; enter the server's URL"),
        ({}, {"host": "http://"}, "enter the server's URL"),
        ({}, {"host": "http://h:port"}, "enter the server's URL"),
        ({}, {"host": "http://me:secret@h"}, "login and password have their own fields"),
        ({}, {"port": 9090}, "put them into the URL"),
        ({}, {"login": "me"}, "the password is missing"),
        ({"headers": {"authorization": "x"}}, {"password": "token"}, "keep one of them"),
        ({"headers": {"X": 1}}, {}, "the header 'X' is not text"),
        ({"headers": {"X": "a\r\nY: b"}}, {}, "the header 'X' is not text in one line"),
        ({"headers": "X: a"}, {}, "'headers' is no object"),
        ({"verify": "perhaps"}, {}, "'verify' is 'perhaps'; it must be true or false"),
        ({"verify": 2}, {}, "it must be true or false"),
        ({"ca_bundel": "x"}, {}, "unknown field 'ca_bundel'; did you mean 'ca_bundle'?"),
        ({"ca_bundle": "/absent"}, {}, "'ca_bundle' is '/absent', which is no file"),
        ({"client_cert": "relative"}, {}, "'client_cert' is 'relative', which is no file"),
        ({"method": "PUT"}, {}, "it must be POST or GET"),
        ({"timeout_seconds": 0}, {}, "it must be a number from 0.1 to 3600"),
        ({"timeout_seconds": True}, {}, "it must be a number"),
        ({"timeout_seconds": "soon"}, {}, "it must be a number"),
        ({"retries": 1.5}, {}, "it must be a whole number from 0 to 10"),
    ],
)
def test_refuses(extra: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PrometheusConnectionError) as caught:
        read(extra, **fields)
    assert str(caught.value).startswith("Connection 'p': ")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retryable is False
    assert isinstance(caught.value, PrometheusError)
    assert isinstance(caught.value, ConnectionSettingError)


def test_a_key_needs_its_certificate_and_an_authority_a_check(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PrometheusConnectionError, match="'client_cert' is missing"):
        read({"client_key": str(file)})
    with pytest.raises(PrometheusConnectionError, match="ca_bundle would not be used"):
        read({"ca_bundle": str(file), "verify": False})


def test_an_absent_connection_is_named() -> None:
    with pytest.raises(PrometheusError, match="Connection 'absent': is not defined; create it with the type"):
        _ = PrometheusHook("absent").settings
    good, said = PrometheusHook("absent").test_connection()
    assert (good, "is not defined" in said) == (False, True)


def test_masks_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    fields = {"conn_type": "fastvlm_prometheus", "host": URL, "password": "bearer-token-1"}
    fields["extra"] = json.dumps({"headers": {"X-Key": "header-secret-2"}})
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_PROMETHEUS", json.dumps(fields))
    _ = PrometheusHook().settings
    assert redact("bearer-token-1 header-secret-2") == "*** ***"


def test_the_module_is_light_enough_for_a_dag_file() -> None:
    import subprocess
    import sys

    code = (
        "import sys, fastvlm_ops.hooks.prometheus;"
        "print({'numpy', 'pandas', 'requests', 'prometheus_api_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = done.stdout.strip().splitlines()[-1]
    assert "pandas" not in heavy
    assert "prometheus_api_client" not in heavy
