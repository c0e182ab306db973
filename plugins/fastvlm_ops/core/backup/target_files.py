"""What is under way in a restore: files, to which chunks come in any order, and their directories."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, Protocol

from fastvlm_ops.core.backup.errors import RestoreTargetError
from fastvlm_ops.core.backup.tree import Entry

_IN_MEMORY_BYTES = 8 << 20


class Writer(Protocol):
    """Who places files: see :class:`~.placing.TreeWriter`."""

    def temporary(self) -> bytes: ...

    def complete(self, file: File) -> None: ...

    def failed(self, entry: Entry, error: OSError) -> RestoreTargetError: ...


@dataclass
class Directory:
    """An open directory of the target. Finished, and closed, when nothing is under way in it any more."""

    entry: Entry | None
    descriptor: int
    above: Directory | None
    users: int = 1


class File:
    """A file under a temporary name, to which its chunks come in any order and from several threads."""

    def __init__(self, writer: Writer, entry: Entry, parent: Directory, pieces: int) -> None:
        self.entry = entry
        self.parent = parent
        self.temporary = writer.temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self.descriptor = os.open(self.temporary, flags, 0o600, dir_fd=parent.descriptor)
        self._writer = writer
        self._missing = pieces
        self._lock = Lock()
        self._in_memory_bytes = 0

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write verified chunks that follow each other.

        :param offset: in the stored bytes, which are the extents of a sparse file, joined
        :raises RestoreTargetError: it cannot be written
        """
        try:
            for start, piece in self._places(offset, data):
                while len(piece):
                    count = os.pwrite(self.descriptor, piece, start)
                    piece, start = piece[count:], start + count
        except OSError as error:
            raise self._writer.failed(self.entry, error) from error
        with self._lock:
            self._missing -= 1
            complete = self._missing == 0
            self._in_memory_bytes += len(data)
            much = self._in_memory_bytes >= _IN_MEMORY_BYTES
            if much:
                self._in_memory_bytes = 0
        if complete:
            self._writer.complete(self)
        elif much:
            self._start_writing()

    def _start_writing(self) -> None:
        """Have the disk write beside us what it was given, and not first when the file is complete. What it
        has written need not stay in memory: who restores reads none of it.
        """
        # No more than advice: another thread may complete and close the file meanwhile.
        with contextlib.suppress(OSError, AttributeError):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _places(self, offset: int, data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
        view = memoryview(data)
        if self.entry.extents is None:
            yield offset, view
            return
        before = 0  # stored bytes of the extents passed
        for start, length in self.entry.extents:
            inside = offset - before
            if 0 <= inside < length and len(view):
                yield start + inside, view[: length - inside]
                offset, view = offset + len(view[: length - inside]), view[length - inside :]
            before += length


class PostponedLink(NamedTuple):
    """A hard link to be made, and its directory, held open."""

    entry: Entry
    parent: Directory


class Piece(NamedTuple):
    """Where chunks belong that follow each other: the file, and the offset in its stored bytes."""

    file: File
    offset: int
