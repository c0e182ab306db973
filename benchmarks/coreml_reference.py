"""The Linux reference beside PyTorch, which both models come from: `make bench-coreml-reference`.

An image encoder with the size and operations of FastViTHD, and a text transformer, with random weights, are
converted by coremltools from torch in an environment of its own (.tools/coreml-torch). The reference runs the
packages; its outputs are compared with torch's, and its times with torch's on as many threads, in turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.figures import RESULTS, Figure, figures_table, write_figures, write_json
from benchmarks.running import ROOT, say
from fastvlm_ops.core.coreml.devices.interface import ComputeUnit, Device, SessionPlan
from fastvlm_ops.core.coreml.devices.linux_reference import LinuxReferenceBackend

THREADS = 2
LARGEST_DIFFERENCE = 100.0  # millionths: 1e-4
TARGET_RATIO = 0.6
_SCRIPT = ROOT / "benchmarks" / "coreml_torch.py"
_REQUIREMENTS = ROOT / "benchmarks" / "coreml-torch.txt"
_ENVIRONMENT = ROOT / ".tools" / "coreml-torch"
_INSTALL_SECONDS, _CONVERT_SECONDS, _TIME_SECONDS = 1800, 1200, 900


class TorchUnavailableError(Exception):
    """torch cannot be installed or run here."""


class ReferenceFailedError(Exception):
    """The reference gave no result."""


@dataclass
class Measured:
    """What was measured of a model.

    :param name: of it
    :param difference: largest of the outputs, in millionths
    :param ours: milliseconds of the reference's predictions
    :param torch: milliseconds of torch's
    :param load_ms: of the reference
    :param memory_bytes: of the reference, the peak
    """

    name: str
    difference: float = float("nan")
    ours: list[float] = field(default_factory=list)
    torch: list[float] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    memory_bytes: int = 0


def main() -> int:
    """Convert, run and compare both models, and write what that gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="edge of the encoder's image")
    parser.add_argument("--length", type=int, default=256, help="of the decoder's text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="predictions of a round")
    parser.add_argument("--results", type=Path, default=RESULTS / "coreml-reference.json")
    arguments = parser.parse_args()
    sizes = {"encoder": arguments.size, "decoder": arguments.length}
    scratch = ROOT / ".pytest_cache" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    measured = [Measured(name) for name in sizes]
    version, problem = "", ""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            python = torch_python()
            version = _run([str(python), "-c", "import torch; print(torch.__version__)"], 120).strip()
            for one in measured:
                _measure(python, one, sizes[one.name], Path(folder), arguments)
        except TorchUnavailableError as error:
            problem = str(error)
            say(f"torch could not be run: {problem}")
    figures = figures_of(measured, sizes, f"torch {version}" if version else f"torch: {problem}")
    write_figures(figures, arguments.results)
    details = {"sizes": sizes, "torch": version, "models": [vars(one) for one in measured]}
    write_json(details, arguments.results.parent / "details" / arguments.results.name)
    print(figures_table(figures))
    return 0


def figures_of(measured: list[Measured], sizes: dict[str, int], peer: str) -> list[Figure]:
    """Parity of both models, and the time of either beside torch's; only the encoder's has to be short."""
    names = {
        "encoder": f"image encoder, {sizes['encoder']} pixels",
        "decoder": f"text transformer, {sizes['decoder']} tokens",
    }
    parity = [
        Figure(
            f"{names[one.name]}: largest difference from torch",
            one.difference,
            "millionths",
            LARGEST_DIFFERENCE,
            None if one.torch else peer,  # which then says why there is nothing to compare with
        )
        for one in measured
    ]
    times = [
        Figure(
            f"{names[one.name]}: a prediction on {THREADS} threads",
            statistics.median(one.ours) if one.ours else float("nan"),
            "ms",
            TARGET_RATIO if one.name == "encoder" else 1.0,
            peer,
            statistics.median(one.torch) if one.torch else None,
        )
        for one in measured
    ]
    return [*parity, *times]


def _measure(python: Path, one: Measured, size: int, work: Path, arguments: argparse.Namespace) -> None:
    folder = work / one.name
    folder.mkdir()
    say(f"{one.name}: converting it from torch")
    _run([str(python), str(_SCRIPT), "convert", one.name, str(size), str(folder)], _CONVERT_SECONDS)
    backend = LinuxReferenceBackend("linux-reference", threads=THREADS)
    device = backend.discover()
    if not isinstance(device, Device):
        raise ReferenceFailedError(device.detail)
    plan = SessionPlan(
        folder / "model.mlpackage",
        ComputeUnit.CPU_ONLY,
        inputs=folder / "inputs.npz",
        warm_up=1,
        iterations=arguments.iterations,
        warm_loads=0,
        timeout_seconds=_TIME_SECONDS,
    )
    for number in range(arguments.rounds):
        command = [str(python), str(_SCRIPT), "time", one.name, str(size), str(folder)]
        one.torch += json.loads(_run([*command, str(arguments.iterations)], _TIME_SECONDS).splitlines()[-1])
        session = folder / f"session-{number}"
        session.mkdir()
        result = backend.run_session(device, plan, session)
        if result.failure is not None or result.outputs is None:
            raise ReferenceFailedError(result.failure.detail if result.failure else "no outputs")
        one.ours += result.samples_ms
        one.load_ms.append(result.load_cold_ms or 0.0)
        one.memory_bytes = max(one.memory_bytes, result.peak_memory_bytes or 0)
        one.difference = 1e6 * _largest_difference(folder / "outputs.npz", result.outputs)
        medians = statistics.median(one.ours), statistics.median(one.torch)
        say(f"{one.name}, round {number + 1}: {medians[0]:.1f} ms, torch {medians[1]:.1f} ms")


def _largest_difference(expected: Path, found: Path) -> float:
    with np.load(expected) as wanted, np.load(found) as given:
        return float(max(np.abs(wanted[name] - given[name]).max() for name in wanted.files))


def torch_python() -> Path:
    """The interpreter of torch's environment, which is made where it is not there or out of date.

    :raises TorchUnavailableError: it cannot be made
    """
    python, stamp = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / ".stamp"
    wanted = _REQUIREMENTS.read_text()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    say("installing torch and coremltools into .tools/coreml-torch")
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], _INSTALL_SECONDS)
    # By pip and not uv, which does not look where pip is told to find wheels.
    _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(_REQUIREMENTS)], _INSTALL_SECONDS)
    stamp.write_text(wanted)
    return python


def _run(command: list[str], seconds: int) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TorchUnavailableError(f"{Path(command[0]).name} could not be run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TorchUnavailableError(last)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
