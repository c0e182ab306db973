"""What a place of a service says it belongs to: a small file in it, written when the place was made."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import Marker

#: Name of the file. It is no part of what the place holds: comparisons and drills leave it out.
MARKER_FILE = ".fastvlm-ops-environment"
_MAX_BYTES = 4096


def write_place_marker(folder: Path, marker: Marker) -> None:
    """Write what a place belongs to into it.

    :param folder: the place
    :param marker: of its service
    """
    (folder / MARKER_FILE).write_text(marker.model_dump_json() + "\n")


def read_place_marker(folder: Path) -> Marker:
    """Return what a place says it belongs to.

    :param folder: the place
    :raises ServiceControlError: it does not say, or not in a way that can be understood
    """
    file = folder / MARKER_FILE
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ServiceControlError(
            f"{folder} does not say what it belongs to: {file.name} cannot be read: {error.strerror}"
        ) from error
    try:
        return Marker.model_validate_json(content if len(content) <= _MAX_BYTES else b"")
    except ValidationError:
        raise ServiceControlError(
            f"{folder} does not say what it belongs to: {file.name} has to be JSON"
            " with service and environment alone"
        ) from None
