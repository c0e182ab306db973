"""This machine as a device: sessions are processes, their failures are data, and nothing outlives them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.coreml.devices.interface import (
    ComputeUnit,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
    SessionPlan,
)
from fastvlm_ops.core.coreml.devices.linux_reference import LinuxReferenceBackend
from fastvlm_ops.core.coreml.reference import ReferenceModel
from fastvlm_ops.local.coreml_models import example_inputs
from tests.coreml_kit import Build
from tests.unit.core.coreml.reference.programs import build, normal

BACKEND = LinuxReferenceBackend("linux")


@pytest.fixture
def package(coreml_package: Build) -> Path:
    """The encoder whose attention scores overflow."""
    return coreml_package("VisionEncoder", "overflow")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    np.savez(file, **example_inputs("VisionEncoder"))  # type: ignore[arg-type]
    return file


def plan(package: Path, inputs: Path | None, **changes: Any) -> SessionPlan:
    """A short session."""
    values = {
        "package": package,
        "compute_unit": ComputeUnit.CPU_ONLY,
        "inputs": inputs,
        "warm_up": 1,
        "iterations": 3,
        "timeout_seconds": 120,
    }
    return SessionPlan(**{**values, **changes})


@pytest.fixture
def device() -> Device:
    found = BACKEND.discover()
    assert isinstance(found, Device)
    return found


def test_it_is_no_apple_hardware(device: Device) -> None:
    assert device.hardware_class is HardwareClass.LINUX_REFERENCE
    assert device.name == "linux"
    assert device.os_version == os.uname().release
    assert device.os_build
    assert set(BACKEND.toolchain) == {"coremltools", "onnx", "onnxruntime"}
    assert BACKEND.preflight(device) is None


def test_a_session_gives_times_memory_placement_and_outputs(
    device: Device, package: Path, inputs: Path, tmp_path: Path
) -> None:
    result = BACKEND.run_session(device, plan(package, inputs), tmp_path)

    assert result.failure is None
    assert len(result.samples_ms) == 3
    assert min(*result.samples_ms, *result.load_warm_ms, result.load_cold_ms or 0) > 0
    assert len(result.load_warm_ms) == 1
    assert result.peak_memory_bytes is not None
    assert 50e6 < result.peak_memory_bytes < 4e9
    assert {one.unit for one in result.placement} == {"cpu"}
    assert sum(one.cost_share or 0 for one in result.placement) == pytest.approx(1)
    assert len({one.operation for one in result.placement}) == len(result.placement)
    assert max(result.placement, key=lambda one: one.cost_share or 0).kind.endswith((".conv", ".linear"))
    assert result.outputs is not None
    with np.load(result.outputs) as found:
        expected = ReferenceModel(package).predict(example_inputs("VisionEncoder"))
        np.testing.assert_allclose(found["image_features"], expected["image_features"], atol=1e-5)
    # ONNX Runtime's telemetry would have left a file of its own.
    assert sorted(os.listdir(tmp_path)) == ["outputs.npz", "report.json"]


def test_units_that_compute_in_half_precision_show_what_it_cannot_hold(
    device: Device, package: Path, inputs: Path, tmp_path: Path
) -> None:
    unit = ComputeUnit.CPU_AND_NE
    result = BACKEND.run_session(
        device, plan(package, inputs, compute_unit=unit, want_placement=False), tmp_path
    )

    assert result.placement == ()
    assert result.outputs is not None
    with np.load(result.outputs) as found:
        assert np.isnan(found["image_features"]).any()


def test_without_inputs_they_are_made_up(device: Device, tmp_path: Path) -> None:
    tokens = {"tokens": np.zeros((1, 4), np.int32), "x": normal(3)}
    package = build(tmp_path, tokens, lambda mb, tokens, x: (mb.add(x=tokens, y=np.int32(1)), mb.exp(x=x)))

    result = BACKEND.run_session(device, plan(package, None, warm_loads=0, want_outputs=False), tmp_path)

    assert result.failure is None
    assert result.load_warm_ms == ()
    assert result.outputs is None


def _alive(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in command:
                found.append(int(entry.name))
    return found


def test_what_takes_too_long_is_killed_and_leaves_nothing_running(
    device: Device, package: Path, inputs: Path, tmp_path: Path
) -> None:
    started = time.monotonic()

    result = BACKEND.run_session(device, plan(package, inputs, iterations=10**7, timeout_seconds=8), tmp_path)

    assert result.failure is not None
    assert result.failure.code is FailureCode.TIMED_OUT
    assert time.monotonic() - started < 60
    assert _alive(str(tmp_path)) == []


def test_each_failure_has_its_code(device: Device, package: Path, inputs: Path, tmp_path: Path) -> None:
    random = build(
        tmp_path,
        {"x": normal(2)},
        lambda mb, x: mb.add(x=x, y=mb.random_normal(shape=[2], mean=0.0, stddev=1.0, seed=1)),
    )
    np.savez(tmp_path / "wrong.npz", images=np.zeros((1, 3, 8, 8)))
    cases: list[tuple[dict[str, Any], FailureCode, str]] = [
        ({"package": tmp_path / "no.mlpackage"}, FailureCode.LOAD_FAILED, "no.mlpackage"),
        ({"package": random}, FailureCode.UNSUPPORTED_MODEL, "random_normal (iOS15)"),
        ({"inputs": tmp_path / "wrong.npz"}, FailureCode.PREDICTION_FAILED, "images has shape"),
    ]
    for number, (changes, code, said) in enumerate(cases):
        scratch = tmp_path / str(number)
        scratch.mkdir()

        order = replace(plan(package, inputs), **changes)
        result = BACKEND.run_session(device, order, scratch)

        assert result.failure is not None
        assert result.failure.code is code
        assert said in result.failure.detail
        assert result.samples_ms == ()


def test_two_models_are_timed_in_turns(package: Path, tmp_path: Path) -> None:
    small = build(tmp_path, {"x": normal(64, 64)}, lambda mb, x: mb.exp(x=x), name="small")

    pairs = BACKEND.take_turns(small, package, blocks=3, iterations=2, timeout_seconds=120)

    assert not isinstance(pairs, Failure)
    assert len(pairs) == 3
    assert all(0 < one < other for one, other in pairs)  # the second does a thousand times as much
    nothing = tmp_path / "no.mlpackage"
    missing = BACKEND.take_turns(small, nothing, blocks=1, iterations=1, timeout_seconds=120)
    assert isinstance(missing, Failure)
    assert missing.code is FailureCode.LOAD_FAILED
