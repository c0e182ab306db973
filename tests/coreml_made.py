"""Runs of Core ML models, made up for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastvlm_ops.core.coreml.devices.interface import (
    Conditions,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
    Placement,
    SessionResult,
)
from fastvlm_ops.core.coreml.epochs import Epoch
from fastvlm_ops.core.coreml.records import RunRecord

START = datetime(2026, 3, 1, 1, tzinfo=UTC)
PHONE = Device("iphone-15-pro", HardwareClass.IPHONE, "iPhone16,1", "18.1", "22B83", "5a17", "00008130-X")
TOOLCHAIN = {"coremltools": "9.0", "xcode": "16.1"}
PLAN = (
    Placement("conv_0", "ios17.conv", "ane", 0.75),
    Placement("gelu_0", "ios17.gelu", "cpu", 0.25),
)
PARITY = {
    "psnr_db": 81.5,
    "cosine": 0.999,
    "max_abs": 0.001,
    "argmax_agree": 1.0,
    "nan": 0,
    "inf": 0,
    "missing": [],
}


def session(index: int, p50_ms: float = 10.0, **changes: Any) -> SessionResult:
    """A session whose samples have this median."""
    made = SessionResult(
        index=index,
        load_cold_ms=200.0,
        load_warm_ms=(50.0, 52.0),
        samples_ms=tuple(p50_ms + step / 10 for step in (-2, -1, 0, 1, 8)),
        peak_memory_bytes=50_000_000,
        conditions=Conditions("nominal", "fair", False, 88.0, True, 30.0),
        placement=PLAN,
        started_at=(START + timedelta(seconds=index)).isoformat(),
    )
    return replace(made, **changes)


def failed_session(index: int, code: FailureCode = FailureCode.APP_CRASHED) -> SessionResult:
    """A session without a result."""
    return SessionResult(index, Failure(code, "the app ended"), started_at=START.isoformat())


def run(
    run_key: str = "coreml_benchmark/night-1",
    *,
    night: int = 0,
    sessions: tuple[SessionResult, ...] | None = None,
    device: Device = PHONE,
    digest: str = "d" * 64,
    **changes: Any,
) -> RunRecord:
    """A run of three sessions."""
    made = RunRecord(
        run_key=run_key,
        device=device.as_dict(),
        model="VisionEncoder",
        version="1.0",
        digest=digest,
        compute_unit="CPU_AND_NE",
        epoch=Epoch.of(device.as_dict(), TOOLCHAIN, "CPU_AND_NE").key,
        hardware_class=str(device.hardware_class),
        sessions=tuple(session(index) for index in range(3)) if sessions is None else sessions,
        parity=PARITY,
        toolchain=TOOLCHAIN,
        started_at=(START + timedelta(days=night)).isoformat(),
    )
    return replace(made, **changes)
