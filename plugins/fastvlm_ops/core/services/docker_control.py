"""Services that run as containers of a Docker engine, by the labels of these containers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from fastvlm_ops.core.services.control import Disturbance, ServiceControlError
from fastvlm_ops.core.services.instances import ContainerIdentity, Instance, Marker, Role, ServiceView

PREFIX = "docker:"
SERVICE_LABEL = "fastvlm.ops/service"
ENVIRONMENT_LABEL = "fastvlm.ops/environment"
ROLE_LABEL = "fastvlm.ops/role"
URL_LABEL = "fastvlm.ops/url"
#: Followed by the name of the place; the value is its folder on the engine's host.
PLACE_LABEL = "fastvlm.ops/place/"
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - what an engine says, not what is listened on


@dataclass(frozen=True)
class ContainerState:
    """A container at one moment.

    :param identity: its id, and when it was last started
    :param name: of its instance
    :param running: whether its process is there, paused or not
    :param removed_at_end: whether the engine removes it when it ends, so that it cannot be started again
    """

    identity: ContainerIdentity
    name: str
    running: bool
    removed_at_end: bool


class DockerControl:
    """A service whose instances are containers; an instance is named as its container is.

    :param address: ``docker:unix://<socket of the engine>?service=<name>``
    :param timeout_seconds: for one answer of the engine
    :param stop_seconds: that a container has to end by itself before it is killed
    :raises ServiceControlError: the address is not such a one
    """

    def __init__(self, address: str, *, timeout_seconds: float = 10, stop_seconds: int = 10) -> None:
        self._address = address
        self._engine_url, self._service = _parse(address)
        self._timeout_seconds = timeout_seconds
        self._stop_seconds = stop_seconds

    @property
    def address(self) -> str:
        """Where the engine is, and which service of it this is."""
        return self._address

    def view(self) -> ServiceView:
        """Return the service as its containers are now, also those that do not run."""
        with self._engine() as engine:
            containers = self._containers(engine)
        environment = _agreed(containers, ENVIRONMENT_LABEL, of_all=True)
        url = _agreed(containers, URL_LABEL)
        places = {label for one in containers for label in one.labels if label.startswith(PLACE_LABEL)}
        return ServiceView(
            marker=Marker(service=self._service, environment=environment),
            instances=tuple(_instance(one.name, one.attrs, one.labels) for one in containers),
            url=url,
            places={label.removeprefix(PLACE_LABEL): _agreed(containers, label) for label in sorted(places)},
            links=(),
            disturbed={},
        )

    def start(self, instance: str) -> None:
        """Start a container, or let it go on where it is paused."""
        with self._engine() as engine:
            container = self._named(engine, instance)
            if container.attrs["State"]["Paused"]:
                container.unpause()
            elif not _runs(container.attrs["State"]):
                container.start()

    def stop(self, instance: str) -> None:
        """Stop a container as ``docker stop`` does: its restart policy does not start it again."""
        with self._engine() as engine:
            self._named(engine, instance).stop(timeout=self._stop_seconds)

    def restart(self, instance: str) -> None:
        """Stop a container and start it."""
        with self._engine() as engine:
            container = self._named(engine, instance)
            if container.attrs["State"]["Paused"]:
                container.unpause()
            container.restart(timeout=self._stop_seconds)

    def disturb(self, link: str, disturbance: Disturbance, *, latency_ms: int = 0) -> None:
        """Refused: a Docker engine has no links that can be disturbed."""
        raise self._refused(f"disturb the link {link}")

    def soothe(self, link: str) -> None:
        """Refused, as :meth:`disturb` is."""
        raise self._refused(f"soothe the link {link}")

    def promote(self, instance: str) -> None:
        """Refused: what is in a container is not known here."""
        raise self._refused(f"promote {instance}")

    def rejoin(self, instance: str) -> None:
        """Refused, as :meth:`promote` is."""
        raise self._refused(f"rejoin {instance}")

    def container(self, identity: ContainerIdentity) -> ContainerState | None:
        """Return a container of this service by its id, however often it was started since.

        :returns: None where it was removed
        :raises ServiceControlError: it is another service's
        """
        with self._engine() as engine:
            found = self._by_id(engine, identity)
            return None if found is None else _state(found)

    def end_container(self, identity: ContainerIdentity, how: Literal["stop", "kill"]) -> None:
        """Stop or kill a container, provided that it runs and was not started again since.

        :param identity: of the container and of this run of it
        :param how: as ``docker stop`` or ``docker kill`` does
        :raises ServiceControlError: it is not that one, is not running, or could not be started again
        """
        with self._engine() as engine:
            found = self._by_id(engine, identity)
            if found is None:
                raise ServiceControlError(f"container {identity.id[:12]} was removed; make a new plan")
            state = _state(found)
            if state.identity != identity or not state.running:
                raise ServiceControlError(
                    f"container {state.name} is not as it was when the plan was made: it"
                    + (f" was started at {state.identity.started}" if state.running else " does not run")
                    + f", and not at {identity.started}; make a new plan"
                )
            if state.removed_at_end:
                raise ServiceControlError(
                    f"the engine removes container {state.name} when it ends (--rm), so that it could not be"
                    " started again; make it without --rm"
                )
            if how == "kill":
                found.kill()
            else:
                found.stop(timeout=self._stop_seconds)

    def start_container(self, identity: ContainerIdentity) -> None:
        """Start a container by its id, unless it runs.

        :raises ServiceControlError: it was removed, or is another service's
        """
        with self._engine() as engine:
            found = self._by_id(engine, identity)
            if found is None:
                raise ServiceControlError(f"container {identity.id[:12]} was removed; make it anew")
            if not _runs(found.attrs["State"]):
                found.start()

    @contextlib.contextmanager
    def _engine(self) -> Iterator[Any]:
        """Connect to the engine, and say what goes wrong in words of the service."""
        try:
            engine = docker.DockerClient(base_url=self._engine_url, timeout=self._timeout_seconds)
            with contextlib.closing(engine):
                yield engine
        except APIError as error:
            raise ServiceControlError(
                f"the Docker engine at {self._engine_url} refused: {error.explanation or error}",
                retryable=bool(error.is_server_error()),
            ) from error
        except (DockerException, RequestException, OSError) as error:
            raise ServiceControlError(
                f"the Docker engine at {self._engine_url} did not answer: {error}; check that it runs, and"
                " that this user may open its socket",
                retryable=True,
            ) from error

    def _containers(self, engine: Any) -> list[Any]:
        """Return the service's containers by name, of which there is one at least."""
        found = engine.containers.list(
            all=True, ignore_removed=True, filters={"label": f"{SERVICE_LABEL}={self._service}"}
        )
        if not found:
            raise ServiceControlError(
                f"the Docker engine at {self._engine_url} has no container with the label"
                f" {SERVICE_LABEL}={self._service}; label the service's containers, or correct the address"
            )
        return sorted(found, key=lambda one: str(one.name))

    def _named(self, engine: Any, instance: str) -> Any:
        containers = self._containers(engine)
        found = next((one for one in containers if one.name == instance), None)
        if found is None:
            raise ServiceControlError(
                f"service {self._service} has no container {instance!r}; it has"
                f" {', '.join(one.name for one in containers)}"
            )
        return found

    def _by_id(self, engine: Any, identity: ContainerIdentity) -> Any | None:
        try:
            found = engine.containers.get(identity.id)
        except NotFound:
            return None
        if found.labels.get(SERVICE_LABEL) != self._service:
            raise ServiceControlError(
                f"container {found.name} has not the label {SERVICE_LABEL}={self._service}: it is not touched"
            )
        return found

    def _refused(self, what: str) -> ServiceControlError:
        return ServiceControlError(
            f"cannot {what}: containers of a Docker engine are only started, stopped and killed; use a"
            " service with a control of its own (unix:…) for that"
        )


def _parse(address: str) -> tuple[str, str]:
    """Return the engine's address and the service's name."""
    parts = urlsplit(address.removeprefix(PREFIX))
    query = parse_qs(parts.query)
    services = query.pop("service", [])
    fits = parts.scheme == "unix" and parts.path.startswith("/") and not (parts.netloc or parts.fragment)
    if not address.startswith(PREFIX) or not fits or query or len(services) != 1:
        raise ServiceControlError(
            f"{address!r} is not the address of a service in Docker; expected"
            " docker:unix:///var/run/docker.sock?service=<name>"
        )
    return f"unix://{parts.path}", services[0]


def _agreed(containers: Sequence[Any], label: str, *, of_all: bool = False) -> str:
    """Return what the containers say under a label.

    :param of_all: whether each of them has to say it
    :raises ServiceControlError: they differ, or none says it
    """
    said = {one.name: one.labels.get(label) for one in containers}
    if not of_all:
        said = {name: value for name, value in said.items() if value is not None}
    values = set(said.values())
    value = values.pop() if len(values) == 1 else None
    if value:
        return str(value)
    each = ", ".join(f"{name} {value or '(nothing)'}" for name, value in said.items()) or "none says it"
    raise ServiceControlError(f"containers do not agree on the label {label}: {each}; give all the same")


def _instance(name: str, attributes: dict[str, Any], labels: dict[str, str]) -> Instance:
    state = attributes["State"]
    role = labels.get(ROLE_LABEL, "other")
    if role not in get_args(Role):
        raise ServiceControlError(
            f"container {name} has the label {ROLE_LABEL}={role}; expected one of {', '.join(get_args(Role))}"
        )
    running = _runs(state)
    healthy, detail = _health(state)
    return Instance(
        name=name,
        role=role,  # type: ignore[arg-type] # which was just checked
        address=_address(attributes) if running else None,
        identity=ContainerIdentity(id=attributes["Id"], started=state["StartedAt"]) if running else None,
        healthy=healthy,
        detail=detail,
    )


def _state(container: Any) -> ContainerState:
    attributes = container.attrs
    return ContainerState(
        identity=ContainerIdentity(id=attributes["Id"], started=attributes["State"]["StartedAt"]),
        name=container.name,
        running=_runs(attributes["State"]),
        removed_at_end=bool(attributes["HostConfig"].get("AutoRemove")),
    )


def _runs(state: dict[str, Any]) -> bool:
    """Whether its process is there: the engine calls running what it waits to start again, too."""
    return bool(state["Running"]) and not state["Restarting"]


def _health(state: dict[str, Any]) -> tuple[bool | None, str]:
    """Return whether a container is healthy, as its own HEALTHCHECK found since it was started."""
    if not _runs(state):
        error = f": {state['Error']}" if state.get("Error") else ""
        return False, f"{state['Status']}, exit code {state['ExitCode']}{error}"
    if state["Paused"]:
        return False, "paused"
    health = state.get("Health")
    if not health or health["Status"] in ("", "none"):
        return None, "has no HEALTHCHECK"
    checks = health.get("Log") or []
    # A container that was started again shows what was found before, until it is checked.
    if health["Status"] == "starting" or not checks or _when(checks[-1]["End"]) < _when(state["StartedAt"]):
        return None, "was not checked since it was started"
    if health["Status"] == "healthy":
        return True, ""
    return False, f"unhealthy: {str(checks[-1]['Output']).strip()[-200:] or 'its check failed'}"


def _when(text: str) -> datetime:
    """Read a time of the engine's, of which some end with Z and some with an offset."""
    return datetime.fromisoformat(text)


def _address(attributes: dict[str, Any]) -> str | None:
    """Return host and port of the lowest port that is published, as seen from the engine's host."""
    published = {
        int(port.partition("/")[0]): bindings[0]
        for port, bindings in (attributes["NetworkSettings"].get("Ports") or {}).items()
        if bindings
    }
    if not published:
        return None
    binding = published[min(published)]
    host = "127.0.0.1" if binding["HostIp"] in _ANY_ADDRESS else binding["HostIp"]
    return f"{host}:{binding['HostPort']}"
