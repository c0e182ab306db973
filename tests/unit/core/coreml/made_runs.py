"""Runs made for the tests: sessions with given medians on a made-up phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.devices.interface import (
    Conditions,
    Device,
    Failure,
    HardwareClass,
    Placement,
    SessionResult,
)
from fastvlm_ops.core.coreml.epochs import Epoch
from fastvlm_ops.core.coreml.records import RunRecord

PHONE = Device("phone", HardwareClass.IPHONE, "iPhone16,1", "18.1", "22B83", identifier_hash="a1")
TOOLCHAIN = {"coremltools": "9.0", "xcode": "16.1"}
PARITY: dict[str, Any] = {"psnr_db": 55.0, "nan": 0, "inf": 0, "missing": []}
INSPECTION: dict[str, Any] = {
    "size_bytes": 4_000_000,
    "flops": 1e9,
    "compression": {"constexpr_affine_dequantize": 40},
    "compressed_share": 0.98,
}


def noisy(
    seed: int, count: int, noise: float = 0.03, *, around: float = 10.0, slow: float = 0.0
) -> list[float]:
    """Values of sessions; a share of them, rounded, a quarter slower."""
    generator = np.random.default_rng(seed)
    values = around * np.exp(generator.normal(0, noise, count))
    values[generator.permutation(count)[: round(slow * count)]] *= 1.25
    return [float(value) for value in values]


def session(index: int, median_ms: float, **options: Any) -> SessionResult:
    """A session that went well: its predictions are a little scattered around the median."""
    samples = tuple(median_ms * factor for factor in (0.98, 0.99, 1.0, 1.01, 1.05))
    filled = {"load_cold_ms": 40 * median_ms, "load_warm_ms": (4 * median_ms,), "samples_ms": samples}
    return SessionResult(index, **{**filled, **options})


def run(medians: Sequence[float], **options: Any) -> RunRecord:
    """A run whose sessions have these medians, and load in proportion to them."""
    device: Device = options.pop("device", PHONE)
    toolchain = options.pop("toolchain", TOOLCHAIN)
    placement: tuple[Placement, ...] = options.pop("placement", ())
    conditions = options.pop("conditions", Conditions())
    sessions = tuple(
        session(index, value, placement=placement, conditions=conditions)
        for index, value in enumerate(medians)
    )
    filled: dict[str, Any] = {
        "run_key": "night",
        "device": device.as_dict(),
        "model": "VisionEncoder",
        "version": "2",
        "digest": "d2",
        "compute_unit": "CPU_AND_NE",
        "epoch": Epoch.of(device.as_dict(), toolchain, "CPU_AND_NE").key,
        "hardware_class": str(device.hardware_class),
        "sessions": sessions,
        "parity": PARITY,
        "inspection": INSPECTION,
        "toolchain": toolchain,
    }
    return RunRecord(**{**filled, **options})


def failed(index: int, code: Any, detail: str = "what happened") -> SessionResult:
    """A session that gave nothing."""
    return SessionResult(index, failure=Failure(code, detail))
