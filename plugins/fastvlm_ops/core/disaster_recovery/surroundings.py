"""What the steps of a drill work with besides its plan: handed to them, so that they know no connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.config import Components
    from fastvlm_ops.core.services.control import ServiceControl
    from fastvlm_ops.core.store import Store


@dataclass(frozen=True)
class Surroundings:
    """What is around a drill on the worker that it runs on.

    :param control: of the service; None where the backups are the target
    :param store: the operations database
    :param open_repository: opens the backup repository for reading chunks
    :param open_repository_through: the same, by another S3 endpoint: the address of a link that is disturbed
    :param database_dsn: libpq address of a database instance, by its name
    :param components: reads ``components.yaml``
    :param kit_dir: that relative paths of components start from; None where it is not set
    :param postgresql_bin_dir: the only folder of PostgreSQL's programs; None for the usual places
    :param scratch: a folder of this drill, for what is restored on trial; made where absent
    :param drill_dir: of all drills of this worker, with ``faults/``
    :param say: writes a line to the task's log
    :param as_of: what the run is about
    :param inspect_package: parses a Core ML package, and raises what is wrong with it; None where nothing
        here can, so that packages are not checked
    :param cluster_database: name of the database that a connection to a cluster leads to, by the connection's
        id: where the checks of ``components.yaml`` are asked; None where it is not known
    :param pause: waits for some seconds; every wait of a step goes through it, since it raises
        ``DrillAbortedError`` when the drill has to be broken off
    :param done: what was done to the target, by the monotonic clock; written by :meth:`did`
    """

    control: ServiceControl | None
    store: Store
    open_repository: Callable[[], Repository] | None
    open_repository_through: Callable[[str], Repository] | None
    database_dsn: Callable[[str], str] | None
    components: Callable[[], Components]
    kit_dir: Path | None
    postgresql_bin_dir: Path | None
    scratch: Path
    drill_dir: Path
    say: Callable[[str], None]
    as_of: datetime
    inspect_package: Callable[[Path], object] | None = None
    cluster_database: Callable[[str], str] | None = None
    pause: Callable[[float], None] = time.sleep
    done: list[tuple[int, str]] = field(default_factory=list)

    def did(self, what: str) -> None:
        """Note what was just done to the target: it becomes one of the step's commands.

        :param what: in words, without secrets
        """
        self.done.append((time.monotonic_ns(), what))
        self.say(what)
