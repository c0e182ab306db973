"""What Linux says about processes, from /proc. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


class UnsupportedSystemError(Exception):
    """Processes are found in /proc, which only Linux has."""


@dataclass(frozen=True)
class ProcessId:
    """One process, not merely its number, which another process can get later.

    :param pid: its number
    :param started: clock ticks from boot to its start
    :param boot: id of the boot that it lives in
    """

    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        state = _stat(self.pid)
        return (
            state is not None and state.started == self.started and self.boot == boot_id() and state.running
        )

    @property
    def stopped(self) -> bool:
        """Whether it still runs, but was stopped by a signal and waits for SIGCONT."""
        state = _stat(self.pid)
        return self.alive and state is not None and state.stopped

    def signal(self, number: int) -> bool:
        """Signal this very process; False where it is gone.

        :param number: as in ``signal.SIGTERM``
        """
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        # The handle holds on to the process that has the number now: what is checked is what gets the signal.
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


@dataclass(frozen=True)
class _Stat:
    running: bool
    stopped: bool
    parent: int
    session: int
    started: int


def boot_id() -> str:
    """Return the id of this boot.

    :raises UnsupportedSystemError: not on Linux
    """
    if not sys.platform.startswith("linux"):
        raise UnsupportedSystemError("Linux is needed: processes are found in /proc")
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def process_id(pid: int) -> ProcessId | None:
    """Return the process that has a number now; None where there is none."""
    state = _stat(pid)
    return ProcessId(pid, state.started, boot_id()) if state else None


def session_members(leader: ProcessId) -> Iterator[ProcessId]:
    """Yield the processes of a session: the leader and what it started, less what left for another session.

    :param leader: of the session. Where it is gone, its number may be another session's by now: nothing is
        yielded then, and the marker in the environment has to find what is left.
    """
    if not leader.alive:
        return
    for pid in _pids():
        state = _stat(pid)
        if state and state.running and state.session == leader.pid:
            yield ProcessId(pid, state.started, leader.boot)


def family(leader: ProcessId) -> list[ProcessId]:
    """Return the processes of a session, and all that they started, also what left for a session of its own,
    as each process of a PostgreSQL server does. The leader comes first, parents before their children.

    :param leader: of the session; nothing is returned where it is gone
    """
    if not leader.alive:
        return []
    states = {pid: state for pid in _pids() if (state := _stat(pid)) and state.running}
    found = [leader.pid, *(pid for pid, state in states.items() if state.session == leader.pid)]
    for pid in found:  # which grows
        found += [other for other, state in states.items() if state.parent == pid and other not in found]
    unique = dict.fromkeys(found)
    return [ProcessId(pid, states[pid].started, leader.boot) for pid in unique if pid in states]


def marked(name: str, value: str) -> Iterator[ProcessId]:
    """Yield the processes that were started with an environment variable set to a value, less this one."""
    wanted = os.fsencode(f"{name}={value}")
    for pid in _pids():
        if pid == os.getpid() or not (found := process_id(pid)):
            continue
        with contextlib.suppress(OSError):
            if wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0") and found.alive:
                yield found


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold any character, these included.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(
        running=fields[0] not in "ZX",
        stopped=fields[0] == "T",
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
    )
