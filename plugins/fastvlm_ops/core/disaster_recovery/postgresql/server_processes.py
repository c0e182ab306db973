"""The processes of a server on this machine, found by its data folder: every one of them works in it.

Each leads a session of its own, so neither a session nor a process group tells who belongs to a server. Its
lock file does not tell either whether it runs: a postmaster that was killed keeps its number, as a zombie,
until whoever started it has waited for it, and the lock file looks held for as long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.programs.proc import ProcessId, process_id

LOCK_FILE = "postmaster.pid"
_PROC = Path("/proc")


def server_processes(data: Path) -> list[ProcessId]:
    """Return the processes that run in a data folder: the postmaster and all it started, also those that
    outlived it.

    :param data: the data folder
    """
    wanted = _place(data)
    if wanted is None:
        return []
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _place(entry / "cwd") == wanted and _is_server(entry):
            one = process_id(int(entry.name))
            if one is not None and one.alive:
                found.append(one)
    return found


def postmaster_of(data: Path) -> ProcessId | None:
    """Return the postmaster that runs in a data folder; None where none does, whatever its lock file says.

    :param data: the data folder
    """
    number = _locked_by(data)
    leader = process_id(number) if number is not None else None
    if leader is None or not leader.alive or _place(_PROC / str(leader.pid) / "cwd") != _place(data):
        return None
    return leader


def kill_server(data: Path, *, patience_seconds: float = 10) -> list[ProcessId]:
    """Kill every process of a server with SIGKILL, as a power cut would; returns those that were hit.

    :param data: its data folder
    :param patience_seconds: until all are gone
    :raises DatabaseError: some stay
    """
    postmaster = postmaster_of(data)
    if postmaster is not None:
        postmaster.signal(signal.SIGSTOP)  # else it could start one that is not seen
    hit: dict[int, ProcessId] = {}
    deadline = time.monotonic() + patience_seconds
    while members := server_processes(data):
        for one in sorted(members, key=lambda one: one != postmaster):
            # The postmaster first: it would take the death of another for a crash, and recover.
            if one.signal(signal.SIGKILL):
                hit[one.pid] = one
        if time.monotonic() > deadline:
            numbers = ", ".join(str(one.pid) for one in members)
            raise DatabaseError(f"{data}: the processes {numbers} do not end, though they were killed")
        time.sleep(0.01)
    return list(hit.values())


def clear_stale_lock(data: Path) -> bool:
    """Remove the lock file of a server that no longer runs; False where there is none.

    :param data: its data folder
    :raises DatabaseError: processes of the server still run
    """
    alive = server_processes(data)
    if alive:
        numbers = ", ".join(str(one.pid) for one in alive)
        raise DatabaseError(f"{data} is still used by the processes {numbers}; stop the server first")
    with contextlib.suppress(FileNotFoundError):
        (data / LOCK_FILE).unlink()
        return True
    return False


def _locked_by(data: Path) -> int | None:
    try:
        first = (data / LOCK_FILE).read_text().partition("\n")[0].strip()
    except OSError:
        return None
    return int(first) if first.isdigit() else None


def _place(folder: Path) -> tuple[int, int] | None:
    """A folder, whatever it is called; None where it is not there, or is not ours to look at."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_server(process: Path) -> bool:
    """Whether a process is one of PostgreSQL, and not a shell that somebody has opened in its folder."""
    try:
        return (process / "comm").read_text().strip() in {"postgres", "postmaster"}
    except OSError:
        return False
