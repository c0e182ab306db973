"""The contents of one open file into chunks, holes left out, changes noticed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.backup.chunking import Chunker, ReadInto
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.tree import Entry
from fastvlm_ops.core.backup.writing import ChunkWriter

_HASH_ASIDE_BYTES = 1 << 20
Extents = list[tuple[int, int]]


def data_extents(descriptor: int, status: os.stat_result) -> Extents | None:
    """``[(offset, length), …]`` of the data of a sparse file; None for a file without holes."""
    if status.st_blocks * 512 >= status.st_size or not hasattr(os, "SEEK_DATA"):
        return None
    extents: Extents = []
    position = 0
    while position < status.st_size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), status.st_size)
        except OSError:  # no data after this place
            break
        extents.append((start, end - start))
        position = end
    return None if extents == [(0, status.st_size)] else extents


class _ExtentReader:
    """Reads extents of an open file one after the other."""

    def __init__(self, descriptor: int, extents: Extents) -> None:
        self._descriptor = descriptor
        self._extents: Iterator[tuple[int, int]] = iter(extents)
        self._position = self._end = 0

    def read_into(self, buffer: memoryview) -> int:
        while True:
            while self._position >= self._end:
                extent = next(self._extents, None)
                if extent is None:
                    return 0
                self._position, self._end = extent[0], sum(extent)
            count = os.preadv(self._descriptor, [buffer[: self._end - self._position]], self._position)
            if count:
                self._position += count
                return count
            self._position = self._end  # the file has become shorter


class _HashingReader:
    """Hashes and counts what it passes on.

    Large pieces are hashed in another thread while they are cut: they stay unchanged until the next read.
    """

    def __init__(self, read_into: ReadInto, meter: ProgressMeter, hashing: Executor) -> None:
        self._read_into = read_into
        self._meter = meter
        self._hasher = blake3()
        self._hashing = hashing
        self._pending: Future[Any] | None = None
        self.count = 0

    def read_into(self, buffer: memoryview) -> int:
        self._wait()
        count = self._read_into(buffer)
        if not count:
            return 0
        self.count += count
        self._meter.add(read_bytes=count)
        if count >= _HASH_ASIDE_BYTES:
            self._pending = self._hashing.submit(self._hasher.update, buffer[:count])
        else:
            self._hasher.update(buffer[:count])
        return count

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def hexdigest(self) -> str:
        self._wait()
        return self._hasher.hexdigest()


def store_contents(
    writer: ChunkWriter,
    chunker: Chunker,
    descriptor: int,
    before: os.stat_result,
    entry: Entry,
    meter: ProgressMeter,
) -> bool:
    """Store a file's contents and describe them in its entry; whether it stood still meanwhile.

    :param before: the file's status, taken after it was opened.
    :raises OSError: the file cannot be read.
    """
    extents = data_extents(descriptor, before)
    there = _ExtentReader(descriptor, [(0, sys.maxsize)] if extents is None else extents)
    reader = _HashingReader(there.read_into, meter, writer.hashing)
    entry.contents = writer.put_stream(chunker, reader.read_into)
    entry.blake3 = reader.hexdigest()
    entry.extents = extents
    entry.size = reader.count if extents is None else before.st_size
    complete = reader.count == entry.stored_bytes
    if not complete:  # shrank into its holes: what was read is no longer what the extents say
        entry.extents, entry.size = None, reader.count
    after = os.fstat(descriptor)
    return complete and entry.size == after.st_size and _times(before) == _times(after)


def store_streamed(
    writer: ChunkWriter, chunker: Chunker, read_into: ReadInto, entry: Entry, meter: ProgressMeter
) -> None:
    """Store contents that can be read but once, and describe them in their entry."""
    reader = _HashingReader(read_into, meter, writer.hashing)
    entry.contents = writer.put_stream(chunker, reader.read_into)
    entry.blake3 = reader.hexdigest()
    entry.size = reader.count


def _times(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_ctime_ns
