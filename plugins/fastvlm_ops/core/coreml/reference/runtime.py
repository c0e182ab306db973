"""ONNX Runtime, told to keep what it runs to itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

#: Official builds report sessions, models and errors to their maker, and this one switch stops all of it. It
#: is read when the library is loaded, and holds for the process.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


def load_runtime() -> Any:
    """Import ONNX Runtime without its telemetry. Nothing else here imports it."""
    os.environ.update(QUIET)
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where somebody else imported it before
    return onnxruntime


def open_session(file: Path, threads: int | None) -> Any:
    """Make an ONNX model ready to run on the CPU.

    :param file: of the model
    :param threads: as many as it chooses where None
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the cores
    if threads is not None:
        options.intra_op_num_threads = threads
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
