"""File systems that are mounted, from /proc/self/mountinfo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    """A mounted file system.

    :param point: where
    :param options: it is mounted with, as in ``rw,nosuid``
    """

    point: Path
    options: str


def mount_of(folder: Path) -> Mount | None:
    """Return the file system that is mounted at a folder; None where the folder is part of a larger one.

    :param folder: absolute, without links
    """
    found = None
    for line in _MOUNTINFO.read_text(encoding="utf-8").splitlines():
        fields = line.split(" ")
        # Spaces and the like stand as \\040 there.
        point = fields[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
        if point == str(folder):
            found = Mount(folder, fields[5])  # the last one mounted there counts
    return found
