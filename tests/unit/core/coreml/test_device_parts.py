"""What the backends are made of: tensors on the wire, checks, names of failures, what tools say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.config.coreml import DeviceDefinition
from fastvlm_ops.core.coreml.devices.building import child_environment
from fastvlm_ops.core.coreml.devices.checks import (
    Signing,
    check_identifier,
    check_path,
    check_signing,
    hashed_identifier,
)
from fastvlm_ops.core.coreml.devices.connected import ConnectedDeviceBackend
from fastvlm_ops.core.coreml.devices.devicectl import DeviceCtl
from fastvlm_ops.core.coreml.devices.interface import BackendKind, Conditions, FailureCode
from fastvlm_ops.core.coreml.devices.local_mac import LocalMacBackend
from fastvlm_ops.core.coreml.devices.mac_conditions import read_conditions, thermal_state
from fastvlm_ops.core.coreml.devices.registry import make_backend
from fastvlm_ops.core.coreml.devices.tensors import TensorError, read_tensors, write_tensors
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble


def test_tensors_come_back_as_they_were_sent(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "half": generator.random((2, 3)).astype(np.float16),
        "turned": generator.random((4, 5)).astype(np.float32).T,
        "double": generator.random((1,)),
        "whole": np.arange(6, dtype=np.int32).reshape(1, 2, 3)[:, ::-1],
        "single": np.float32(2.5).reshape(()),
    }
    file = tmp_path / "data"
    found = read_tensors(write_tensors(arrays, file), file)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_padded_rows_are_read_by_their_strides(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(np.arange(8, dtype=np.float32).tobytes())  # two rows of three, padded to four
    descriptor = {
        "dataType": "Float32",
        "shape": [2, 3],
        "strides": [4, 1],
        "storage": {"offset": 0, "size": 32},
    }
    assert read_tensors({"x": descriptor}, file)["x"].tolist() == [[0, 1, 2], [4, 5, 6]]


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [2, 4]},
        {"shape": [1 << 40, 3]},
        {"strides": [-1, 1]},
        {"strides": [1]},
        {"shape": [1 << 20, 1 << 20], "strides": [0, 0]},
        {"shape": [0, 3]},
        {"dataType": "Float8"},
        {"storage": {"offset": 24, "size": 0}},
        {"storage": {"offset": -4, "size": 24}},
        {"storage": {}},
        {"shape": None},
    ],
)
def test_a_descriptor_that_leads_out_of_the_bytes_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    file = tmp_path / "data"
    good = write_tensors({"x": np.zeros((2, 3), np.float32)}, file)["x"]
    with pytest.raises(TensorError, match="of x"):
        read_tensors({"x": {**good, **changed}}, file)


def test_a_type_that_cannot_be_sent_is_named(tmp_path: Path) -> None:
    with pytest.raises(TensorError, match="x is of int64; Float16, Float32, Float64, Int32 can be sent"):
        write_tensors({"x": np.zeros(1, np.int64)}, tmp_path / "data")


# What Xcode and devicectl are known to have said.
SAID = [
    ("The operation failed since the device is locked. (kAMDMobileImageMounterDeviceLocked)", "not_ready"),
    ("Unable to launch com.x because the device was not, or could not be, unlocked. (Locked)", "not_ready"),
    ("write failed: No space left on device", "not_ready"),
    ("Developer Mode is disabled.", "developer_mode_off"),
    ('error: Signing for "ModelRunner" requires a development team.', "signing_failed"),
    ("Unable to launch because it has an invalid code signature, inadequate entitlements", "signing_failed"),
    ("its profile has not been explicitly trusted by the user", "signing_failed"),
    ("error: No profiles for 'com.x' were found", "signing_failed"),
    ("The device was disconnected immediately after connecting.", "device_disconnected"),
    ("The specified device was not found.", "device_disconnected"),
    ("Connection was interrupted", "device_disconnected"),
    ("something else went wrong", "install_failed"),
    ("", "install_failed"),
]


@pytest.mark.parametrize(("said", "code"), SAID)
def test_what_tools_say_gives_a_failure_its_name(said: str, code: str) -> None:
    assert trouble(FailureCode.INSTALL_FAILED, "it failed", said).failure.code == code


def test_what_is_said_is_one_line_of_bounded_length() -> None:
    detail = trouble(FailureCode.INTERNAL, "it failed", "a\n\n  b" + "x" * 5000 + " end").failure.detail
    assert detail.endswith("x end")
    assert "\n" not in detail
    assert len(detail) < 700


@pytest.mark.parametrize(
    "signing",
    [
        Signing(team="ABCDE1234"),
        Signing(team="ABCDE12345\n"),
        Signing(team="ÀBCDE12345"),
        Signing(profile="12345678-1234-1234-1234-123456789abg"),
        Signing(bundle=""),
        Signing(bundle="-x.y"),
        Signing(bundle="a..b"),
        Signing(bundle="a.b;c"),
    ],
)
def test_credentials_of_another_form_are_refused(signing: Signing) -> None:
    with pytest.raises(DeviceTroubleError, match="signing_failed"):
        check_signing(signing)


def test_good_credentials_pass_and_are_not_shown() -> None:
    signing = Signing("ABCDE12345", "12345678-1234-1234-1234-123456789abc", "com.example-x.Runner2")
    check_signing(signing)
    assert "ABCDE12345" not in repr(signing)
    assert "12345678" not in repr(signing)
    check_identifier("00008130-001C25D40A98001C")
    check_path(Path("/Users/Zoë/kit_1/runner-2.0+a@b"), "x")


@pytest.mark.parametrize("path", ["/a b", "/a;b", "/a$b", "/a\nb", "/a'b", "relative/a", "/a*"])
def test_paths_that_a_shell_would_read_are_refused(path: str) -> None:
    with pytest.raises(DeviceTroubleError, match="build_failed"):
        check_path(Path(path), "x")


def test_the_hash_of_an_identifier_needs_its_salt() -> None:
    assert hashed_identifier("udid", "a") == hashed_identifier("udid", "a")
    assert (
        len({hashed_identifier("udid", "a"), hashed_identifier("udid", "b"), hashed_identifier("udie", "a")})
        == 3
    )


def tools(folder: Path, **programs: str) -> dict[str, str]:
    """Write programs and return the environment in which they are found first."""
    for name, script in programs.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def answering(folder: Path, answer: Any) -> DeviceCtl:
    """Return a client of a devicectl that always answers this."""
    (folder / "answer").write_text(answer if isinstance(answer, str) else json.dumps(answer))
    # The last argument is the file that the answer goes to.
    return DeviceCtl(tools(folder, xcrun=f'for last; do :; done; cp "{folder}/answer" "$last"'))


@pytest.mark.parametrize(
    "devices",
    [
        [{}],
        ["text", None, 3],
        [{"identifier": "I", "hardwareProperties": None, "deviceProperties": 7}],
        [{"identifier": "I", "hardwareProperties": {"deviceType": "iPhone"}}],  # without a UDID
        "none",
        None,
    ],
)
def test_entries_that_are_no_devices_are_left_out(tmp_path: Path, devices: Any) -> None:
    assert answering(tmp_path, {"result": {"devices": devices}}).devices() == []


def test_a_device_that_tells_little_is_listed(tmp_path: Path) -> None:
    entry = {
        "identifier": "I",
        "hardwareProperties": {"udid": "U", "deviceType": "iPad", "marketingName": "iPad Air"},
    }
    (found,) = answering(tmp_path, {"result": {"devices": [entry]}}).devices()
    assert (found.kind, found.model, found.os_version, found.state) == ("ipad", "iPad Air", "", "")
    assert "U" not in repr(found).replace("AppleDevice", "")


@pytest.mark.parametrize("answer", ["", "not JSON", "{"])
def test_no_answer_of_devicectl_is_no_empty_list(tmp_path: Path, answer: str) -> None:
    with pytest.raises(DeviceTroubleError, match="no_toolchain: devicectl list devices gave no JSON"):
        answering(tmp_path, answer).devices()


def conditions(folder: Path, batt: str = "", therm: str = "", power: str = "") -> Conditions:
    """Read what a Mac with these texts tells."""
    for name, text in (("batt", batt), ("therm", therm), ("power", power)):
        (folder / name).write_text(text)
    environment = tools(folder, pmset=f'cat "{folder}/${{2:-power}}"')
    return read_conditions(environment)


def test_a_mac_tells_its_state(tmp_path: Path) -> None:
    battery = " -InternalBattery-0 (id=1)\t93%; charging; 0:20 remaining present: true\n"
    batt = f"Now drawing from 'AC Power'\n{battery}"
    therm = "Note: No thermal warning level has been recorded\n"
    assert conditions(tmp_path, batt, therm, " lowpowermode         1\n") == Conditions(
        thermal_start="nominal", low_power=True, battery_percent=93, charging=True
    )
    assert conditions(tmp_path, batt.replace("charging", "discharging")).charging is False
    assert conditions(tmp_path) == Conditions()  # nothing is told, nothing is guessed


@pytest.mark.parametrize(
    ("limit", "state"), [(100, "nominal"), (99, "fair"), (80, "fair"), (79, "serious"), (49, "critical")]
)
def test_heat_is_told_by_the_processors_speed(tmp_path: Path, limit: int, state: str) -> None:
    environment = tools(tmp_path, pmset=f"echo '  CPU_Speed_Limit  = {limit}'")
    assert thermal_state(environment) == state


def test_a_device_gets_its_backend() -> None:
    kinds = {}
    for backend, connection in (("connected-device", "c"), ("local-mac", None), ("linux-reference", None)):
        definition = DeviceDefinition(name="d", backend=backend, connection=connection)
        made = make_backend(definition, connection={"identifier": "", "team": "ABCDE12345"})
        kinds[made.kind] = type(made)
    assert set(kinds) == set(BackendKind)
    assert kinds[BackendKind.CONNECTED_DEVICE] is ConnectedDeviceBackend
    assert kinds[BackendKind.LOCAL_MAC] is LocalMacBackend


def test_children_find_this_package_and_what_was_there_before() -> None:
    found = child_environment({"PYTHONPATH": "/somewhere:"})["PYTHONPATH"].split(os.pathsep)
    assert found[0] == "/somewhere"
    assert (Path(found[1]) / "fastvlm_ops" / "core").is_dir()
