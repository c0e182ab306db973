"""The control of the service that a fault hits, and what it says of an instance."""

from __future__ import annotations

from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.services.control import ServiceControl
from fastvlm_ops.core.services.instances import ProcessIdentity, ServiceView


def control_at(address: str) -> ServiceControl:
    """Return the control of a service.

    :param address: as the fault has it
    """
    from fastvlm_ops.core.services.connecting import connect_control

    return connect_control(address)


def is_running(view: ServiceView, name: str) -> bool:
    """Tell whether an instance runs, as the kernel says and not only the service.

    :param view: the service, as it says it is
    :param name: of the instance
    :raises FaultError: the service has none of that name
    """
    try:
        identity = view.instance(name).identity
    except KeyError as error:
        raise FaultError(f"{error.args[0]}; was another service put in its place?") from None
    if isinstance(identity, ProcessIdentity):
        return identity.process.alive
    return identity is not None
