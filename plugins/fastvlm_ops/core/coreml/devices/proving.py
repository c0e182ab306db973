"""Proves a backend on a device that is really there: each thing that it relies on, one after the other.

The model is small and made here; what it has to predict is worked out by NumPy alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.arrays import ArraysError, read_arrays, write_arrays
from fastvlm_ops.core.coreml.devices.interface import (
    ComputeUnit,
    Device,
    DeviceBackend,
    Failure,
    HardwareClass,
    SessionPlan,
    SessionResult,
)

_SIDE, _COLOURS, _CHANNELS, _CLASSES = 32, 3, 64, 10
_MINIMUM_PSNR_DB = 40.0  # half precision keeps some 60 here
_ITERATIONS = 10


@dataclass(frozen=True)
class Step:
    """One thing that was tried.

    :param name: what
    :param passed: whether it is as it has to be
    :param said: what was found
    :param facts: what may interest whoever reads the report
    """

    name: str
    passed: bool
    said: str
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "passed": self.passed, "said": self.said, "facts": self.facts}


def prove(backend: DeviceBackend, scratch: Path) -> Iterator[Step]:
    """Try everything, and yield what came of each; nothing after what the rest depends on has failed.

    :param backend: of the device
    :param scratch: an empty folder
    """
    toolchain = backend.toolchain
    missing = [name for name in ("coremltools", "xcode") if name in toolchain and not toolchain[name]]
    said = (
        f"missing: {', '.join(missing)}" if missing else ", ".join(f"{k} {v}" for k, v in toolchain.items())
    )
    yield Step("toolchain", not missing, said, dict(toolchain))
    device = backend.discover()
    if isinstance(device, Failure):
        yield _failed("device is found", device)
        return
    facts = device.as_dict()
    yield Step("device is found", True, f"{device.model} with {device.os_version} ({device.os_build})", facts)
    hindrance = backend.preflight(device)
    if hindrance is not None:
        yield _failed("device is ready", hindrance)
        return
    yield Step("device is ready", True, "nothing keeps it from being measured")
    try:
        yield from _sessions(backend, device, scratch)
    finally:
        backend.clean_up(device)
    yield _cleaned(backend, device)


def _sessions(backend: DeviceBackend, device: Device, scratch: Path) -> Iterator[Step]:
    package = build_model(scratch)
    inputs = scratch / "inputs.npz"
    image = np.random.default_rng(3).random((1, _COLOURS, _SIDE, _SIDE), np.float32)
    write_arrays(inputs, {"image": image})
    apple = device.hardware_class != HardwareClass.LINUX_REFERENCE
    for unit in (ComputeUnit.CPU_ONLY, ComputeUnit.CPU_AND_NE) if apple else (ComputeUnit.CPU_ONLY,):
        folder = scratch / str(unit)
        folder.mkdir()
        plan = SessionPlan(package, unit, inputs=inputs, iterations=_ITERATIONS, warm_loads=2)
        result = backend.run_session(device, plan, folder)
        facts = result.as_dict()
        if result.failure is not None:
            yield Step(f"session, {unit}", False, f"{result.failure.code}: {result.failure.detail}", facts)
            return
        yield _measured(unit, result, facts)
        yield _right(unit, result, image)
        yield _placed(unit, result)


def _measured(unit: ComputeUnit, result: SessionResult, facts: dict[str, Any]) -> Step:
    samples = result.samples_ms
    whole = len(samples) == _ITERATIONS and len(result.load_warm_ms) == 2 and min(samples) > 0
    cold = result.load_cold_ms
    said = (
        f"{float(np.median(samples)):.3f} ms in the middle of {len(samples)}" if samples else "no predictions"
    )
    loads = ", ".join(f"{one:.1f}" for one in result.load_warm_ms)
    return Step(
        f"session, {unit}", bool(whole and cold), f"{said}; loads {cold:.1f} ms, then {loads} ms", facts
    )


def _right(unit: ComputeUnit, result: SessionResult, image: np.ndarray) -> Step:
    from fastvlm_ops.core.coreml.parity import compare_outputs

    name = f"outputs, {unit}"
    if result.outputs is None:
        return Step(name, False, "none came back")
    try:
        parity = compare_outputs({"classes": expected(image)}, read_arrays(result.outputs))
    except ArraysError as error:
        return Step(name, False, str(error))
    decibels = parity.psnr_db
    good = decibels is not None and decibels >= _MINIMUM_PSNR_DB
    said = f"PSNR {decibels} dB to what NumPy computes; {_MINIMUM_PSNR_DB:g} is the least"
    return Step(name, good, said, parity.as_dict())


def _placed(unit: ComputeUnit, result: SessionResult) -> Step:
    units = sorted({str(one.unit) for one in result.placement})
    shares = sum(one.cost_share or 0.0 for one in result.placement)
    unknown = [one.operation for one in result.placement if not one.kind]
    allowed = {"cpu"} if unit == ComputeUnit.CPU_ONLY else {"cpu", "ane"}
    good = bool(units) and set(units) <= allowed and not unknown
    said = f"{len(result.placement)} operations on {', '.join(units) or 'nothing'}; costs sum to {shares:.2f}"
    if unknown:
        said += f"; not in the package: {', '.join(unknown)}"
    return Step(f"placement, {unit}", good, said)


def _cleaned(backend: DeviceBackend, device: Device) -> Step:
    from fastvlm_ops.core.coreml.devices.connected import ConnectedDeviceBackend

    if not isinstance(backend, ConnectedDeviceBackend):
        return Step("cleaned up", True, "nothing was put there")
    left = backend.left_behind()
    return Step("cleaned up", not left, left or "the runner is uninstalled, with all that it was sent")


def _failed(name: str, failure: Failure) -> Step:
    return Step(name, False, f"{failure.code}: {failure.detail}")


def build_model(folder: Path) -> Path:
    """Build the model: two convolutions, a mean, a linear layer, a softmax; in half precision.

    :param folder: that takes the package
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools
    from coremltools.converters.mil import Builder

    weights = _weights()
    specs = [Builder.TensorSpec(shape=(1, _COLOURS, _SIDE, _SIDE))]

    @Builder.program(input_specs=specs, opset_version=coremltools.target.iOS16)  # type: ignore[untyped-decorator]
    def program(image: Any) -> Any:
        first = Builder.relu(
            x=Builder.conv(x=image, weight=weights["first"], strides=[2, 2], pad_type="valid")
        )
        second = Builder.relu(x=Builder.conv(x=first, weight=weights["second"], pad_type="valid"))
        mean = Builder.reduce_mean(x=second, axes=[2, 3])
        return Builder.softmax(x=Builder.linear(x=mean, weight=weights["last"]), axis=1, name="classes")

    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS16,
        skip_model_load=True,
    )
    package = folder / "Proof-v1.mlpackage"
    model.save(str(package))
    return package


def expected(image: np.ndarray) -> np.ndarray:
    """Return what the model has to predict.

    :param image: its input
    """
    weights = _weights()
    first = np.maximum(_convolved(image.astype(np.float64), weights["first"], 2), 0)
    second = np.maximum(_convolved(first, weights["second"], 1), 0)
    scores = second.mean(axis=(2, 3)) @ weights["last"].T
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    classes: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return classes


def _weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    shapes = {
        "first": (_CHANNELS, _COLOURS, 4, 4),
        "second": (_CHANNELS, _CHANNELS, 3, 3),
        "last": (_CLASSES, _CHANNELS),
    }
    return {
        name: (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def _convolved(image: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, weight.shape[2:], axis=(2, 3))
    result: np.ndarray = np.einsum("ncijhw,ochw->noij", windows[:, :, ::stride, ::stride], weight)
    return result
