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
    :param is_whole: whether it is all of a file system, and not one folder of it
    :param elsewhere: where else the same file system is mounted
    """

    point: Path
    options: str
    is_whole: bool
    elsewhere: tuple[Path, ...]

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written to it."""
        return "ro" in self.options.split(",")


def mount_of(folder: Path) -> Mount | None:
    """Return the file system that is mounted at a folder; None where the folder is part of a larger one.

    :param folder: absolute, without links
    """
    lines = [line.split(" ") for line in _MOUNTINFO.read_text(encoding="utf-8").splitlines()]
    there = [fields for fields in lines if _point(fields) == folder]
    if not there:
        return None
    _, _, device, root, _, options, *_ = there[-1]  # the last one mounted there hides the others
    elsewhere = [_point(fields) for fields in lines if fields[2] == device and fields is not there[-1]]
    return Mount(folder, options, root == "/", tuple(elsewhere))


def _point(fields: list[str]) -> Path:
    """Return where a file system is mounted; spaces and the like stand as ``\\040`` there."""
    escaped = fields[4].encode()
    return Path(escaped.decode("unicode_escape").encode("latin-1").decode(errors="replace"))
