"""Arms a fault, has its holder inject it, and has it taken back: what the tasks of a drill call.

All three can be called again, by a task that is retried or by another one.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.detached import start_detached
from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    LockBusyError,
    entry_file,
    locked,
    make_folder,
    read_entry,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError, FaultError
from fastvlm_ops.core.disaster_recovery.taking_back import close, take_back
from fastvlm_ops.core.programs.proc import ProcessId, marked

#: In the environment of a holder: the file of its entry.
HOLDER_MARKER = "FASTVLM_OPS_FAULT"
#: Asks a holder to take its fault back.
RELEASE = signal.SIGUSR1
_POLL_SECONDS = 0.02
_SPAWN_SECONDS = 30
_AFTER_KILL_SECONDS = 5
#: How long after its end a holder may take to take a fault back, if only it runs: a database may be copied.
_SLOW_SECONDS = 400.0


def arm(drill_dir: Path, entry: FaultEntry) -> Path:
    """Write the entry of a fault, and touch nothing else.

    :param drill_dir: of this machine
    :param entry: as :func:`fault_entries.new_entry` makes it
    :returns: its file
    :raises EntryError: it cannot be written, or another fault has this id
    """
    make_folder(drill_dir)
    file = entry_file(drill_dir, entry.fault_id)
    with locked(file, _SPAWN_SECONDS):
        if not os.path.lexists(file):
            write_entry(file, entry)
            return file
        found = read_entry(file)
    same = ("run_key", "host", "fault", "time_to_live_seconds")
    if any(getattr(found, name) != getattr(entry, name) for name in same):
        raise EntryError(f"{file} is the entry of another fault; every drill needs a fault id of its own")
    return file


def inject(file: Path, patience_seconds: float = 60) -> FaultEntry:
    """Have a fault injected by a holder of its own, which outlives this process.

    :param file: of its entry, which has to be armed
    :param patience_seconds: how long it may take
    :returns: the entry, injected
    :raises FaultError: it was not injected, or it is not known; release it in any case
    """
    deadline = time.monotonic() + patience_seconds
    entry = read_entry(file)
    if entry.is_closed:
        raise FaultError(f"the fault {entry.fault_id} {_closed(entry)}; a new run is needed for a new one")
    if entry.state == "armed":
        _spawn(file)
    while entry.state != "injected":
        if time.monotonic() > deadline:
            raise FaultError(
                f"the fault {entry.fault_id} was not injected within {patience_seconds:g} s"
                f" (state {entry.state}); see {file.with_suffix('.log')}"
            )
        if entry.state == "injecting" and not (entry.holder and entry.holder.process.alive):
            raise FaultError(f"the holder of the fault {entry.fault_id} died while it injected it")
        time.sleep(_POLL_SECONDS)
        entry = read_entry(file)
        if entry.is_closed:
            raise FaultError(
                f"the fault {entry.fault_id} could not be injected, or not for long: {_closed(entry)}"
            )
    return entry


def release(file: Path, patience_seconds: float = 60) -> FaultEntry:
    """Have a fault taken back: by its holder, else by this process.

    :param file: of its entry
    :param patience_seconds: how long it may take
    :returns: the entry, closed: ``undone``, or ``never_injected``, and then it never will be
    :raises FaultError: something of it may be left; the message says what
    """
    deadline = time.monotonic() + patience_seconds
    entry = _read_or_ask(file, deadline)
    if entry.state == "armed":
        entry = _disarm(file, patience_seconds)
    if not entry.is_closed and entry.holder is not None and entry.holder.process.signal(RELEASE):
        entry = _wait_until_closed(file, entry.holder.process, time.monotonic() + patience_seconds / 2)
    return entry if entry.is_closed else _take_over(file, entry, deadline)


def holders(file: Path) -> list[ProcessId]:
    """Return the living holders of an entry, whatever has become of its file."""
    return list(marked(HOLDER_MARKER, str(file.absolute())))


def _closed(entry: FaultEntry) -> str:
    if entry.state == "never_injected":
        return f"was called off at {entry.undone_at}"
    why = f": {entry.problem}" if entry.problem else ""
    return f"was taken back at {entry.undone_at} ({entry.undone_by}){why}"


def _spawn(file: Path) -> None:
    try:
        start_detached(
            "fastvlm_ops.core.disaster_recovery.holder",
            file,
            log=file.with_suffix(".log"),
            environment={HOLDER_MARKER: str(file.absolute())},
        )
    except DrillError as error:
        raise FaultError(str(error)) from error


def _read_or_ask(file: Path, deadline: float) -> FaultEntry:
    try:
        return read_entry(file)
    except EntryError:
        # A holder knows what it holds without its file, and writes that anew when it has taken it back.
        asked = [one for one in holders(file) if one.signal(RELEASE)]
        while asked and time.monotonic() < deadline and any(one.alive for one in asked):
            time.sleep(_POLL_SECONDS)
        if not asked:
            raise
        return read_entry(file)


def _disarm(file: Path, patience_seconds: float) -> FaultEntry:
    with locked(file, patience_seconds):
        entry = read_entry(file)
        if entry.state == "armed":
            entry = close(entry, "task", "it was never injected")
            write_entry(file, entry)
    return entry


def _wait_until_closed(file: Path, holder: ProcessId, deadline: float) -> FaultEntry:
    while True:
        alive = holder.alive
        entry = read_entry(file)
        if entry.is_closed or not alive or time.monotonic() > deadline:
            return entry
        time.sleep(_POLL_SECONDS)


def _take_over(file: Path, entry: FaultEntry, deadline: float) -> FaultEntry:
    try:
        return _take_back_locked(file, max(0.0, deadline - time.monotonic()))
    except LockBusyError:
        entry = read_entry(file)
        if not end_hanging_holder(entry):
            message = f"the fault {entry.fault_id} is being taken back by another process, and not yet gone"
            raise FaultError(message, retryable=True) from None
    return _take_back_locked(file, _AFTER_KILL_SECONDS)


def end_hanging_holder(entry: FaultEntry) -> bool:
    """Kill a holder that has the lock of its fault and does nothing; returns whether it was killed.

    :param entry: of the fault
    """
    if entry.holder is None:
        return False
    late = -(entry.seconds_left or 0.0)
    hangs = entry.holder.process.stopped or late > _SLOW_SECONDS
    return hangs and entry.holder.process.signal(signal.SIGKILL)


def _take_back_locked(file: Path, patience_seconds: float) -> FaultEntry:
    with locked(file, patience_seconds):
        entry = read_entry(file)
        if not entry.is_closed:
            entry = take_back(file, entry, "task")
    if not entry.is_closed:
        message = f"the fault {entry.fault_id} could not be taken back: {entry.problem}"
        raise FaultError(message, retryable=True)
    return entry
