"""Faults as they are recorded: resolved to this very process, file or link, and enough to be taken back by a
program that knows nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fastvlm_ops.core.services.control import Disturbance
from fastvlm_ops.core.services.instances import ContainerIdentity, ProcessIdentity


class Recorded(BaseModel):
    """Base of what is recorded of a drill as JSON: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProcessFault(Recorded):
    """Processes of an instance are killed, stopped, or restarted.

    Taken back: after ``stop``, SIGCONT to those very processes; after ``kill`` and ``restart``, the instance
    is started where it does not run.

    :param control: address of the service's control
    :param identity: leader of the session that is hit
    """

    kind: Literal["process"] = "process"
    how: Literal["kill", "stop", "restart"]
    control: str
    instance: str
    identity: ProcessIdentity


class ContainerFault(Recorded):
    """A container is stopped or killed. Taken back: it is started."""

    kind: Literal["container"] = "container"
    how: Literal["stop", "kill"]
    control: str
    instance: str
    identity: ContainerIdentity


class DatabaseFault(Recorded):
    """The primary database is killed. Taken back: it runs again, as primary or as standby of the new one, and
    never as a second primary.
    """

    kind: Literal["database"] = "database"
    control: str
    instance: str
    identity: ProcessIdentity


class LinkFault(Recorded):
    """A TCP link is disturbed. Taken back: it passes everything on."""

    kind: Literal["link"] = "link"
    control: str
    link: str
    disturbance: Disturbance
    latency_ms: int = 0


class FileFault(Recorded):
    """A file or folder of a place is changed; what was there is kept beside the place, in ``kept``.

    Taken back: what was there comes back, unless the same contents, by hash, are there already.

    :param place: folder of the place, as it was resolved
    :param path: inside it; empty for all that is in it
    :param kept: folder of this fault, on the same file system, outside the place
    """

    kind: Literal["file"] = "file"
    how: Literal["corrupt", "truncate", "delete"]
    place: str
    path: str
    kept: str
    bytes: int = 1


class DiskFault(Recorded):
    """A small file system of its own is filled, or made read-only. Taken back: the filler is removed, or it
    is mounted as it was.

    :param mount: where it is mounted
    :param device: number of its device, so that another one mounted there is not touched
    :param options: it is mounted with
    """

    kind: Literal["disk"] = "disk"
    how: Literal["full", "read_only"]
    mount: str
    device: int
    options: str


Fault = Annotated[
    ProcessFault | ContainerFault | DatabaseFault | LinkFault | FileFault | DiskFault,
    Field(discriminator="kind"),
]
FAULTS: TypeAdapter[Fault] = TypeAdapter(Fault)
