"""This Linux machine as a device: ML programs run through ONNX Runtime.

It is no Apple hardware. What it tells holds for parity and for relative timing on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastvlm_ops.core.coreml.devices.interface import (
    BackendKind,
    ComputeUnit,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
    Placement,
    SessionPlan,
    SessionResult,
)
from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run

_PACKAGES = ("coremltools", "onnx", "onnxruntime")
_SESSION = "fastvlm_ops.core.coreml.reference.session"
_KEPT = (
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
)  # what else is in the environment is no session's business
_SOURCES = Path(__file__).resolve().parents[4]


class LinuxReferenceBackend:
    """Runs sessions on this machine, each in a process of its own.

    :param name: of the device, as in ``coreml.yaml``
    :param threads: of ONNX Runtime; with one, what else the machine does disturbs its times least
    """

    kind = BackendKind.LINUX_REFERENCE

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self._name = name
        self._threads = threads

    @property
    def toolchain(self) -> dict[str, str]:
        """Versions of what reads, translates and runs the model."""
        return {package: _version(package) or "missing" for package in _PACKAGES}

    def discover(self) -> Device | Failure:
        """Return this machine, where it is one that can run models."""
        if platform.system() != "Linux":
            detail = f"the Linux reference runs on Linux, this is {platform.system()}"
            return Failure(FailureCode.NO_TOOLCHAIN, detail)
        missing = [package for package in _PACKAGES if _version(package) is None]
        if missing:
            detail = f"{', '.join(missing)} is not installed: install fastvlm-ops[coreml]"
            return Failure(FailureCode.NO_TOOLCHAIN, detail)
        processor = _processor()
        build = hashlib.sha256(f"{platform.version()} {processor} {os.cpu_count()}".encode()).hexdigest()[:12]
        return Device(self._name, HardwareClass.LINUX_REFERENCE, processor, platform.release(), build)

    def preflight(self, device: Device) -> Failure | None:
        """A machine is always fit: what it tells does not depend on its temperature or charge."""
        return None

    def run_session(self, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        """Run one session.

        Times are of single precision. Outputs are of the precision that the compute unit implies: the CPU
        computes in single precision, the other units round what the program types as half precision.

        :param scratch: an empty folder of the session's own
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        outputs = scratch / "outputs.npz"
        order = {
            "do": "session",
            "package": str(plan.package),
            "inputs": str(plan.inputs) if plan.inputs else None,
            "warm_up": plan.warm_up,
            "iterations": plan.iterations,
            "warm_loads": plan.warm_loads,
            "outputs": str(outputs) if plan.want_outputs else None,
            "precision": "fp32" if plan.compute_unit is ComputeUnit.CPU_ONLY else "fp16-rounded",
            "threads": self._threads,
        }
        found = _carry_out(order, scratch, plan.timeout_seconds)
        if isinstance(found, Failure):
            return SessionResult(0, failure=found, started_at=started)
        return SessionResult(
            0,
            load_cold_ms=found["load_cold_ms"],
            load_warm_ms=tuple(found["load_warm_ms"]),
            samples_ms=tuple(found["samples_ms"]),
            peak_memory_bytes=found["peak_memory_bytes"],
            placement=_everything_on_the_cpu(found["operations"]) if plan.want_placement else (),
            outputs=outputs if plan.want_outputs else None,
            started_at=started,
        )

    def clean_up(self, device: Device) -> None:
        """There is nothing to do: a session's process ends with it, its files are in its scratch folder."""

    def take_turns(
        self, accepted: Path, candidate: Path, *, blocks: int, iterations: int, timeout_seconds: float
    ) -> list[tuple[float, float]] | Failure:
        """Time two models against each other in one process, in turns.

        On a shared machine this tells 5 % apart where times of separate sessions do not tell 20 %.
        """
        order = {
            "do": "turns",
            "packages": [str(accepted), str(candidate)],
            "blocks": blocks,
            "iterations": iterations,
            "threads": self._threads,
        }
        with TemporaryDirectory(prefix="coreml-turns-") as folder:
            found = _carry_out(order, Path(folder), timeout_seconds)
        return found if isinstance(found, Failure) else [(one, other) for one, other in found["pairs"]]


def _carry_out(order: Mapping[str, Any], scratch: Path, timeout_seconds: float) -> dict[str, Any] | Failure:
    """Have a process do it, which is killed with all it started where it takes too long."""
    report = scratch / "report.json"
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment["PYTHONPATH"] = str(_SOURCES)
    environment["TMPDIR"] = str(scratch)  # so that what a killed process leaves goes with it
    arguments = [sys.executable, "-m", _SESSION, json.dumps({**order, "report": str(report)})]
    try:
        run(arguments, name="the session", environment=environment, timeout_seconds=timeout_seconds)
    except ProgramTimeoutError as error:
        return Failure(FailureCode.TIMED_OUT, str(error))
    except ProgramError as error:
        last = error.output.strip().splitlines()[-1:]
        return Failure(FailureCode.APP_CRASHED, ": ".join([str(error), *last]))
    found: dict[str, Any] = json.loads(report.read_text())
    if "failure" in found:
        return Failure(FailureCode(found["failure"]["code"]), found["failure"]["detail"])
    return found


def _everything_on_the_cpu(operations: list[tuple[str, str, float | None]]) -> tuple[Placement, ...]:
    """An operation's share of the cost is its share of the arithmetic."""
    return tuple(Placement(name, kind, "cpu", share) for name, kind, share in operations)


def _processor() -> str:
    """Name of the processor; its kind where Linux does not tell the name."""
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
