"""How a replica was told to behave: a file that its supervisor writes, and that outlives a restart."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Behaviour(BaseModel):
    """By default, it behaves well.

    :param slow_ms: how long it waits before it answers users
    :param failing_share: of users' requests that it answers with status 500
    :param ready: false: it says that it is not ready
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slow_ms: Annotated[int, Field(ge=0, le=60_000, strict=True)] = 0
    failing_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    ready: Annotated[bool, Field(strict=True)] = True

    def fails(self) -> bool:
        """Say whether one request is to fail."""
        return random.random() < self.failing_share  # noqa: S311 - nothing depends on its being unforeseeable


class BehaviourFile:
    """Reads the file when it changed.

    :param file: which need not exist
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signature: tuple[int, int] | None = None
        self._behaviour = Behaviour()

    def read(self) -> Behaviour:
        """Return how to behave now."""
        try:
            stat = self._file.stat()
        except OSError:
            return Behaviour()
        signature = (stat.st_ino, stat.st_mtime_ns)
        if signature != self._signature:
            with contextlib.suppress(OSError, ValidationError):
                self._behaviour = Behaviour.model_validate_json(self._file.read_bytes())
            self._signature = signature
        return self._behaviour


def write_behaviour(file: Path, behaviour: Behaviour) -> None:
    """Tell a replica how to behave.

    :param file: that it reads
    :param behaviour: from now on
    """
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(behaviour.model_dump_json())
    temporary.replace(file)
