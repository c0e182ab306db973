"""Starts processes so that they can all be stopped later, by another process and after a crash too.

Each gets a session of its own, and is recorded in a state file with its start time. All of them, and what
they start, carry a variable in their environment that names the state folder: it finds those that left
their session, and those that a crash kept from being recorded. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.programs.proc import ProcessId, marked, process_id, session_members

MARKER = "FASTVLM_OPS_DEMO_STATE"


class ProcessStartError(Exception):
    """A process ended when it should have started."""


@dataclass(frozen=True)
class Process:
    """A process that was started here.

    :param name: what it is to people
    :param id: the leader of its session
    :param log: file that its output goes to
    """

    name: str
    id: ProcessId
    log: Path

    def check(self) -> None:
        """Check that it still runs.

        :raises ProcessStartError: it does not; the message ends with the end of its log
        """
        if not self.id.alive:
            raise ProcessStartError(f"{self.name} has ended; the end of {self.log}:\n{tail(self.log)}")


class Processes:
    """The processes of one state folder.

    :param folder: the state folder, which must exist
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.file = self.folder / "state.json"
        self._handles: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
        die_with_parent: bool = False,
    ) -> Process:
        """Start a process in a session of its own and record it.

        :param name: what it is to people; the same name again replaces the record
        :param arguments: program and arguments
        :param environment: the whole of it, but for the marker
        :param log: file that its output is added to
        :param folder: that it runs in; the state folder unless given
        :param die_with_parent: whether the kernel kills it when this process ends, however that happens
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        if die_with_parent and (setpriv := shutil.which("setpriv")):
            arguments = [setpriv, "--pdeathsig", "KILL", *arguments]
        with log.open("ab") as output:
            handle = subprocess.Popen(
                [str(argument) for argument in arguments],
                env={**environment, MARKER: str(self.folder)},
                cwd=folder or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._handles[handle.pid] = handle
        identity = process_id(handle.pid)
        if identity is None:  # cannot be: a child stays, as a zombie at least, until it is waited for
            raise ProcessStartError(f"{name} could not be started")
        process = Process(name, identity, log)
        self._record(process)
        return process

    def wait(self, process: Process) -> int:
        """Wait until a process that was started by this object ends, and return its exit code."""
        return self._handles[process.id.pid].wait()

    def recorded(self) -> list[Process]:
        """Return the processes in the state file, whether they run or not."""
        return [
            Process(entry["name"], ProcessId(**entry["id"]), Path(entry["log"]))
            for entry in self.read().get("processes", [])
        ]

    def read(self) -> dict[str, Any]:
        """Return what the state file holds; nothing where there is none.

        Nothing too where it is broken: the marker still finds all processes, and `make down` must not fail.
        """
        try:
            state = json.loads(self.file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def note(self, **facts: Any) -> None:
        """Write facts into the state file; it is replaced in one step, and is readable by its owner only."""
        with self._alone():
            self._write(self.read() | facts)

    def note_outside(self, folder: Path) -> None:
        """Record a folder outside this one, to be removed when all is stopped.

        :param folder: made by what was started
        """
        with self._alone():
            state = self.read()
            self._write(state | {"outside": sorted({*state.get("outside", []), str(folder)})})

    def outside(self) -> list[Path]:
        """Return the folders outside this one that were recorded."""
        return [Path(folder) for folder in self.read().get("outside", [])]

    def alive(self) -> list[ProcessId]:
        """Return all processes of this folder that run: recorded ones, what they started, and stray ones."""
        found: dict[int, ProcessId] = {}
        for process in self.recorded():
            found |= {member.pid: member for member in session_members(process.id)}
        found |= {member.pid: member for member in marked(MARKER, str(self.folder))}
        found.pop(os.getpid(), None)
        return list(found.values())

    def stop(self, *, patience_seconds: float = 10) -> list[ProcessId]:
        """Stop all of them: SIGTERM, then SIGKILL for those that stay.

        :param patience_seconds: between the two; 0 for SIGKILL at once
        :returns: those that could not be stopped
        """
        if patience_seconds:
            # One SIGTERM each: a second one tells some programs to hurry, and they leave a mess.
            asked: set[int] = set()
            deadline = time.monotonic() + patience_seconds
            while (alive := self.alive()) and time.monotonic() < deadline:
                _signal((one for one in alive if one.pid not in asked), signal.SIGTERM)
                asked |= {one.pid for one in alive}
                self.reap()
                time.sleep(0.1)
        deadline = time.monotonic() + 10
        while (alive := self.alive()) and time.monotonic() < deadline:
            _signal(alive, signal.SIGKILL)
            self.reap()
            time.sleep(0.05)
        self.reap()
        if not alive:
            self.file.unlink(missing_ok=True)
            self.file.with_suffix(".lock").unlink(missing_ok=True)
        return alive

    def _record(self, process: Process) -> None:
        entry = {"name": process.name, "id": asdict(process.id), "log": str(process.log)}
        with self._alone():
            state = self.read()
            others = [other for other in state.get("processes", []) if other["name"] != process.name]
            self._write(state | {"processes": [*others, entry]})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A supervisor that was started here records what it starts in the same file."""
        with self.file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, state: dict[str, Any]) -> None:
        temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(state, indent=1))
        temporary.replace(self.file)

    def reap(self) -> None:
        """Take note of those that were started by this object and have ended, so that no zombie stays."""
        for handle in self._handles.values():
            handle.poll()


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, which may be absent."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""


def _signal(processes: Iterable[ProcessId], number: int) -> None:
    for process in processes:
        with contextlib.suppress(PermissionError):
            process.signal(number)
