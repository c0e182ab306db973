"""Processes of benchmarks/capacity.py: peers in an environment of their own, ours under a stopwatch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.capacity_data import Tasks
from benchmarks.capacity_peers import PEERS
from benchmarks.running import ROOT

_REQUIREMENTS = ROOT / "benchmarks" / "capacity-peers.txt"
_ENVIRONMENT = ROOT / ".tools" / "capacity-peers"
_INSTALL_SECONDS, _PEER_SECONDS, _SPEED_SECONDS = 900, 3600, 900


class PeerFailedError(Exception):
    """A peer cannot be installed or run."""


@dataclass(frozen=True)
class Forecasts:
    """What a peer gave.

    :param tasks: numbers of the tasks it ran on
    :param paths: their forecasts, tasks x hours
    :param ms: milliseconds of each
    :param versions: of its packages
    """

    tasks: np.ndarray
    paths: np.ndarray
    ms: np.ndarray
    versions: str


@dataclass
class Machine:
    """Runs peers and takes the time of ours.

    :param work: folder for what goes between processes
    """

    work: Path
    single_ms: float = field(default=np.nan, init=False)
    batch_ms: float = field(default=np.nan, init=False)
    a_minute: float = field(default=np.nan, init=False)
    memory_bytes: int = field(default=0, init=False)

    def peer(self, name: str, tasks: Tasks, horizon: int) -> Forecasts:
        """Run a peer on its part of the tasks.

        :raises PeerFailedError: it cannot be installed, or the process failed
        """
        _, packages, step = PEERS[name]
        python = _peers_python() if packages else Path(sys.executable)
        chosen = tasks.every(step)
        source, target = self.work / "tasks.npz", self.work / "forecasts.npz"
        np.savez(source, history=tasks.filled[chosen], horizon=np.array(horizon))
        script = str(ROOT / "benchmarks" / "capacity_peers.py")
        command = [str(python), script, name, str(source), str(target)]
        _run(command, name, _PEER_SECONDS, environment={**os.environ, **_ONE_THREAD})
        with np.load(target) as found:
            return Forecasts(chosen, found["paths"], found["ms"], str(found["versions"]))

    def measure_speed(self, series: int) -> None:
        """Forecast 30 days from 90 days: one process by itself, then two beside each other.

        :param series: in all
        :raises PeerFailedError: a process failed
        """
        alone = json.loads(_run(_worker(series // 10, 20), "ours", _SPEED_SECONDS))
        self.single_ms, self.batch_ms = alone["single_ms"], alone["batch_ms"]
        both = [
            subprocess.Popen(
                _worker(series // 2, 0), stdout=subprocess.PIPE, text=True, env=_our_environment()
            )
            for _ in range(2)
        ]
        outputs = [process.communicate(timeout=_SPEED_SECONDS)[0] for process in both]
        if any(process.returncode for process in both):
            raise PeerFailedError("a process of the measurement of speed failed; its error is above")
        found = [json.loads(output) for output in outputs]
        self.a_minute = 60 * sum(one["series"] for one in found) / max(one["seconds"] for one in found)
        self.memory_bytes = max(one["memory_bytes"] for one in found)


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _our_environment() -> dict[str, str]:
    return {**os.environ, **_ONE_THREAD}


def _worker(series: int, single: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.capacity_worker", str(series), str(single)]


def _peers_python() -> Path:
    """The interpreter of the peers' environment, which is made where it is not there or out of date."""
    python, stamp = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / ".stamp"
    wanted = _REQUIREMENTS.read_text()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise PeerFailedError("there is no uv to install the peers with: run make setup")
    _run([uv, "venv", "--clear", "--python", sys.executable, str(_ENVIRONMENT)], "uv venv", _INSTALL_SECONDS)
    install = [uv, "pip", "install", "--python", str(python), "-r", str(_REQUIREMENTS)]
    _run(install, "uv pip install", _INSTALL_SECONDS)
    stamp.write_text(wanted)
    return python


def _run(command: list[str], name: str, seconds: int, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise PeerFailedError(f"{name} could not be run: it took more than {seconds} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise PeerFailedError(f"{name} could not be run: {last}")
    return done.stdout
