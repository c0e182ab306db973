"""How long faults last, and what is left of them, however their drill dies: ours, and Chaos Toolkit's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.running import ROOT
from fastvlm_ops.core.disaster_recovery.fault_entries import new_entry, read_entry
from fastvlm_ops.core.disaster_recovery.fault_types import ProcessFault
from fastvlm_ops.core.disaster_recovery.holding import arm, inject, release
from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.core.services.instances import ProcessIdentity

REQUIREMENTS = ROOT / "benchmarks" / "disaster-recovery-peers.txt"
ENVIRONMENT = ROOT / ".tools" / "disaster-recovery-peers"
LIVE_SECONDS = 2.0
#: After the time to live, nothing may be left; the reaper waits for a second itself.
FEW_SECONDS = 4.0
_WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.002
_TASK = """
import sys, time
from pathlib import Path
from fastvlm_ops.core.disaster_recovery.holding import inject
inject(Path(sys.argv[1]))
print("injected", flush=True)
if sys.argv[2] == "fail":
    raise RuntimeError("the task fails")
if sys.argv[2] == "wait":
    time.sleep(600)
"""


class PeerFailedError(Exception):
    """The peer cannot be installed or run."""


@dataclass
class Victim:
    """A process that faults stop, watched by its state in /proc all the time.

    :param spans: when it was found stopped, and when it was found running again
    """

    spans: list[list[int]] = field(default_factory=list)

    def __enter__(self) -> Victim:
        self._process = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watcher.join()
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def fault(self) -> ProcessFault:
        """That it hangs."""
        found = process_id(self.pid)
        assert found is not None
        identity = ProcessIdentity.of(found)
        return ProcessFault(how="stop", control="unix:/nowhere", instance="victim", identity=identity)

    @property
    def stopped(self) -> bool:
        """Whether it is stopped now."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat[stat.rindex(")") + 2] == "T"

    def _watch(self) -> None:
        was = False
        while not self._end.wait(_LOOK_SECONDS):
            now = self.stopped
            if now and not was:
                self.spans.append([time.monotonic_ns()])
            elif was and not now:
                self.spans[-1].append(time.monotonic_ns())
            was = now


def ttl_errors(folder: Path, count: int) -> list[float]:
    """Seconds between the end of the time to live and the moment the victim ran again, for each fault."""
    errors = []
    for number in range(count):
        with Victim() as victim:
            file = _armed(folder, f"ttl-{number}", victim)
            inject(file)
            _wait(lambda: bool(victim.spans) and len(victim.spans[-1]) == 2, "a fault's end")
            expires = read_entry(file).expires_monotonic_ns
            assert expires is not None
            errors.append(abs(victim.spans[-1][1] - expires) / 1e9)
    return errors


# -- eight ways to die ----------------------------------------------------------------------------------


def _release_as_teardown(file: Path, supervisor: subprocess.Popen[str]) -> None:
    supervisor.terminate()
    release(file)


def _kill_all(file: Path, supervisor: subprocess.Popen[str]) -> None:
    _kill_session(file, supervisor)
    _kill_holder(file, supervisor)


def _kill_holder(file: Path, _supervisor: subprocess.Popen[str]) -> None:
    holder = read_entry(file).holder
    assert holder is not None
    holder.process.signal(signal.SIGKILL)


def _kill_task(_file: Path, supervisor: subprocess.Popen[str]) -> None:
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
    for child in children.split():
        os.kill(int(child), signal.SIGKILL)


def _kill_session(_file: Path, supervisor: subprocess.Popen[str]) -> None:
    os.killpg(supervisor.pid, signal.SIGKILL)


def _nothing(_file: Path, _supervisor: subprocess.Popen[str]) -> None:
    """Nobody goes on."""


def _freeze(_file: Path, supervisor: subprocess.Popen[str]) -> None:
    os.killpg(supervisor.pid, signal.SIGSTOP)


#: What becomes of a drill once its fault is there → what the task does by itself, and what is done to it.
WAYS: dict[str, tuple[str, Callable[[Path, subprocess.Popen[str]], None]]] = {
    "task fails": ("fail", _nothing),
    "injector dies": ("wait", _kill_holder),
    "task killed": ("wait", _kill_task),
    "task and supervisor killed": ("wait", _kill_session),
    "run marked failed": ("wait", _release_as_teardown),
    "worker gone": ("wait", _kill_all),
    "DAG paused": ("end", _nothing),
    "scheduler stopped": ("wait", _freeze),
}


def left_by_ways(folder: Path) -> dict[str, bool]:
    """Whether a fault is left after its time to live and a few seconds, for each way to die."""
    with _reaper(folder):
        return {name: _is_left(folder, number, name) for number, name in enumerate(WAYS)}


def _is_left(folder: Path, number: int, name: str) -> bool:
    then, happen = WAYS[name]
    with Victim() as victim:
        file = _armed(folder, f"way-{number}", victim)
        task = [sys.executable, "-c", _TASK, str(file), then]
        supervisor = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" & wait $!', "sh", *task],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert supervisor.stdout is not None
            assert supervisor.stdout.readline() == "injected\n"
            assert victim.stopped
            happen(file, supervisor)
            expires = read_entry(file).expires_monotonic_ns
            assert expires is not None
            time.sleep(max(0.0, (expires - time.monotonic_ns()) / 1e9) + FEW_SECONDS)
            return victim.stopped
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(supervisor.pid, signal.SIGKILL)
            supervisor.wait()


def _armed(folder: Path, fault_id: str, victim: Victim) -> Path:
    entry = new_entry(
        fault_id=fault_id, run_key=f"bench/{fault_id}", fault=victim.fault, time_to_live_seconds=LIVE_SECONDS
    )
    return arm(folder, entry)


@contextlib.contextmanager
def _reaper(folder: Path) -> Iterator[None]:
    """The reaper as a service runs it, from when it looks after faults: starting takes it a while."""
    command = [sys.executable, "-m", "fastvlm_ops.cli", "reap-faults", "--drill-dir", str(folder)]
    said = folder / "reaper.log"
    with said.open("wb") as log:
        # An Airflow of its own, and with it an operations database: rows are kept as well.
        environment = {**os.environ, "AIRFLOW_HOME": str(folder / "airflow")}
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(
            lambda: '"event": "started"' in said.read_text() or daemon.poll() is not None,
            "the reaper's start",
        )
        yield
        if daemon.poll() is not None:
            raise RuntimeError(f"the reaper ended: {said.read_text()[-2000:]}")
    finally:
        daemon.terminate()
        daemon.wait(_WAIT_SECONDS)


def _wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was waited for {_WAIT_SECONDS:g} s, and did not come")
        time.sleep(0.01)


# -- Chaos Toolkit ----------------------------------------------------------------------------------------


def left_by_chaos_toolkit(work: Path) -> tuple[str, bool]:
    """Name and version of the peer, and whether its fault is left where its process is killed while the fault
    is there, after as long as ours may take.

    :param work: for its files
    :raises PeerFailedError: it cannot be installed or run
    """
    python = _peers_python()
    experiment = work / "experiment.json"
    with Victim() as victim:
        experiment.write_text(json.dumps(_experiment(victim.pid)))
        log = work / "chaos-toolkit.log"
        with log.open("wb") as output:
            chaos = subprocess.Popen(
                [str(python.parent / "chaos"), "--no-version-check", "run", str(experiment)],
                cwd=work,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + _WAIT_SECONDS
            while not victim.stopped:
                if chaos.poll() is not None or time.monotonic() > deadline:
                    raise PeerFailedError(f"Chaos Toolkit injected nothing: {log.read_text()[-500:]}")
                time.sleep(0.02)
            os.killpg(chaos.pid, signal.SIGKILL)
            time.sleep(LIVE_SECONDS + FEW_SECONDS)
            return _version(python), victim.stopped
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(chaos.pid, signal.SIGKILL)
            chaos.wait()


def _experiment(pid: int) -> dict[str, object]:
    def send(name: str, number: int) -> dict[str, object]:
        arguments = ["-s", signal.Signals(number).name.removeprefix("SIG"), str(pid)]
        provider = {"type": "process", "path": shutil.which("kill"), "arguments": arguments}
        return {"type": "action", "name": name, "provider": provider}

    stop: dict[str, object] = {**send("stop the process", signal.SIGSTOP), "pauses": {"after": 600}}
    return {
        "title": "A process hangs",
        "description": "The same fault as ours.",
        "method": [stop],
        "rollbacks": [send("let the process go on", signal.SIGCONT)],
        "runtime": {"rollbacks": {"strategy": "always"}},
    }


def _peers_python() -> Path:
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".stamp"
    wanted = REQUIREMENTS.read_text()
    if python.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise PeerFailedError("there is no uv to install Chaos Toolkit with: run make setup")
    for command in (
        [uv, "venv", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        [uv, "pip", "install", "--python", str(python), "-r", str(REQUIREMENTS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise PeerFailedError(f"Chaos Toolkit cannot be installed: {last}")
    stamp.write_text(wanted)
    return python


def _version(python: Path) -> str:
    code = "from importlib.metadata import version; print(version('chaostoolkit-lib'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return f"Chaos Toolkit {done.stdout.strip()}"
