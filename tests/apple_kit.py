"""A small ML program, and a device at the stand-in for Apple's toolchain."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.devices.checks import Signing
from fastvlm_ops.core.coreml.devices.connected import ConnectedDeviceBackend
from fastvlm_ops.core.coreml.devices.interface import ComputeUnit, Device, SessionPlan, SessionResult
from fastvlm_ops.local.apple import AppleScript, AppleToolchain

TEAM = "ABCDE12345"


def build_package(folder: Path, name: str = "Tiny-v1") -> Path:
    """Write a package: a linear layer, a split and a sum, and a look-up; float and integer inputs."""
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    weight = np.arange(32, dtype=np.float32).reshape(4, 8) / 32
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    specs = [Builder.TensorSpec(shape=(1, 8)), Builder.TensorSpec(shape=(1,), dtype=types.int32)]

    @Builder.program(input_specs=specs, opset_version=coremltools.target.iOS17)
    def program(x: Any, token: Any) -> Any:
        left, right = Builder.split(x=Builder.linear(x=x, weight=weight), num_splits=2, axis=1)
        found = Builder.gather(x=table, indices=token, axis=0)
        return Builder.add(x=Builder.add(x=left, y=right), y=found, name="out")

    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )
    package = folder / f"{name}.mlpackage"
    model.save(str(package))
    return package


@dataclass
class Bench:
    """A device at a stand-in toolchain, and how it is measured.

    :param folder: of all of it
    :param package: that is run
    """

    folder: Path
    package: Path
    _sessions: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.toolchain = AppleToolchain(self.folder / "apple")

    def backend(self, script: AppleScript | None = None, **more: Any) -> ConnectedDeviceBackend:
        """Return a backend; the script is played from here on."""
        self.toolchain.install(script)
        values = {"signing": Signing(team=TEAM), "builds": self.folder / "builds", **more}
        return ConnectedDeviceBackend("iphone", environment=self.environment(), **values)

    def environment(self) -> dict[str, str]:
        """Return the environment of the toolchain's programs."""
        return {**os.environ, **self.toolchain.install(self.toolchain.state.script)}

    def run(self, backend: Any, device: Device | None = None, **more: Any) -> SessionResult:
        """Run a session, quickly."""
        found = device or backend.discover()
        assert isinstance(found, Device), found
        scratch = self.folder / f"session-{len(self._sessions)}"
        scratch.mkdir()
        self._sessions.append(scratch)
        values = {"warm_up": 1, "iterations": 2, "timeout_seconds": 120, "answer_timeout_seconds": 60, **more}
        unit = values.pop("compute_unit", ComputeUnit.CPU_AND_NE)
        plan = SessionPlan(values.pop("package", self.package), unit, **values)
        return backend.run_session(found, plan, scratch)
