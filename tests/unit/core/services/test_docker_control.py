"""Addresses of services in Docker, and what an engine's answers say of health and ports."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from fastvlm_ops.core.services.connecting import connect_control
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.docker_control import DockerControl, _address, _health

ADDRESS = "docker:unix:///var/run/docker.sock?service=demo"
CHECK = {"Start": "2026-12-01T02:45:31Z", "End": "2026-12-01T02:45:31.9646Z", "ExitCode": 0, "Output": ""}
#: As an engine of version 20.10 answers, but for what does not matter.
STATE = {
    "Status": "running",
    "Running": True,
    "Paused": False,
    "Restarting": False,
    "ExitCode": 0,
    "Error": "",
    "StartedAt": "2026-12-01T02:45:30.831499652Z",
    "Health": {"Status": "healthy", "FailingStreak": 0, "Log": [CHECK]},
}


def test_an_address_names_an_engine_and_a_service():
    control = connect_control(ADDRESS)
    assert isinstance(control, DockerControl)
    assert control.address == ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "unix:///var/run/docker.sock?service=demo",
        "docker:tcp://10.0.0.1:2375?service=demo",
        "docker:unix://host/var/run/docker.sock?service=demo",
        "docker:unix:///var/run/docker.sock",
        "docker:unix:///var/run/docker.sock?service=",
        "docker:unix:///var/run/docker.sock?service=demo&service=other",
        "docker:unix:///var/run/docker.sock?service=demo&all=1",
        "docker:unix:///var/run/docker.sock?service=demo#part",
    ],
)
def test_other_addresses_are_refused_with_what_is_expected(address):
    with pytest.raises(ServiceControlError, match=r"docker:unix:///var/run/docker\.sock"):
        DockerControl(address)


def test_an_engine_that_is_not_there_is_named(tmp_path: Path):
    control = DockerControl(f"docker:unix://{tmp_path}/none.sock?service=demo")
    with pytest.raises(ServiceControlError, match=r"none\.sock did not answer") as raised:
        control.view()
    assert raised.value.retryable


@pytest.mark.parametrize(
    "act",
    [
        lambda control: control.disturb("replica-1", "latency", latency_ms=5),
        lambda control: control.soothe("replica-1"),
        lambda control: control.promote("database-2"),
        lambda control: control.rejoin("database-1"),
    ],
)
def test_what_containers_cannot_do_is_refused(act):
    with pytest.raises(ServiceControlError, match="containers of a Docker engine are only started") as raised:
        act(DockerControl(ADDRESS))
    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("change", "healthy", "detail"),
    [
        ({}, True, ""),
        ({"Paused": True}, False, "paused"),
        ({"Health": None}, None, "has no HEALTHCHECK"),
        ({"Health": {"Status": "none", "Log": None}}, None, "has no HEALTHCHECK"),
        ({"Health": {"Status": "starting", "Log": []}}, None, "was not checked since it was started"),
        ({"Health": {"Status": "healthy", "Log": []}}, None, "was not checked since it was started"),
        # Was started again: what was found before says nothing.
        ({"StartedAt": "2026-12-01T02:45:32Z"}, None, "was not checked since it was started"),
        ({"StartedAt": "2026-12-01T04:45:32+02:00"}, None, "was not checked since it was started"),
        (
            {"Health": {"Status": "unhealthy", "Log": [CHECK | {"ExitCode": 1, "Output": "no model\n"}]}},
            False,
            "unhealthy: no model",
        ),
        ({"Running": False, "Status": "exited", "ExitCode": 137}, False, "exited, exit code 137"),
        ({"Restarting": True, "Status": "restarting", "ExitCode": 1}, False, "restarting, exit code 1"),
        (
            {"Running": False, "Status": "created", "ExitCode": 127, "Error": "no such program"},
            False,
            "created, exit code 127: no such program",
        ),
    ],
)
def test_health_is_what_was_found_since_the_start(change, healthy, detail):
    assert _health(copy.deepcopy(STATE) | change) == (healthy, detail)


@pytest.mark.parametrize(
    ("ports", "address"),
    [
        (None, None),
        ({}, None),
        ({"8000/tcp": None}, None),
        ({"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]}, "127.0.0.1:32768"),
        (
            {
                "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1"}],
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "2"}],  # noqa: S104 - as an engine says it
            },
            "127.0.0.1:2",
        ),
        ({"80/tcp": [{"HostIp": "::", "HostPort": "2"}]}, "127.0.0.1:2"),
    ],
)
def test_an_address_is_the_lowest_port_that_is_published(ports, address):
    assert _address({"NetworkSettings": {"Ports": ports}}) == address
