"""A stand-in for Apple's toolchain and devices, for tests and the demo on Linux."""

from fastvlm_ops.local.apple.script import (
    AppleScript,
    Fault,
    FaultKind,
    ScriptedDevice,
    Timing,
)
from fastvlm_ops.local.apple.toolchain import AppleToolchain

__all__ = ["AppleScript", "AppleToolchain", "Fault", "FaultKind", "ScriptedDevice", "Timing"]
