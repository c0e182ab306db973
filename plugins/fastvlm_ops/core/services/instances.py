"""What a running service consists of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastvlm_ops.core.programs.proc import ProcessId

Role = Literal["replica", "proxy", "database_primary", "database_standby", "other"]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProcessIdentity(_Said):
    """A process, not merely its number, which another process can get later."""

    kind: Literal["process"] = "process"
    pid: int
    started: int
    boot: str

    @property
    def process(self) -> ProcessId:
        """The process, to look at or to signal."""
        return ProcessId(self.pid, self.started, self.boot)

    @classmethod
    def of(cls, process: ProcessId) -> ProcessIdentity:
        """Return the identity of a process."""
        return cls(pid=process.pid, started=process.started, boot=process.boot)


class ContainerIdentity(_Said):
    """A container, by its full id, and the moment it was started at, as the engine writes it."""

    kind: Literal["container"] = "container"
    id: str
    started: str


Identity = Annotated[ProcessIdentity | ContainerIdentity, Field(discriminator="kind")]


class Instance(_Said):
    """One part of a service that runs by itself.

    :param name: unique in the service, as in ``replica-1``
    :param role: what it does
    :param address: host and port that it listens on; None where it has none, or is not running
    :param identity: None while it is not running
    :param healthy: whether it does its work, as the service itself finds; None while that is unknown
    :param detail: why it is not healthy, for people
    """

    name: str
    role: Role
    address: str | None
    identity: Identity | None
    healthy: bool | None
    detail: str = ""


class Marker(_Said):
    """What a target says it is, read from the target itself and not from a file about it.

    :param service: its name
    :param environment: as in ``demo``, ``staging`` or ``production``
    """

    service: str
    environment: str


class ServiceView(_Said):
    """A service at one moment.

    :param marker: what it says it is
    :param instances: all it should have, also those that do not run
    :param url: where its users reach it
    :param places: its files that drills may touch, by name: ``model_store``, ``configuration``, ``scratch``
    :param links: names of the TCP links that can be disturbed, as in ``replica-1`` or ``object_store``
    :param link_addresses: host and port that a link listens on, by its name; of those it tells, so that what
        is not the service can be led over one
    :param disturbed: those that are disturbed now, and how; None where the service does not say, which is not
        the same as none
    """

    marker: Marker
    instances: tuple[Instance, ...] = Field(strict=False)
    url: str
    places: dict[str, str]
    links: tuple[str, ...] = Field(strict=False)
    link_addresses: dict[str, str] = Field(default_factory=dict)
    disturbed: dict[str, str] | None = None

    def instance(self, name: str) -> Instance:
        """Return an instance.

        :raises KeyError: there is none of that name
        """
        return next((one for one in self.instances if one.name == name), None) or _missing(name)

    def of_role(self, role: Role) -> list[Instance]:
        """Return the instances of a role, in the order of their names."""
        return sorted((one for one in self.instances if one.role == role), key=lambda one: one.name)


def _missing(name: str) -> Instance:
    raise KeyError(f"the service has no instance {name!r}")
