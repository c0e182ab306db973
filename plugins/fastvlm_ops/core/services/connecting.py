"""From the address of a service's control to what controls it."""

from __future__ import annotations

from fastvlm_ops.core.services.control import ServiceControl, ServiceControlError


def connect_control(address: str) -> ServiceControl:
    """Return what controls a service. Nothing is asked yet.

    :param address: ``unix:`` and the path of a control socket, or ``docker:`` and the address of an engine
    :raises ServiceControlError: there is no such kind of address
    """
    kind, separator, rest = address.partition(":")
    if separator and rest and kind == "unix":
        from fastvlm_ops.core.services.process_control import ProcessControl

        return ProcessControl(address)
    if separator and rest and kind == "docker":
        from fastvlm_ops.core.services.docker_control import DockerControl

        return DockerControl(address)
    raise ServiceControlError(
        f"{address!r} is no address of a service's control; expected unix:/path/of/control.sock, or docker:"
        " and the address of a Docker engine"
    )
