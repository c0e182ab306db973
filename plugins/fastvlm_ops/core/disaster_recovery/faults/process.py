"""Processes of an instance that are killed, stopped or restarted."""

from __future__ import annotations

from collections.abc import Sequence

from fastvlm_ops.core.disaster_recovery.fault_types import ProcessFault
from fastvlm_ops.core.disaster_recovery.faults import Record
from fastvlm_ops.core.disaster_recovery.faults.controlling import control_at, is_running
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.faults.signalling import (
    hit_processes,
    kill_all,
    still_stopped,
    stop_all,
    wake_all,
)
from fastvlm_ops.core.services.instances import ProcessIdentity


def inject(fault: ProcessFault, record: Record) -> None:
    """Kill, stop or restart the instance.

    :raises FaultError: its process is not the one that was armed
    """
    leader = fault.identity.process
    if fault.how == "kill":
        kill_all(leader, record)
    elif fault.how == "stop":
        stop_all(leader, record)
    else:
        if not leader.alive:
            raise FaultError(f"process {leader.pid} is not the one that was armed: that one has ended")
        control_at(fault.control).restart(fault.instance)


def revert(fault: ProcessFault, hit: Sequence[ProcessIdentity]) -> str:
    """Let what is stopped go on; after a kill or restart, have the instance started where it does not run."""
    done = wake_all(hit_processes(fault.identity, hit))
    if fault.how == "stop":
        return done
    control = control_at(fault.control)
    if is_running(control.view(), fault.instance):
        return f"{fault.instance} runs again; nothing had to be done"
    control.start(fault.instance)
    return f"{fault.instance} was started"


def is_left(fault: ProcessFault, hit: Sequence[ProcessIdentity]) -> str | None:
    """Return which processes are still stopped, or that the instance does not run."""
    if stopped := still_stopped(hit_processes(fault.identity, hit)):
        return f"processes are stopped: {', '.join(str(one.pid) for one in stopped)}"
    if fault.how == "stop" or is_running(control_at(fault.control).view(), fault.instance):
        return None
    return f"{fault.instance} does not run"


def describe(fault: ProcessFault) -> list[str]:
    """Return the signals and calls in words."""
    who = f"process {fault.identity.pid} of {fault.instance} and all that it started"
    start = f"taken back: start {fault.instance} through {fault.control}, unless it runs by then"
    if fault.how == "kill":
        return [f"SIGSTOP, then SIGKILL, to {who}", start]
    if fault.how == "stop":
        return [f"SIGSTOP to {who}", "taken back: SIGCONT to those very processes"]
    return [f"restart {fault.instance} (process {fault.identity.pid}) through {fault.control}", start]
