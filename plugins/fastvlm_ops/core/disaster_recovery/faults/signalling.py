"""Signals all processes of an instance, by what they are and not by their numbers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence

from fastvlm_ops.core.disaster_recovery.faults import Record
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.programs.proc import ProcessId, family
from fastvlm_ops.core.services.instances import ProcessIdentity

_STOP_SECONDS = 2.0
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.001


def stop_all(leader: ProcessId, record: Record) -> list[ProcessId]:
    """Stop a process and all that it started, so that none is left out that is just being started.

    :param leader: stopped first, so that it starts no more
    :param record: gets the others before they are stopped
    :returns: all of them
    :raises FaultError: the leader is gone, its number may be another's; or this process would stop itself
    """
    members = family(leader)
    if leader.pid == 1 or {os.getpid(), os.getppid()} & {one.pid for one in members}:
        raise FaultError(f"process {leader.pid} is what this program itself runs under; it is not touched")
    if not leader.signal(signal.SIGSTOP):
        raise FaultError(
            f"process {leader.pid} is not the one that was armed: that one has ended. Nothing was touched"
        )
    known = {leader: None}
    deadline = time.monotonic() + _STOP_SECONDS
    while True:
        # One that still ran when the others were listed may have started another after that.
        settled = all(one.stopped or not one.alive for one in known)
        new = [one for one in family(leader) if one not in known]
        if new:
            known.update(dict.fromkeys(new))
            record([ProcessIdentity.of(one) for one in known])
            _signal(new, signal.SIGSTOP)
        elif settled or time.monotonic() > deadline:
            return list(known)
        else:
            time.sleep(_POLL_SECONDS)


def kill_all(leader: ProcessId, record: Record) -> None:
    """Kill a process and all that it started, at one moment for whoever talks to them.

    :raises FaultError: as :func:`stop_all`; or one does not die
    """
    processes = stop_all(leader, record)
    _signal(processes, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS
    while alive := [one.pid for one in processes if one.alive]:
        if time.monotonic() > deadline:
            raise FaultError(f"killed processes do not end: {', '.join(map(str, alive))}", retryable=True)
        time.sleep(_POLL_SECONDS)


def wake_all(processes: Sequence[ProcessId]) -> str:
    """Let processes go on that are stopped; returns what was done."""
    stopped = still_stopped(processes)
    _signal(stopped, signal.SIGCONT)
    gone = sum(not one.alive for one in processes)
    return f"SIGCONT to {len(stopped)} of {len(processes)} processes ({gone} have ended)"


def still_stopped(processes: Iterable[ProcessId]) -> list[ProcessId]:
    """Return those that are stopped."""
    return [one for one in processes if one.stopped]


def hit_processes(leader: ProcessIdentity, hit: Sequence[ProcessIdentity]) -> list[ProcessId]:
    """Return the leader and the others that were hit, each once."""
    return list(dict.fromkeys(one.process for one in (leader, *hit)))


def _signal(processes: Iterable[ProcessId], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.signal(number)
        except PermissionError:
            raise FaultError(
                f"process {process.pid} belongs to another user; {number.name} is refused"
            ) from None
