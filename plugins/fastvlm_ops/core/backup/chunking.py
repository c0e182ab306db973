"""Cutting files into chunks: content-defined for most, page-aligned for database files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyfastcdc
from pyfastcdc import FastCDC

from fastvlm_ops.core.backup.errors import BackupError

BUFFER_BYTES = 4 << 20
_PAGE_CHUNK_BYTES = 8 << 10
_MOST_PAGE_CHUNK_BYTES = 128 << 10
_PAGE_CHUNKS_OF_A_FILE = 1 << 14

ReadInto = Callable[[memoryview], int]
"""Fills a buffer from the source, returns the count; 0 at the end.

What it has filled stays unchanged until it is called again.
"""


def require_compiled_chunker() -> None:
    """pyfastcdc falls back to pure Python, a hundred times slower, with no more than a warning.

    :raises BackupError: when the compiled path is not there.
    """
    if not FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise BackupError(
            f"pyfastcdc {pyfastcdc.__version__} runs without its compiled extension; "
            "install a wheel of it for this Python and platform"
        )


@dataclass(frozen=True)
class ChunkerParameters:
    """Sizes in bytes; part of the repository's configuration and never changed."""

    minimum: int
    average: int
    maximum: int


CONTENT_PARAMETERS = ChunkerParameters(64 << 10, 256 << 10, 1 << 20)
TREE_PARAMETERS = ChunkerParameters(4 << 10, 8 << 10, 64 << 10)


class Chunker(Protocol):
    """Yields the chunks of a buffer at a time, as views that are valid until the next ones are asked for."""

    def cut(self, read_into: ReadInto) -> Iterator[list[memoryview]]: ...


class ContentChunker:
    """FastCDC 2020, normalisation level 1, seeded per repository.

    Boundaries depend on the bytes alone, so an insertion changes only the chunks around it.
    """

    def __init__(self, parameters: ChunkerParameters, seed: int) -> None:
        self._parameters = parameters
        self._fastcdc = FastCDC(
            parameters.average,
            min_size=parameters.minimum,
            max_size=parameters.maximum,
            normalized_chunking=1,
            seed=seed,
        )
        # Two, so that a buffer stays as it was read until the read after the next: see ReadInto.
        self._buffers = [memoryview(bytearray(BUFFER_BYTES)) for _ in range(2)]

    def cut(self, read_into: ReadInto) -> Iterator[list[memoryview]]:
        """A chunk ends where it would have ended in the whole file: a cut needs ``maximum`` bytes ahead."""
        view, other = self._buffers
        filled = 0
        at_end = False
        while not at_end or filled:
            while filled < len(view) and not at_end:
                count = read_into(view[filled:])
                at_end = count == 0
                filled += count
            start = 0
            chunks = []
            for chunk in self._fastcdc.cut_buf(view[:filled]):
                if not at_end and filled - start < self._parameters.maximum:
                    break
                chunks.append(view[start : start + chunk.length])
                start += chunk.length
            yield chunks
            other[: filled - start] = view[start:filled]
            filled -= start
            view, other = other, view


def page_chunk_bytes(page_bytes: int, file_bytes: int) -> int:
    """How many bytes of a database file are one chunk: whole pages, more of them in large files.

    Each chunk is an entry of the index, which every run has in memory. Chunks of 8 KiB are finest; from
    128 MiB on they grow with the file, to 64 KiB at 1 GiB and at most 128 KiB. A file that grows past such a
    limit is stored anew once.

    :param page_bytes: of the database, a power of two
    :param file_bytes: how large the file is
    """
    chunk_bytes = max(page_bytes, _PAGE_CHUNK_BYTES)
    while chunk_bytes * _PAGE_CHUNKS_OF_A_FILE < file_bytes and chunk_bytes < _MOST_PAGE_CHUNK_BYTES:
        chunk_bytes *= 2
    return chunk_bytes


class PageChunker:
    """Chunks of a fixed size, see :func:`page_chunk_bytes`: updates stay where they are."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._buffer = memoryview(bytearray(BUFFER_BYTES // self._chunk_bytes * self._chunk_bytes))

    def cut(self, read_into: ReadInto) -> Iterator[list[memoryview]]:
        view = self._buffer
        filled = len(view)
        while filled == len(view):
            filled = 0
            while filled < len(view) and (count := read_into(view[filled:])):
                filled += count
            starts = range(0, filled, self._chunk_bytes)
            yield [view[start : min(start + self._chunk_bytes, filled)] for start in starts]
