"""A TCP link that is disturbed."""

from __future__ import annotations

from fastvlm_ops.core.disaster_recovery.fault_types import LinkFault
from fastvlm_ops.core.disaster_recovery.faults.controlling import control_at
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError


def inject(fault: LinkFault) -> None:
    """Disturb the link."""
    control_at(fault.control).disturb(fault.link, fault.disturbance, latency_ms=fault.latency_ms)


def revert(fault: LinkFault) -> str:
    """Have the link pass everything on."""
    control_at(fault.control).soothe(fault.link)
    return f"the link {fault.link} passes everything on"


def is_left(fault: LinkFault) -> str | None:
    """Return how the link is disturbed.

    :raises FaultError: the service does not say
    """
    view = control_at(fault.control).view()
    if fault.link not in view.links:
        raise FaultError(f"the service has no link {fault.link!r}; was another service put in its place?")
    if view.disturbed is None:
        raise FaultError("the service does not say which of its links are disturbed")
    disturbance = view.disturbed.get(fault.link)
    return None if disturbance is None else f"the link {fault.link} is disturbed: {disturbance}"


def describe(fault: LinkFault) -> list[str]:
    """Return the calls in words."""
    how = f"{fault.disturbance} of {fault.latency_ms} ms" if fault.latency_ms else fault.disturbance
    return [
        f"disturb the link {fault.link} through {fault.control}: {how}",
        f"taken back: let the link {fault.link} pass everything on",
    ]
