"""From an address to a control."""

from __future__ import annotations

import pytest

from fastvlm_ops.core.services.connecting import connect_control
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.process_control import ProcessControl


def test_a_socket_is_a_supervisor() -> None:
    control = connect_control("unix:/run/control.sock")
    assert isinstance(control, ProcessControl)
    assert control.address == "unix:/run/control.sock"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "unix",
        "unix:",
        "docker:",
        "http://host",
        "/run/control.sock",
        "unix:control.sock",
        "unix:/a\0b",
        "exec:x",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ServiceControlError, match="is no address of a") as caught:
        connect_control(address)
    assert caught.value.retryable is False
