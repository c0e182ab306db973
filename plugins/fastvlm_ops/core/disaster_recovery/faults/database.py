"""The primary database, killed. It comes back as primary, or as standby of the new one: never beside it."""

from __future__ import annotations

from collections.abc import Sequence

from fastvlm_ops.core.disaster_recovery.fault_types import DatabaseFault
from fastvlm_ops.core.disaster_recovery.faults import Record
from fastvlm_ops.core.disaster_recovery.faults.controlling import control_at, is_running
from fastvlm_ops.core.disaster_recovery.faults.signalling import (
    hit_processes,
    kill_all,
    still_stopped,
    wake_all,
)
from fastvlm_ops.core.services.instances import ProcessIdentity, ServiceView


def inject(fault: DatabaseFault, record: Record) -> None:
    """Kill the server with all of its processes.

    :raises FaultError: its process is not the one that was armed
    """
    kill_all(fault.identity.process, record)


def revert(fault: DatabaseFault, hit: Sequence[ProcessIdentity]) -> str:
    """Have it run again: as standby where another is the primary, or should be, even if that one is down."""
    wake_all(hit_processes(fault.identity, hit))
    control = control_at(fault.control)
    view = control.view()
    others = _other_primaries(view, fault.instance)
    if is_running(view, fault.instance):
        if not _is_primary(view, fault.instance) or not others:
            return f"{fault.instance} runs again; nothing had to be done"
        control.stop(fault.instance)
    if others:
        control.rejoin(fault.instance)
        return f"{fault.instance} was made a standby of {others[0]}"
    control.start(fault.instance)
    # A standby may have been promoted between the look and the start.
    if others := _other_primaries(control.view(), fault.instance):
        control.stop(fault.instance)
        control.rejoin(fault.instance)
        return (
            f"{fault.instance} was started, then made a standby of {others[0]}, which had become the primary"
        )
    return f"{fault.instance} was started"


def is_left(fault: DatabaseFault, hit: Sequence[ProcessIdentity]) -> str | None:
    """Return that it does not run, or is a second primary."""
    if stopped := still_stopped(hit_processes(fault.identity, hit)):
        return f"processes are stopped: {', '.join(str(one.pid) for one in stopped)}"
    view = control_at(fault.control).view()
    if not is_running(view, fault.instance):
        return f"{fault.instance} does not run"
    others = _other_primaries(view, fault.instance)
    if others and _is_primary(view, fault.instance):
        return f"there are two primaries: {fault.instance} and {others[0]}"
    return None


def describe(fault: DatabaseFault) -> list[str]:
    """Return the signals and calls in words."""
    return [
        f"SIGSTOP, then SIGKILL, to process {fault.identity.pid} of {fault.instance} and all that it started",
        f"taken back: where another database is the primary by then, make {fault.instance} its standby"
        f" through {fault.control}; else start {fault.instance}",
    ]


def _other_primaries(view: ServiceView, name: str) -> list[str]:
    return [one.name for one in view.of_role("database_primary") if one.name != name]


def _is_primary(view: ServiceView, name: str) -> bool:
    return view.instance(name).role == "database_primary"
