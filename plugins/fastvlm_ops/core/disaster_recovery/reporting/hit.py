"""What a fault hits, in words for people."""

from __future__ import annotations

from pathlib import PurePosixPath

from fastvlm_ops.core.disaster_recovery.fault_types import (
    ContainerFault,
    DatabaseFault,
    DiskFault,
    Fault,
    FileFault,
    LinkFault,
    ProcessFault,
)

_PROCESS = {"kill": "killed (SIGKILL)", "stop": "stopped (SIGSTOP)", "restart": "restarted"}
_DISTURBED = {
    "latency": "is slow",
    "reset": "resets every connection",
    "black_hole": "passes nothing on",
    "refuse": "refuses connections",
}
_FILE = {"corrupt": "altered", "truncate": "cut to its half", "delete": "deleted"}


def describe_hit(fault: Fault | None) -> str:
    """Return what a fault does, in a few words, as in ``process of replica-1 killed (SIGKILL)``.

    :param fault: None where nothing is broken
    """
    match fault:
        case None:
            return "nothing is broken"
        case ProcessFault():
            return f"process of {fault.instance} {_PROCESS[fault.how]}"
        case ContainerFault():
            return f"container of {fault.instance} {'killed' if fault.how == 'kill' else 'stopped'}"
        case DatabaseFault():
            return f"database {fault.instance} killed (SIGKILL)"
        case LinkFault():
            slow = f" by {fault.latency_ms} ms" if fault.disturbance == "latency" else ""
            return f"link {fault.link} {_DISTURBED[fault.disturbance]}{slow}"
        case FileFault():
            what = fault.path or f"all of {PurePosixPath(fault.place).name}"
            return f"{what} {_FILE[fault.how]}"
        case DiskFault():
            return f"disk {fault.mount} {'filled' if fault.how == 'full' else 'made read-only'}"


def hit_facts(fault: Fault | None) -> list[tuple[str, str]]:
    """Return what was hit, as facts with their names; empty where nothing was.

    :param fault: of the plan
    """
    if fault is None:
        return []
    found = [("Fault", describe_hit(fault))]
    plain = fault.model_dump(mode="json")
    identity = plain.get("identity")
    if isinstance(identity, dict):
        told = ", ".join(f"{name} {value}" for name, value in identity.items() if name != "kind")
        found.append(("Hit", f"{identity.get('kind', 'process')} {told}"))
    for name in ("place", "path", "mount", "control"):
        if plain.get(name):
            found.append((name.capitalize(), str(plain[name])))
    return found
