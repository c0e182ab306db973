"""The process that owns a fault: ``python -m fastvlm_ops.core.disaster_recovery.holder <file of the entry>``.

It injects the fault, and takes it back when it is asked to, when it gets a signal that would end it, and when
the time to live is over. It is nobody's child and in a session of its own, so that it outlives the task, the
worker and the scheduler; against SIGKILL there is the reaper.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastvlm_ops.core.disaster_recovery import faults
from fastvlm_ops.core.disaster_recovery.detached import leave
from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    UndoneBy,
    locked,
    read_entry,
    this_host,
    this_namespace,
    timestamp,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError, FaultError
from fastvlm_ops.core.disaster_recovery.holding import RELEASE
from fastvlm_ops.core.disaster_recovery.taking_back import explained, take_back
from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.core.services.instances import ProcessIdentity

_SIGNALS = frozenset({RELEASE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LOCK_SECONDS = 10
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_TRY_SECONDS = 900
_PRIORITY = -5


def main(arguments: Sequence[str]) -> int:
    """Hold one fault.

    :param arguments: the file of its entry
    :returns: 0 when the fault was injected and taken back; 1 when it was refused or something is left of it
    """
    if len(arguments) != 1:
        sys.stderr.write("expected the file of one entry\n")
        return 2
    # Before anything is touched: a signal that comes meanwhile waits until the fault can be taken back.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    leave()
    _hurry()
    try:
        return _hold(Path(arguments[0]))
    except FaultError as error:
        _say("refused", problem=str(error))
        return 1


def _hurry() -> None:
    """Ask for the processor before others: a busy machine must not make faults last longer."""
    with contextlib.suppress(OSError):  # not everybody may
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)


def _hold(file: Path) -> int:
    with locked(file, _LOCK_SECONDS):
        entry = read_entry(file)
        _check(entry)
        entry, by = _inject(file, entry)
    if by is None:
        by = _wait(entry)
    _say("taking_back", fault_id=entry.fault_id, by=by)
    return _take_back(file, entry, by)


def _check(entry: FaultEntry) -> None:
    """:raises EntryError: the fault may not be injected, or not here"""
    if entry.state != "armed":
        raise EntryError(
            f"the fault {entry.fault_id} is not armed but {entry.state}; it is not injected again"
        )
    here = (this_host(), this_namespace())
    if (entry.host, entry.namespace) != here or not entry.of_this_boot:
        raise EntryError(
            f"the fault {entry.fault_id} was armed on {entry.host} (boot {entry.boot}, {entry.namespace}),"
            f" not here, on {here[0]}, in this boot and container: its processes and files are others"
        )


def _inject(file: Path, entry: FaultEntry) -> tuple[FaultEntry, UndoneBy | None]:
    """Inject under the lock; returns the entry, and by whom the fault has to be taken back at once."""
    me = process_id(os.getpid())
    assert me is not None  # noqa: S101 - this process is there
    now = time.monotonic_ns()
    live = timedelta(seconds=entry.time_to_live_seconds)
    entry = entry.changed(
        state="injecting",
        holder=ProcessIdentity.of(me),
        fault_at=timestamp(),
        fault_monotonic_ns=now,
        expires_at=timestamp(live),
        expires_monotonic_ns=now + round(entry.time_to_live_seconds * 1e9),
    )
    write_entry(file, entry)

    def record(hit: Sequence[ProcessIdentity]) -> None:
        nonlocal entry
        entry = entry.changed(hit=tuple(hit))
        write_entry(file, entry)

    try:
        # Anew: forcing the entry to the disk takes time, in which nothing is broken.
        entry = entry.changed(fault_at=timestamp(), fault_monotonic_ns=time.monotonic_ns())
        faults.inject(entry.fault, record)
        entry = entry.changed(state="injected", injected_monotonic_ns=time.monotonic_ns())
        write_entry(file, entry)
    except Exception as error:
        # Of whatever kind: what is there of it has to be taken back.
        _say("not_injected", fault_id=entry.fault_id, problem=explained(error))
        return entry.changed(problem=explained(error)), "holder"
    _say("injected", fault_id=entry.fault_id, time_to_live_seconds=entry.time_to_live_seconds)
    return entry, None


def _wait(entry: FaultEntry) -> UndoneBy:
    """Wait until the fault has to be taken back; returns why."""
    while (left := entry.seconds_left or 0.0) > 0:
        caught = signal.sigtimedwait(_SIGNALS, left)
        if caught is not None:
            return "holder" if caught.si_signo == RELEASE else "signal"
    return "time_to_live"


def _take_back(file: Path, entry: FaultEntry, by: UndoneBy) -> int:
    deadline = time.monotonic() + _TRY_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            with locked(file, pause):
                entry = _newest(file, entry)
                if not entry.is_closed:
                    entry = take_back(file, entry, by)
        except EntryError as error:
            _say("trouble", fault_id=entry.fault_id, problem=str(error))
        else:
            if entry.is_closed:
                _say("taken_back", fault_id=entry.fault_id, by=entry.undone_by, how=entry.undone_how)
                return 0
            _say("left", fault_id=entry.fault_id, problem=entry.problem)
        if time.monotonic() > deadline:
            return 1  # the reaper goes on, and says so
        signal.sigtimedwait(_SIGNALS, pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _newest(file: Path, entry: FaultEntry) -> FaultEntry:
    """Return the entry as it is by now; as this process knows it, where the file was damaged or removed."""
    try:
        newest = read_entry(file)
    except EntryError as error:
        problem = f"the entry was damaged while the fault was held, and is written anew: {error}"
        _say("damaged", fault_id=entry.fault_id, problem=problem)
        return entry.changed(problem=problem)
    # A problem that is not written yet: of the injection.
    return newest if newest.problem or not entry.problem else newest.changed(problem=entry.problem)


def _say(event: str, **facts: Any) -> None:
    sys.stderr.write(json.dumps({"at": timestamp(), "event": event, **facts}) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
