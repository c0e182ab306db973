"""Connected devices: the real client against the stand-in for Apple's tools, in order and out of order."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.config.coreml import SessionRules
from fastvlm_ops.core.coreml.benchmarking import Work, benchmark
from fastvlm_ops.core.coreml.devices.checks import Signing
from fastvlm_ops.core.coreml.devices.connected import EMPTIED, ConnectedDeviceBackend
from fastvlm_ops.core.coreml.devices.interface import (
    ComputeUnit,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
)
from fastvlm_ops.core.coreml.devices.model_runner import FOLDER
from fastvlm_ops.local.apple import AppleScript, Fault, FaultKind, ScriptedDevice, Timing
from fastvlm_ops.local.apple.state import is_alive
from tests.apple_kit import TEAM, Bench

# Minutes in all, for its time-outs are real; tests/dags/test_coreml.py runs on such a device too.
pytestmark = pytest.mark.slow

PHONE = ScriptedDevice()
PAD = ScriptedDevice(
    name="Test iPad",
    kind="iPad",
    model="iPad14,5",
    identifier="5A1D2C3B-0000-4000-8000-000000000002",
    udid="00008112-0000000000000002",
)


def children_of(bench: Bench) -> list[int]:
    """Return the processes that still run with the bench's toolchain."""
    marker = f"FASTVLM_OPS_APPLE_STATE={bench.toolchain.state.folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


def assert_clean(bench: Bench, backend: ConnectedDeviceBackend, device: Device) -> None:
    """Check that nothing runs and nothing lies on the device, and that clean-up leaves no app."""
    assert bench.toolchain.apps() == []
    assert set(bench.toolchain.left_behind()) <= {f"{FOLDER}/{EMPTIED}"}
    backend.clean_up(device)
    backend.clean_up(device)  # again: it is there for tasks that are retried
    assert children_of(bench) == []
    assert not list(bench.toolchain.state.folder.glob("devices/*/apps/*"))


def test_a_session_gives_what_the_device_measured(bench: Bench) -> None:
    timing = Timing(samples_ms=(9.0, 1.0, 2.5, 3.0), load_cold_ms=321.5, load_warm_ms=12.25)
    backend = bench.backend(AppleScript(timings=(timing,), cpu_operations=("gather_0",)))
    device = backend.discover()
    assert isinstance(device, Device)
    assert device.as_dict() == {
        "name": "iphone",
        "hardware_class": HardwareClass.IPHONE,
        "model": "iPhone16,1",
        "os_version": "18.1",
        "os_build": "22B83",
        "identifier_hash": device.identifier_hash,
    }
    assert backend.preflight(device) is None
    result = bench.run(backend, device, iterations=3, warm_loads=2)
    assert result.failure is None
    assert result.samples_ms == (1.0, 2.5, 3.0)  # without the warm-up
    assert (result.load_cold_ms, result.load_warm_ms) == (321.5, (12.25, 12.25))
    assert result.peak_memory_bytes is None  # nobody tells
    assert result.conditions.thermal_start is result.conditions.battery_percent is None
    places = {one.operation: (one.kind, one.unit) for one in result.placement}
    assert places["gather_0"] == ("ios17.gather", "cpu")
    assert places["linear_0"] == ("ios17.linear", "ane")
    assert places["split_0_0"] == ("ios17.split", "ane")  # of two outputs, named by the first, once
    assert sum(one.cost_share or 0 for one in result.placement) == pytest.approx(1)
    assert result.outputs is not None
    with np.load(result.outputs) as outputs:
        assert outputs["out"].shape == (1, 2)
    assert_clean(bench, backend, device)


def test_the_model_and_the_inputs_are_sent_once_a_session(bench: Bench) -> None:
    backend = bench.backend()
    assert bench.run(backend, iterations=4, warm_loads=3).failure is None
    sent = [call for call in bench.toolchain.calls() if call[1:5] == ["devicectl", "device", "copy", "to"]]
    targets = [call[call.index("--destination") + 1] for call in sent]
    assert sum(target.endswith("model.mlmodelc") for target in targets) == 1
    assert sum(target.endswith("inputs.bin") for target in targets) == 1


def test_it_is_built_and_compiled_once_and_installed_anew_after_cleaning_up(bench: Bench) -> None:
    backend = bench.backend()
    device = backend.discover()
    assert isinstance(device, Device)
    for _ in range(2):
        assert bench.run(backend, device).failure is None
    backend.clean_up(device)
    assert bench.run(backend, device).failure is None
    calls = [" ".join(call[:5]) for call in bench.toolchain.calls()]
    assert sum(call.startswith("xcodebuild -workspace") for call in calls) == 1
    assert calls.count("xcrun devicectl device install app") == 2
    assert sum(call.startswith("xcrun coremlcompiler compile") for call in calls) == 2  # before and after


def test_a_package_that_does_not_compile_is_no_lost_device(bench: Bench, tmp_path: Path) -> None:
    package = tmp_path / "Tunnel-v1.mlpackage"  # a word that devicectl has for lost devices
    shutil.copytree(bench.package, package)
    backend = bench.backend(AppleScript(faults=(Fault(FaultKind.COMPILE, model="Tunnel"),)))
    result = bench.run(backend, package=package)
    assert result.failure is not None
    assert result.failure.code == FailureCode.LOAD_FAILED
    assert "Tunnel-v1.mlpackage cannot be compiled: coremlcompiler: error" in result.failure.detail


def builds_of(bench: Bench) -> int:
    """Return how often the runner was built."""
    return sum(call[:2] == ["xcodebuild", "-workspace"] for call in bench.toolchain.calls())


def test_a_build_that_was_cut_short_is_not_used(bench: Bench) -> None:
    backend = bench.backend()
    assert bench.run(backend).failure is None
    (mark,) = bench.folder.glob("builds/*/*.whole")
    (app,) = bench.folder.glob("builds/*/*/*/ModelRunner.app")
    mark.unlink()
    (app / "bundle").write_text("com.example.half")
    assert bench.run(bench.backend()).failure is None
    assert (app / "bundle").read_text() == "com.coremltools.modelrunnerd"
    assert builds_of(bench) == 2


def test_a_build_that_no_longer_installs_is_made_anew(bench: Bench) -> None:
    assert bench.run(bench.backend()).failure is None
    profile_ran_out = Fault(FaultKind.INSTALL, times=1)
    assert bench.run(bench.backend(AppleScript(faults=(profile_ran_out,)))).failure is None
    assert builds_of(bench) == 2
    result = bench.run(bench.backend(AppleScript(faults=(Fault(FaultKind.INSTALL),))))
    assert result.failure is not None
    assert result.failure.code == FailureCode.INSTALL_FAILED
    assert not list(bench.folder.glob("builds/*/*.whole"))


def test_inputs_are_those_that_were_given(bench: Bench, tmp_path: Path) -> None:
    backend = bench.backend()
    device = backend.discover()
    assert isinstance(device, Device)
    found = []
    for value in (0.0, 0.0, 1.0):
        file = tmp_path / "inputs.npz"
        np.savez(file, x=np.full((1, 8), value), token=np.array([2]))  # of other types: they are cast
        result = bench.run(backend, device, inputs=file, iterations=1)
        assert result.outputs is not None, result.failure
        with np.load(result.outputs) as outputs:
            found.append(outputs["out"].tolist())
    assert found[0] == found[1] != found[2]


def test_inputs_that_do_not_fit_are_named(bench: Bench, tmp_path: Path) -> None:
    backend = bench.backend()
    file = tmp_path / "inputs.npz"
    np.savez(file, x=np.zeros((1, 9)), token=np.zeros(1))
    result = bench.run(backend, inputs=file)
    assert result.failure is not None
    assert result.failure.code == FailureCode.UNSUPPORTED_MODEL
    assert "input x has the shape (1, 9); the model's is (1, 8)" in result.failure.detail
    np.savez(file, x=np.zeros((1, 8)))
    result = bench.run(backend, inputs=file)
    assert result.failure is not None
    assert "token is not among the inputs that were given: x" in result.failure.detail


# fault, code, what is said of it
FAULTS = [
    (Fault(FaultKind.DISCONNECT, after=1), FailureCode.DEVICE_DISCONNECTED, "look at its cable"),
    (Fault(FaultKind.CRASH_ON_LAUNCH), FailureCode.APP_CRASHED, "signal 6"),
    (Fault(FaultKind.CRASH_ON_LOAD), FailureCode.APP_CRASHED, "ended during Load: App terminated due"),
    (Fault(FaultKind.CRASH_ON_PREDICT, after=1), FailureCode.APP_CRASHED, "ended during Prediction"),
    (Fault(FaultKind.NO_ANSWER), FailureCode.NO_ANSWER, "did not answer Prediction within 8 s"),
    (Fault(FaultKind.LOAD), FailureCode.LOAD_FAILED, "execution plan"),
    (Fault(FaultKind.PREDICT, after=2), FailureCode.PREDICTION_FAILED, "Unable to compute the prediction"),
    (Fault(FaultKind.DISK_FULL), FailureCode.NOT_READY, "No space left on device"),
    (Fault(FaultKind.SIGNING), FailureCode.SIGNING_FAILED, "No Account for Team"),
    (Fault(FaultKind.BUILD), FailureCode.BUILD_FAILED, "no such module 'CoreML'"),
    (Fault(FaultKind.INSTALL), FailureCode.INSTALL_FAILED, "Unable to install the app"),
    (Fault(FaultKind.HANG), FailureCode.TIMED_OUT, "was killed"),
]


@pytest.mark.parametrize(("fault", "code", "said"), FAULTS, ids=[fault.kind for fault, _, _ in FAULTS])
def test_each_fault_has_its_code_is_bounded_and_cleaned_up(
    bench: Bench, fault: Fault, code: FailureCode, said: str
) -> None:
    backend = bench.backend(AppleScript(faults=(fault,)))
    device = backend.discover()
    assert isinstance(device, Device)
    limits: dict[str, Any] = {"timeout_seconds": 120, "answer_timeout_seconds": 60}
    limits |= {
        FaultKind.HANG: {"timeout_seconds": 6},
        FaultKind.NO_ANSWER: {"answer_timeout_seconds": 8},
    }.get(fault.kind, {})
    started = time.monotonic()
    result = bench.run(backend, device, **limits)
    assert time.monotonic() - started < limits["timeout_seconds"] + 60  # a bound, not a speed
    assert result.failure is not None
    assert (result.failure.code, result.samples_ms) == (code, ())
    assert said in result.failure.detail
    for private in (TEAM, PHONE.udid, PHONE.identifier):
        assert private not in result.failure.detail
    if fault.kind == FaultKind.DISCONNECT:
        (
            bench.toolchain.state.home(PHONE) / "gone"
        ).unlink()  # it comes back: nothing could be removed before
        bench.toolchain.install(AppleScript())
        assert bench.run(backend, device).failure is None
    assert_clean(bench, backend, device)


def test_an_answer_later_than_coremltools_would_wait_for_is_taken(bench: Bench) -> None:
    slow = Fault(FaultKind.SLOW_ANSWER, times=1, seconds=11)  # coremltools gives up after 20 tries
    backend = bench.backend(AppleScript(faults=(slow,)))
    result = bench.run(backend, warm_up=0, iterations=1, timeout_seconds=120, answer_timeout_seconds=60)
    assert result.failure is None
    assert len(result.samples_ms) == 1


def test_numbers_that_are_none_come_back_as_they_are(bench: Bench) -> None:
    backend = bench.backend(AppleScript(faults=(Fault(FaultKind.NAN_OUTPUTS),)))
    result = bench.run(backend)
    assert result.outputs is not None
    with np.load(result.outputs) as outputs:
        assert np.isnan(outputs["out"]).sum() == 1


@pytest.mark.parametrize(
    ("devices", "code", "said"),
    [
        ((), FailureCode.DEVICE_MISSING, "no iphone; connect one"),
        ((PAD,), FailureCode.DEVICE_MISSING, "no iphone"),
        ((PHONE, replace(PHONE, udid="00008130-0000000000000009", identifier="X" * 10)),
         FailureCode.DEVICE_MISSING, "2 devices are of the kind iphone"),
        ((replace(PHONE, state="unavailable"),), FailureCode.DEVICE_DISCONNECTED, "unavailable; connect"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_told_from_one_that_cannot_be_reached(
    bench: Bench, devices: tuple[ScriptedDevice, ...], code: FailureCode, said: str
) -> None:
    found = bench.backend(AppleScript(devices=devices)).discover()
    assert isinstance(found, Failure)
    assert found.code == code
    assert said in found.detail


def test_the_identifier_picks_one_of_several(bench: Bench) -> None:
    identifier = "5A1D2C3B-0000-4000-8000-000000000009"
    other = replace(PHONE, udid="00008130-0000000000000009", identifier=identifier)
    script = AppleScript(devices=(PHONE, replace(other, model="iPhone17,1"), PAD))
    for identifier in (other.udid, other.identifier, other.udid.lower()):
        found = bench.backend(script, identifier=identifier).discover()
        assert isinstance(found, Device)
        assert found.model == "iPhone17,1"
    found = bench.backend(script, kind="ipad").discover()
    assert isinstance(found, Device)
    assert found.hardware_class == HardwareClass.IPAD
    missing = bench.backend(script, identifier="00008130-00000000000000FF").discover()
    assert isinstance(missing, Failure)
    assert missing.code == FailureCode.DEVICE_MISSING


def test_simulators_are_no_devices(bench: Bench) -> None:
    simulator = replace(
        PHONE, udid="75BD17D7-0A6C-48A1-9768-568ACF690500", identifier="S" * 10, simulated=True
    )
    found = bench.backend(AppleScript(devices=(simulator, PHONE))).discover()
    assert isinstance(found, Device)
    assert found.identifier == PHONE.identifier


def test_the_tunnel_to_a_device_that_sleeps_is_opened(bench: Bench) -> None:
    backend = bench.backend(AppleScript(devices=(replace(PHONE, state="disconnected"),)))
    assert isinstance(backend.discover(), Device)


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"developer_mode": False}, FailureCode.DEVELOPER_MODE_OFF, "Settings, Privacy & Security"),
        ({"locked": True}, FailureCode.NOT_READY, "the device is locked"),
    ],
)
def test_what_keeps_a_device_from_being_measured(
    bench: Bench, changed: dict[str, Any], code: FailureCode, said: str
) -> None:
    backend = bench.backend(AppleScript(devices=(replace(PHONE, **changed),)))
    device = backend.discover()
    assert isinstance(device, Device)
    found = backend.preflight(device)
    assert found is not None
    assert found.code == code
    assert said in found.detail
    result = bench.run(backend, device)  # one that is asked nevertheless says the same
    assert result.failure is not None
    assert result.failure.code == code
    assert_clean(bench, backend, device)


def test_without_xcode_it_says_what_to_install(bench: Bench, tmp_path: Path) -> None:
    backend = ConnectedDeviceBackend("iphone", environment={"PATH": str(tmp_path)})
    found = backend.discover()
    assert isinstance(found, Failure)
    assert found.code == FailureCode.NO_TOOLCHAIN
    assert "install Xcode" in found.detail
    assert backend.toolchain["xcode"] == ""


def test_a_listing_that_fails_is_no_missing_device(bench: Bench) -> None:
    found = bench.backend(AppleScript(faults=(Fault(FaultKind.LISTING),))).discover()
    assert isinstance(found, Failure)
    assert found.code == FailureCode.NO_TOOLCHAIN
    assert "CoreDeviceService was unable to start" in found.detail


def test_an_app_whose_console_was_killed_is_ended_by_the_next_session(bench: Bench) -> None:
    backend = bench.backend()
    device = backend.discover()
    assert isinstance(device, Device)
    assert bench.run(backend, device).failure is None
    from fastvlm_ops.core.coreml.devices.devicectl import Container, DeviceCtl

    control = DeviceCtl(bench.environment())
    (found,) = control.devices()
    app = control.launch(Container(found, "com.coremltools.modelrunnerd"), bench.folder / "log")
    while not bench.toolchain.apps():
        time.sleep(0.05)
    os.killpg(app._child.pid, signal.SIGKILL)
    app.stop()
    (stray,) = bench.toolchain.apps()
    assert bench.run(backend, device).failure is None
    assert not is_alive(stray)
    assert_clean(bench, backend, device)


# Each would run a command if a shell read it.
HOSTILE = [
    "T; touch {canary}; true",
    "$(touch {canary})",
    "`touch {canary}`",
    "a\ntouch {canary}",
    "ABCDE12345 && touch {canary}",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("where", ["team", "profile", "bundle", "identifier", "builds"])
def test_nothing_that_a_shell_would_read_runs(bench: Bench, where: str, text: str) -> None:
    canary = bench.folder / "canary"
    hostile = text.format(canary=canary)
    more: dict[str, Any] = {}
    if where == "identifier":
        more["identifier"] = hostile
    elif where == "builds":
        more["builds"] = bench.folder / hostile.replace("/", "_")
    else:
        more["signing"] = Signing(**{"team": TEAM, where: hostile})
    listed = replace(PHONE, udid=hostile, identifier=hostile) if where == "identifier" else PHONE
    backend = bench.backend(AppleScript(devices=(listed,)), **more)
    device = Device("iphone", HardwareClass.IPHONE, "iPhone16,1", "18.1", "22B83")
    result = bench.run(backend, device)
    assert result.failure is not None
    assert result.failure.code in (
        FailureCode.SIGNING_FAILED,
        FailureCode.BUILD_FAILED,
        FailureCode.DEVICE_MISSING,
    )
    assert not canary.exists()
    assert not [call for call in bench.toolchain.calls() if call[0] == "xcodebuild"]


def test_a_package_whose_path_a_shell_would_read_is_run_as_it_is(bench: Bench) -> None:
    canary = bench.folder / "canary"
    folder = bench.folder / "a b; touch canary; $(touch canary) '\""
    folder.mkdir()
    package = folder / "Tiny & Co.mlpackage"
    shutil.copytree(bench.package, package)
    result = bench.run(bench.backend(), package=package)
    assert result.failure is None
    assert not canary.exists()
    assert not (Path.cwd() / "canary").exists()


def test_each_compute_unit_is_asked_for(bench: Bench) -> None:
    backend = bench.backend()
    found = {}
    for unit in ComputeUnit:
        result = bench.run(backend, compute_unit=unit, iterations=1)
        found[unit] = {one.unit for one in result.placement}
    assert found[ComputeUnit.CPU_ONLY] == {"cpu"}
    assert found[ComputeUnit.CPU_AND_GPU] == {"gpu"}
    assert found[ComputeUnit.ALL] == found[ComputeUnit.CPU_AND_NE] == {"ane"}


def test_a_device_that_goes_away_during_a_run_leaves_what_it_measured(bench: Bench, tmp_path: Path) -> None:
    rules = SessionRules(count=4, warm_up=0, iterations=2, warm_loads=0, cooldown_seconds=0)
    work = Work("dag/run", "iphone", "Tiny", "1", "digest", bench.package, "CPU_AND_NE")
    backend = bench.backend(AppleScript(faults=(Fault(FaultKind.DISCONNECT, after=5),)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    record = benchmark(backend, work, rules, scratch=scratch)
    codes = [session.failure.code if session.failure else None for session in record.sessions]
    assert codes == [None, None, FailureCode.DEVICE_DISCONNECTED]
    assert [len(session.samples_ms) for session in record.sessions] == [2, 2, 0]
    assert record.failure is not None
    assert record.failure.code == FailureCode.DEVICE_DISCONNECTED
    assert children_of(bench) == []
    record = benchmark(backend, work, rules, scratch=scratch)  # the next night, without it
    assert record.failure is not None
    assert (record.failure.code, record.sessions) == (FailureCode.DEVICE_DISCONNECTED, ())
