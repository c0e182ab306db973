"""A container is stopped or killed. Taken back: it is started.

A container is known by its id, which no other one ever gets, and by when it was started: one that was started
again since the plan was made is not hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvlm_ops.core.disaster_recovery.fault_types import ContainerFault
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError

if TYPE_CHECKING:
    from fastvlm_ops.core.services.docker_control import DockerControl


def inject(fault: ContainerFault) -> None:
    """Stop or kill the container.

    :param fault: what is broken
    :raises ServiceControlError: it is not the one that was armed, or could not be started again
    """
    _control(fault).end_container(fault.identity, fault.how)


def revert(fault: ContainerFault) -> str:
    """Start the container, unless it runs.

    :param fault: what was broken
    :returns: what was done
    :raises FaultError: it was removed, and nothing was made in its place
    """
    control = _control(fault)
    state = control.container(fault.identity)
    if state is None:
        if _made_anew(control, fault):
            return f"container {fault.instance} was made anew: nothing had to be done"
        raise FaultError(
            f"container {fault.instance} ({fault.identity.id[:12]}) was removed and cannot be started; make"
            " it anew, as `docker compose up` does"
        )
    if state.running:
        return f"container {state.name} runs: nothing had to be done"
    control.start_container(fault.identity)
    return f"container {state.name} was started"


def is_left(fault: ContainerFault) -> str | None:
    """Return what is left of the fault: a container that does not run, or is gone.

    :param fault: what was broken
    """
    control = _control(fault)
    state = control.container(fault.identity)
    if state is None:
        gone = f"container {fault.instance} ({fault.identity.id[:12]}) was removed, and there is no other"
        return None if _made_anew(control, fault) else gone
    return None if state.running else f"container {state.name} does not run"


def describe(fault: ContainerFault) -> list[str]:
    """Return what is done to inject it and to take it back.

    :param fault: what is broken
    """
    named = f"{fault.instance} ({fault.identity.id[:12]})"
    return [f"docker {fault.how} container {named}", f"docker start container {named}, unless it runs"]


def _control(fault: ContainerFault) -> DockerControl:
    from fastvlm_ops.core.services.docker_control import DockerControl

    return DockerControl(fault.control)


def _made_anew(control: DockerControl, fault: ContainerFault) -> bool:
    """Whether the service has another container of the same name, which runs."""
    found = [one for one in control.view().instances if one.name == fault.instance]
    return bool(found) and found[0].identity is not None
