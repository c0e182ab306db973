"""Services in a real Docker engine: how they are seen, what they can be told, and faults of containers.

The engine, the image and every container are made here; nothing is pulled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.disaster_recovery.fault_entries import new_entry, read_entry
from fastvlm_ops.core.disaster_recovery.fault_types import ContainerFault
from fastvlm_ops.core.disaster_recovery.faults import container as container_faults
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.holding import arm, inject
from fastvlm_ops.core.services import docker_control
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.docker_control import DockerControl
from fastvlm_ops.core.services.instances import ContainerIdentity, Instance, Marker
from tests.docker_engine import IMAGE, DockerEngine, NoEngineError

pytestmark = pytest.mark.integration

#: Ends when it is told to; healthy while /tmp/healthy is there.
OBEDIENT = "trap 'exit 0' TERM; touch /tmp/healthy; while :; do sleep 60 & wait; done"
#: Has to be killed.
DEAF = "trap '' TERM; touch /tmp/healthy; while :; do sleep 60; done"
#: The same, and healthy from its first start alone: /dev/shm is made anew for each.
ONCE = f"test -e /tmp/healthy || touch /dev/shm/healthy; {DEAF}"
CHECKED = {
    "test": ["CMD", "/bin/busybox", "sh", "-c", "test -e /tmp/healthy || { echo no model; exit 1; }"],
    "interval": int(0.3e9),
    "timeout": int(10e9),
    "retries": 1,
}
CHECKED_ONCE = CHECKED | {"test": ["CMD", "/bin/busybox", "test", "-e", "/dev/shm/healthy"]}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    before = mounts()
    try:
        with DockerEngine() as started:
            yield started
            members, folder = started.members(), started.folder
            assert members
    except NoEngineError as reason:
        pytest.skip(f"no Docker engine can be started here: {reason}")
    assert not [one for one in members if one.alive]
    assert not started.cgroups()
    assert not folder.exists()
    assert mounts() == before


def mounts() -> list[str]:
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if "/engine-" in line]


@pytest.fixture(scope="module")
def client(engine: DockerEngine) -> Iterator[Any]:
    with contextlib.closing(engine.client()) as client:
        yield client


class Service:
    """A service of its own: containers of one name in the label."""

    def __init__(self, engine: DockerEngine, client: Any) -> None:
        self.name = f"demo-{next(_numbers)}"
        self.client = client
        self.address = engine.address(self.name)
        self.control = DockerControl(self.address, stop_seconds=1)

    def add(self, name: str, script: str = OBEDIENT, **options: Any) -> Any:
        """Start a container."""
        container = self.create(name, script, **options)
        container.start()
        return container

    def create(self, name: str, script: str = OBEDIENT, *, role: str = "replica", **options: Any) -> Any:
        """Make a container that does not run."""
        labels = {
            docker_control.SERVICE_LABEL: self.name,
            docker_control.ENVIRONMENT_LABEL: "staging",
            docker_control.URL_LABEL: "http://127.0.0.1:8080",
            docker_control.ROLE_LABEL: role,
        } | options.pop("labels", {})
        return self.client.containers.create(
            IMAGE,
            ["/bin/busybox", "sh", "-c", script],
            name=f"{name}-{self.name}",
            network_mode="none",
            labels=labels,
            **options,
        )

    def instance(self, container: Any) -> Instance:
        return self.control.view().instance(container.name)

    def wait(self, container: Any, holds: Callable[[Instance], bool]) -> Instance:
        deadline = time.monotonic() + 20
        while not holds(found := self.instance(container)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def fault(self, container: Any, how: str) -> ContainerFault:
        container.reload()
        identity = ContainerIdentity(id=container.id, started=container.attrs["State"]["StartedAt"])
        return ContainerFault(how=how, control=self.address, instance=container.name, identity=identity)

    def remove(self) -> None:
        """Remove its containers."""
        label = f"{docker_control.SERVICE_LABEL}={self.name}"
        for one in self.client.containers.list(all=True, ignore_removed=True, filters={"label": label}):
            one.remove(force=True)


@pytest.fixture
def service(engine: DockerEngine, client: Any) -> Iterator[Service]:
    service = Service(engine, client)
    yield service
    service.remove()


@pytest.fixture(scope="module")
def lasting(engine: DockerEngine, client: Any) -> tuple[Service, Any]:
    service = Service(engine, client)
    return service, service.add("replica", restart_policy={"Name": "always"})


@pytest.fixture
def replica(lasting: tuple[Service, Any]) -> tuple[Service, Any]:
    """A service with one container, which runs; the same one for all tests that leave it."""
    service, container = lasting
    if not runs(container):
        container.start()
    return service, container


def runs(container: Any) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Running"])


def test_a_service_is_seen_as_its_containers_say(service, engine, client):
    replica = service.add("replica", healthcheck=CHECKED)
    database = service.create("database", role="database_primary")
    stranger = Service(engine, client)
    stranger.create("replica")
    healthy = service.wait(replica, lambda one: one.healthy is True)
    view = service.control.view()
    stranger.remove()
    assert view.marker == Marker(service=service.name, environment="staging")
    assert (view.url, view.links) == ("http://127.0.0.1:8080", ())
    assert [(one.name, one.role) for one in view.instances] == [
        (database.name, "database_primary"),
        (replica.name, "replica"),
    ]
    assert healthy.identity == service.fault(replica, "kill").identity
    assert (view.instance(database.name).identity, view.instance(database.name).healthy) == (None, False)
    replica.exec_run(["/bin/busybox", "rm", "/tmp/healthy"])
    assert "no model" in service.wait(replica, lambda one: one.healthy is False).detail


def test_containers_are_stopped_started_and_restarted_by_their_names(service):
    obedient = service.add("obedient")
    deaf = service.add("deaf", ONCE, restart_policy={"Name": "always"}, healthcheck=CHECKED_ONCE)
    first = service.wait(deaf, lambda one: one.healthy is True)
    for one in (obedient, deaf):
        service.control.stop(one.name)
        service.control.stop(one.name)
        assert not runs(one)
    gone = service.instance(deaf)
    assert (gone.identity, gone.healthy) == (None, False)
    assert "exit code 137" in gone.detail
    service.control.start(deaf.name)
    service.control.start(deaf.name)
    again = service.instance(deaf)
    assert again.healthy is not True  # what was found before the restart says nothing of it
    assert again.identity is not None
    assert again.identity.id == first.identity.id
    assert again.identity != first.identity
    service.control.restart(deaf.name)
    assert service.instance(deaf).identity not in (None, again.identity)
    with pytest.raises(
        ServiceControlError, match=rf"no container 'replica-9'; it has deaf-.*, {obedient.name}"
    ):
        service.control.stop("replica-9")


def test_a_paused_container_is_unhealthy_and_goes_on(replica):
    service, paused = replica
    for go_on in (service.control.start, service.control.restart):
        paused.pause()
        assert (service.instance(paused).healthy, service.instance(paused).detail) == (False, "paused")
        go_on(paused.name)
        assert (service.instance(paused).healthy, service.instance(paused).detail) == (
            None,
            "has no HEALTHCHECK",
        )


def test_containers_that_do_not_agree_on_their_environment_are_refused(service):
    service.create("one")
    other = service.create("two", labels={docker_control.ENVIRONMENT_LABEL: "production"})
    with pytest.raises(ServiceControlError, match=rf"environment: one-.* staging, {other.name} production"):
        service.control.view()
    other.remove(force=True)
    silent = service.create("three", labels={docker_control.ENVIRONMENT_LABEL: ""})
    with pytest.raises(ServiceControlError, match=rf"{silent.name} \(nothing\)"):
        service.control.view()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_fault_ends_a_container_and_is_taken_back(replica, how):
    service, container = replica
    fault = service.fault(container, how)
    assert container_faults.is_left(fault) is None
    container_faults.inject(fault)
    assert not runs(container)
    assert "does not run" in (container_faults.is_left(fault) or "")
    assert "started" in container_faults.revert(fault)
    assert runs(container)
    started = container.attrs["State"]["StartedAt"]
    assert "runs" in container_faults.revert(fault)
    container.reload()
    assert container.attrs["State"]["StartedAt"] == started
    assert container_faults.is_left(fault) is None
    assert container.name in " ".join(container_faults.describe(fault))


def test_a_container_that_was_started_again_since_it_was_armed_is_not_hit(replica):
    service, container = replica
    fault = service.fault(container, "kill")
    container.restart(timeout=1)
    with pytest.raises(ServiceControlError, match=r"was started at .* make a new plan"):
        container_faults.inject(fault)
    assert runs(container)
    container.stop(timeout=1)
    with pytest.raises(ServiceControlError, match="does not run"):
        container_faults.inject(service.fault(container, "kill"))


def test_a_container_of_another_service_is_not_touched(replica, engine):
    service, container = replica
    fault = service.fault(container, "kill").model_copy(update={"control": engine.address("another")})
    for act in (container_faults.inject, container_faults.revert, container_faults.is_left):
        with pytest.raises(ServiceControlError, match="is not touched"):
            act(fault)
    assert runs(container)


def test_a_container_that_would_be_removed_at_its_end_is_not_hit(service):
    container = service.add("replica", auto_remove=True)
    with pytest.raises(ServiceControlError, match="--rm"):
        container_faults.inject(service.fault(container, "kill"))
    assert runs(container)


def test_a_container_that_was_removed_is_left_until_another_has_its_name(service):
    container = service.add("replica")
    service.create("witness")
    fault = service.fault(container, "kill")
    container_faults.inject(fault)
    container.remove()
    assert "was removed" in (container_faults.is_left(fault) or "")
    with pytest.raises(FaultError, match="make it anew"):
        container_faults.revert(fault)
    made_anew = service.add("replica")
    assert container_faults.is_left(fault) is None
    assert "made anew" in container_faults.revert(fault)
    assert runs(made_anew)


def test_the_owner_of_a_fault_starts_the_container_when_its_time_is_over(replica, tmp_path):
    service, container = replica
    fault = service.fault(container, "kill")
    entry = new_entry(fault_id=service.name, run_key="drill/1", fault=fault, time_to_live_seconds=1)
    file = arm(tmp_path / "drills", entry)
    assert inject(file, 30).state == "injected"
    deadline = time.monotonic() + 15
    while not read_entry(file).is_closed:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (read_entry(file).undone_by, runs(container)) == ("time_to_live", True)
    assert container.attrs["State"]["StartedAt"] != fault.identity.started


def test_a_process_that_dies_by_itself_is_started_again_and_is_another(replica):
    service, container = replica
    first = service.instance(container).identity
    # From outside: what `docker kill` ends is not started again, for the engine takes it as asked for.
    os.kill(process_of(container), signal.SIGKILL)
    again = service.wait(container, lambda one: one.identity not in (None, first))
    assert again.identity.id == first.id


def process_of(container: Any) -> int:
    """Return the number, here, of a container's first process: the engine has numbers of its own."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            here, name = Path("/proc", entry), container.id.encode()
            of_it = name in (here / "cgroup").read_bytes()
            if of_it and b"/tmp/healthy" in (here / "cmdline").read_bytes():
                return int(entry)
    raise AssertionError(f"{container.name} has no process")


def test_an_engine_that_hangs_is_given_up_in_time(replica, engine):
    service, container = replica
    members = engine.members()
    for one in members:
        one.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(ServiceControlError, match="did not answer") as raised:
            DockerControl(service.address, timeout_seconds=0.5).view()
        assert raised.value.retryable
        assert time.monotonic() - begun < 5
    finally:
        for one in members:
            one.signal(signal.SIGCONT)
    assert service.instance(container).identity is not None
