"""This Mac as a device: coremltools' own benchmarker and compute plan, over the stand-in's Core ML."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.config.coreml import ConditionRules
from fastvlm_ops.core.coreml.devices.checks import DEFAULT_BUNDLE
from fastvlm_ops.core.coreml.devices.devicectl import Container, DeviceCtl
from fastvlm_ops.core.coreml.devices.interface import (
    ComputeUnit,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
)
from fastvlm_ops.core.coreml.devices.local_mac import LocalMacBackend
from fastvlm_ops.local.apple import AppleScript, Fault, FaultKind, Timing
from fastvlm_ops.local.apple.packages import describe
from tests.apple_kit import Bench


def mac(bench: Bench, script: AppleScript | None = None, **rules: Any) -> LocalMacBackend:
    """Return this Mac, as the script has it."""
    environment = bench.toolchain.environment(script)
    return LocalMacBackend("mac", conditions=ConditionRules(**rules), environment=environment)


def test_a_session_gives_what_core_ml_measured(bench: Bench) -> None:
    timing = Timing(samples_ms=(7.0, 1.5, 2.0, 2.5), load_cold_ms=80.5, load_warm_ms=9.0)
    backend = mac(bench, AppleScript(timings=(timing,), cpu_operations=("gather_0",), battery=80))
    device = backend.discover()
    assert isinstance(device, Device)
    assert (device.hardware_class, device.model) == (HardwareClass.MAC, "Mac14,2")
    assert len(device.identifier_hash) == 16
    assert (device.os_version, device.os_build) == ("15.1", "24B83")
    assert backend.preflight(device) is None
    assert backend.toolchain == {"coremltools": "9.0", "xcode": "16.1 16B40", "backend": "local-mac/1"}
    result = bench.run(backend, device, iterations=3, warm_loads=2)
    assert result.failure is None
    assert result.samples_ms == (1.5, 2.0, 2.5)
    assert (result.load_cold_ms, result.load_warm_ms) == (80.5, (9.0, 9.0))
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 50_000_000  # coremltools alone takes more
    places = {one.operation: (one.kind, one.unit) for one in result.placement}
    assert places["gather_0"] == ("ios17.gather", "cpu")
    assert places["split_0_0"] == ("ios17.split", "ane")
    assert len(result.placement) == len(places)  # one an operation, also where it has two outputs
    assert sum(one.cost_share or 0 for one in result.placement) == pytest.approx(1)
    conditions = result.conditions
    assert (conditions.thermal_start, conditions.thermal_end) == ("nominal", "nominal")
    assert (conditions.battery_percent, conditions.charging, conditions.low_power) == (80, False, False)
    assert result.outputs is not None
    with np.load(result.outputs) as outputs:
        assert outputs["out"].shape == (1, 2)


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault(FaultKind.LOAD), FailureCode.LOAD_FAILED, "the model does not load"),
        (Fault(FaultKind.CRASH_ON_LOAD), FailureCode.APP_CRASHED, "SIGABRT"),
        (Fault(FaultKind.CRASH_ON_PREDICT, after=1), FailureCode.APP_CRASHED, "SIGABRT"),
        (
            Fault(FaultKind.PREDICT, after=1),
            FailureCode.PREDICTION_FAILED,
            "Unable to compute the prediction",
        ),
        (Fault(FaultKind.HANG), FailureCode.TIMED_OUT, "was killed"),
    ],
)
def test_each_fault_has_its_code(bench: Bench, fault: Fault, code: FailureCode, said: str) -> None:
    backend = mac(bench, AppleScript(faults=(fault,)))
    started = time.monotonic()
    # Importing coremltools alone takes seconds, and many on a machine that does other things too.
    result = bench.run(backend, timeout_seconds=30 if fault.kind == FaultKind.HANG else 120)
    assert time.monotonic() - started < 180  # a bound, not a speed
    assert result.failure is not None
    assert (result.failure.code, result.samples_ms) == (code, ())
    assert said in result.failure.detail


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"speed_limit": 60}, "its thermal state is serious; at worst fair is measured"),
        ({"low_power": True}, "low power mode"),
        ({"battery": 12}, "its battery is at 12 %; 30 % is the least"),
    ],
)
def test_what_keeps_it_from_being_measured(bench: Bench, changed: dict[str, Any], said: str) -> None:
    backend = mac(bench, AppleScript(**changed))
    device = backend.discover()
    assert isinstance(device, Device)
    found = backend.preflight(device)
    assert found is not None
    assert found.code == FailureCode.NOT_READY
    assert said in found.detail
    lenient = mac(
        bench,
        AppleScript(**changed),
        worst_thermal="critical",
        allow_low_power=True,
        minimum_battery_percent=5,
    )
    assert lenient.preflight(device) is None


def test_it_says_that_a_worker_is_no_mac(tmp_path: Path) -> None:
    found = LocalMacBackend("mac", environment={"PATH": str(tmp_path)}).discover()
    assert isinstance(found, Failure)
    assert found.code == FailureCode.NO_TOOLCHAIN
    assert "this worker is no Mac" in found.detail


def test_an_unreadable_package_is_a_failure_to_load(bench: Bench, tmp_path: Path) -> None:
    package = tmp_path / "Broken-v1.mlpackage"
    package.mkdir()
    result = bench.run(mac(bench), package=package, compute_unit=ComputeUnit.ALL)
    assert result.failure is not None
    assert result.failure.code == FailureCode.LOAD_FAILED
    assert "Broken-v1.mlpackage: has no Manifest.json" in result.failure.detail


def test_coremltools_own_code_runs_remotely_over_the_stand_in(bench: Bench, tmp_path: Path) -> None:
    """What the building of the runner leans on, and the benchmarker on a device: none of it is ours."""
    code = f"""
import asyncio, logging, pathlib
logging.disable()
import coremltools
from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceType

async def main():
    (device,) = Device.get_connected_devices(DeviceType.IPHONE)
    work = pathlib.Path({str(tmp_path)!r})
    device = await device.prepare_for_model_debugging(AppSigningCredentials("ABCDE12345"), work)
    model = coremltools.models.MLModel({str(bench.package)!r}, skip_model_load=True)
    benchmarker = MLModelBenchmarker(model, device)
    print((await benchmarker.benchmark_load()).samples)
    print((await benchmarker.benchmark_predict(iterations=3)).samples)
    print(len(await benchmarker.benchmark_operation_execution()))
    await benchmarker._loaded_model.unload()
    device.session.stop()
    device.session._process.wait()

asyncio.run(main())
"""
    script = AppleScript(timings=(Timing(samples_ms=(1.0, 2.0, 3.0), load_cold_ms=55.0),))
    outputs = [name for one in describe(bench.package)["operations"] for name in one["outputs"]]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **bench.toolchain.install(script)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Its stop() ends the shell that it started devicectl by, and neither devicectl nor the app.
    control = DeviceCtl(bench.environment())
    (found,) = control.devices()
    control.end_app(Container(found, DEFAULT_BUNDLE))
    assert bench.toolchain.apps() == []
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["[55.0]", "[1.0, 2.0, 3.0]", str(len(outputs))]
