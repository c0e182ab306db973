"""The connection to a device: what it accepts, what is masked, and what its test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from fastvlm_ops.core.config.coreml import ConditionRules, DeviceDefinition
from fastvlm_ops.core.coreml.devices.connected import ConnectedDeviceBackend
from fastvlm_ops.hooks.apple_device import AppleDeviceHook, settings_of
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.local.apple import AppleScript, AppleToolchain, ScriptedDevice

UDID = "00008130-0000000000000001"
PROFILE = "12345678-1234-1234-1234-123456789abc"


def read(extra: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    return settings_of(
        Connection(conn_id="d", conn_type="fastvlm_apple_device", extra=json.dumps(extra or {}), **fields)
    )


def test_reads_all_fields() -> None:
    extra = {
        "bundle_identifier": "com.example.runner",
        "provisioning_profile_uuid": PROFILE,
        "device_kind": "iPad",
    }
    assert read(extra, host=f" {UDID} ", login="ABCDE12345", password="salt") == {
        "identifier": UDID,
        "kind": "ipad",
        "team": "ABCDE12345",
        "profile": PROFILE,
        "bundle": "com.example.runner",
        "salt": "salt",
    }


def test_all_may_be_empty() -> None:
    empty = dict.fromkeys(("bundle_identifier", "provisioning_profile_uuid", "device_kind"))
    settings = read(empty)
    assert (settings.pop("kind"), settings.pop("salt")) == ("iphone", "d")
    assert not any(settings.values())


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ({}, {"login": "abcde12345"}, "the development team of the connection has a wrong form"),
        ({}, {"login": "ABCDE12345; touch x"}, "it must be ten capital letters and digits"),
        ({}, {"host": "$(touch x)"}, "the device's identifier has a wrong form"),
        ({}, {"host": "--help-me-please"}, "the device's identifier has a wrong form"),
        ({"bundle_identifier": "com.example.a b"}, {}, "the bundle identifier"),
        ({"bundle_identifier": "runner"}, {}, "as in com.example.runner"),
        ({"provisioning_profile_uuid": "x"}, {}, "it must be a UUID"),
        ({"provisioning_profile_uuid": 7}, {}, "'provisioning_profile_uuid' is no text"),
        ({"device_kind": "watch"}, {}, "it must be one of iphone, ipad, mac"),
        ({"bundle": "x"}, {}, "unknown field 'bundle'"),
        ({}, {"port": 1}, "port and schema are not read"),
    ],
)
def test_refuses(extra: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConnectionSettingError) as caught:
        read(extra, **fields)
    assert str(caught.value).startswith("Connection 'd': ")
    assert message in str(caught.value)
    assert "touch" not in str(caught.value)


def define(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    values = {"conn_type": "fastvlm_apple_device", **fields}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_APPLE_DEVICE", json.dumps(values))


def test_gives_the_backend_and_masks_what_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    define(monkeypatch, host=UDID, password="a-long-salt", extra=json.dumps({"device_kind": "mac"}))
    definition = DeviceDefinition(
        name="iphone-15", backend="connected-device", connection="fastvlm_apple_device"
    )
    backend = AppleDeviceHook().backend(definition, ConditionRules())
    assert isinstance(backend, ConnectedDeviceBackend)
    assert backend.name == "iphone-15"
    assert redact(f"{UDID} a-long-salt") == "*** ***"


def test_an_absent_connection_is_named() -> None:
    good, said = AppleDeviceHook("absent").test_connection()
    assert (good, "is not defined; create it with the type fastvlm_apple_device" in said) == (False, True)


def test_looks_for_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in AppleToolchain(tmp_path).install().items():
        monkeypatch.setenv(name, value)
    define(monkeypatch, host=UDID)
    assert AppleDeviceHook().test_connection() == (True, "iPhone16,1 with 18.1 (22B83) is connected.")
    AppleToolchain(tmp_path).install(AppleScript(devices=(ScriptedDevice(developer_mode=False),)))
    good, said = AppleDeviceHook().test_connection()
    assert (good, said.startswith("developer_mode_off: developer mode is off")) == (False, True)


def test_the_module_is_light_enough_for_a_dag_file() -> None:
    code = (
        "import sys; before = set(sys.modules); import airflow.sdk; import fastvlm_ops.hooks.apple_device;"
        "print({'numpy', 'coremltools', 'scipy', 'blake3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "set()"
