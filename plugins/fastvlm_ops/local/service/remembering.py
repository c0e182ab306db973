"""What a supervisor that is started again has to know, so that it goes on with what runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fastvlm_ops.core.services.instances import ProcessIdentity
from fastvlm_ops.local.service.links import Disturbed


class RememberedPart(BaseModel):
    """One process.

    :param wanted: whether it is to run
    :param identity: None where it does not
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wanted: bool
    identity: ProcessIdentity | None


class Remembered(BaseModel):
    """A service as its supervisor left it.

    :param ports: by what listens on them
    :param parts: by name
    :param disturbed: how each link is disturbed
    :param databases: folder of the databases' data, which may be outside that of the service; None before
        they were made
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ports: dict[str, int]
    parts: dict[str, RememberedPart]
    disturbed: dict[str, Disturbed]
    databases: Path | None


def recall(file: Path) -> Remembered | None:
    """Return what was remembered; None where nothing was.

    :param file: that it was written to
    """
    with contextlib.suppress(OSError, ValidationError):
        return Remembered.model_validate_json(file.read_bytes())
    return None


def remember(file: Path, remembered: Remembered) -> None:
    """Write it down, in one step.

    :param file: that is made or replaced
    :param remembered: the service as it is
    """
    temporary = file.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(remembered.model_dump_json(indent=1))
    temporary.replace(file)
