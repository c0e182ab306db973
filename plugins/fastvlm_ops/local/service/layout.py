"""Where the demo service keeps things, and what its supervisor is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

SERVICE_NAME = "fastvlm-demo"
#: In the environment of all its processes; its value is the service's folder.
SERVICE_MARKER = "FASTVLM_OPS_DEMO_SERVICE"
REPLICAS = ("replica-1", "replica-2")
BALANCER = "balancer"
LINKS = "links"
OBJECT_STORE = "object_store"


@dataclass(frozen=True)
class Layout:
    """The folder of one service.

    :param folder: absolute
    """

    folder: Path

    @property
    def places(self) -> dict[str, Path]:
        """What drills may touch, by name."""
        return {name: self.folder / "places" / name for name in ("model_store", "configuration", "scratch")}

    @property
    def control(self) -> Path:
        """Socket of the supervisor, in a folder that only its owner may enter."""
        return self.folder / "control" / "control.sock"

    def socket(self, name: str) -> Path:
        """Socket that the supervisor asks one of its processes by.

        :param name: of the instance
        """
        return self.folder / "control" / f"{name}.sock"

    @property
    def logs(self) -> Path:
        """Output of all its processes."""
        return self.folder / "logs"

    @property
    def view_file(self) -> Path:
        """The view of the service, as the supervisor last wrote it."""
        return self.folder / "service.json"

    @property
    def state_file(self) -> Path:
        """What a supervisor that is started again has to know."""
        return self.folder / "supervised.json"

    def behaviour(self, replica: str) -> Path:
        """What a replica was told to do.

        :param replica: its name
        """
        return self.folder / "control" / f"{replica}.behaviour.json"

    def last_good(self, replica: str) -> Path:
        """The last configuration that was good, as a replica keeps it.

        :param replica: its name
        """
        return self.folder / "state" / f"{replica}.configuration.json"


@dataclass(frozen=True)
class SupervisorSettings:
    """What a supervisor is told at its start, as a file; nothing secret.

    :param folder: of the service
    :param state_folder: of the :class:`~fastvlm_ops.local.processes.Processes` that its processes belong to
    :param environment: that the service says it is
    :param database_mode: ``async`` or ``sync``, of the pair of databases
    :param object_store_url: what the link ``object_store`` leads to; None for none
    :param restart_delay_seconds: before what died is started again, so that it can be seen
    :param owner: process that the service ends with; None where it outlives all others
    """

    folder: str
    state_folder: str
    environment: str
    database_mode: Literal["async", "sync"] = "async"
    object_store_url: str | None = None
    restart_delay_seconds: float = 1.0
    owner: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)
