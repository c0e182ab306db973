"""Unix sockets whose path is longer than the kernel takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# sun_path holds 108 bytes on Linux, the one at the end included.
_LONGEST_PATH = 107


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a path of a socket that can be bound or connected to: the path itself where it is short enough,
    else one by way of its open folder. It leads there as long as the block lasts.

    :param path: absolute
    :raises OSError: its folder cannot be opened
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
