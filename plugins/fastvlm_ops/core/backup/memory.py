"""How the C library deals with freed memory, and how much of it this process may have."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import resource
from collections.abc import Iterator
from pathlib import Path

from fastvlm_ops.core.backup.errors import MemoryLimitError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_LARGEST_BLOCK_BYTES = 32 << 20
_KEPT_BYTES = 128 << 20
_NEEDED_BYTES = 256 << 20  # what a backup or a restore holds at most, whatever the size of the files
_LEAST_BYTES = 192 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 128 MiB, for what it asks for next.

    Pack after pack needs the same memory again. glibc would hand it back to the system in between, and a
    full backup of 600 MiB then takes 100,000 page faults more. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@functools.cache  # of what has been found to be enough
def require_memory() -> None:
    """Refuse to begin what could not end: a control group ends a process that holds too much, unheard.

    :raises MemoryLimitError: what limits this process, and to how much.
    """
    for what, size_bytes in _limits():
        if size_bytes < _LEAST_BYTES:
            raise MemoryLimitError(
                f"{what} allows this process {size_bytes >> 20} MiB of memory; a backup or a restore needs "
                f"up to {_NEEDED_BYTES >> 20} MiB, whatever the size of the files"
            )


def _limits() -> Iterator[tuple[str, int]]:
    """What limits this process's memory, and to how many bytes."""
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield name, soft
    with contextlib.suppress(OSError):  # no Linux, or none of its control groups to be seen
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            yield from _limits_of_group(controllers, path)


def _limits_of_group(controllers: str, path: str) -> Iterator[tuple[str, int]]:
    """Limits of a control group and of those above it; a container sees its own as the top."""
    if controllers and "memory" not in controllers.split(","):
        return
    top = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
    file = "memory.limit_in_bytes" if controllers else "memory.max"
    group = top / path.lstrip("/")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield f"the control group {folder}", int((folder / file).read_text())
        if folder == top:
            return
