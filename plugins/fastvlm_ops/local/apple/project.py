"""The Xcode project of the ModelRunner, which coremltools ships on macOS only: an empty one here."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.local.apple.state import State


def project_folder() -> Path:
    """Return a folder with a workspace that the stand-in's xcodebuild takes."""
    folder = State.of_environment().folder / "modelrunner"
    (folder / "ModelRunner.xcworkspace").mkdir(parents=True, exist_ok=True)
    return folder
