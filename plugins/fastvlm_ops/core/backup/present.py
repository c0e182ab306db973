"""What a restore's target holds already."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blake3 import blake3

from fastvlm_ops.core.backup.tree import Entry

_HASH_BYTES = 1 << 20


class PresentTree:
    """What a target holds already, read without following links."""

    def __init__(self, target: Path) -> None:
        self._target = os.fsencode(target)

    def type_of(self, entry: Entry) -> str | None:
        """The type of what stands at an entry's place; None for nothing."""
        try:
            mode = os.lstat(os.path.join(self._target, entry.path)).st_mode
        except OSError:
            return None
        if stat.S_ISDIR(mode):
            return "directory"
        return "file" if stat.S_ISREG(mode) else "link or node"

    def has(self, entry: Entry) -> bool:
        """Whether a regular file of the entry's size and contents stands at its place."""
        try:
            path = os.path.join(self._target, entry.path)
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            return stat.S_ISREG(status.st_mode) and status.st_size == entry.size and _hash(descriptor, entry)
        finally:
            os.close(descriptor)


def _hash(descriptor: int, entry: Entry) -> bool:
    hasher = blake3()
    for start, length in entry.extents if entry.extents is not None else [(0, entry.size)]:
        end = start + length
        while start < end and (data := os.pread(descriptor, min(_HASH_BYTES, end - start), start)):
            hasher.update(data)
            start += len(data)
    return hasher.hexdigest() == entry.blake3
