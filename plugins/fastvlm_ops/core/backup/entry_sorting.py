"""Entries that come in any order, put into the order of a tree (docs/backup-format.md §7)."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from types import TracebackType

from fastvlm_ops.core.backup.chunking import ReadInto
from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry, encode_entry

_CACHE_KIB = 16 << 10


class SortedEntries:
    """Entries of a tree, kept in a nameless temporary file, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE entry (key BLOB PRIMARY KEY, directory INTEGER, line BLOB) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def __enter__(self) -> SortedEntries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, entry: Entry) -> None:
        """Keep an entry.

        :raises SourceError: there is one of its path, or the disk is full
        """
        row = (_key(entry.path), entry.type == "directory", encode_entry(entry))
        try:
            self._database.execute("INSERT INTO entry VALUES (?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise SourceError(f"{show(entry.path)} came twice") from None
        except sqlite3.OperationalError as error:
            raise SourceError(
                f"the list of files cannot be kept in {tempfile.gettempdir()}: {error}"
            ) from error

    def lines(self) -> Iterator[bytes]:
        """Yield the entries as lines of a tree, parents before children.

        :raises SourceError: one has no directory above it
        """
        above: list[bytes] = []  # the keys of the directories on the way to the last entry, but for the root
        for key, directory, line in self._database.execute("SELECT * FROM entry ORDER BY key"):
            while above and not key.startswith(above[-1] + b"\0"):
                above.pop()
            if key and key.rpartition(b"\0")[0] != (above[-1] if above else b""):
                path = show(key.replace(b"\0", b"/"))
                raise SourceError(f"{path} came without the directory that it is in")
            if directory and key:
                above.append(key)
            yield line


def _key(path: bytes) -> bytes:
    """What sorts as the components of a path do: a NUL is in none of them, and below all that is."""
    return b"" if path == b"." else path.replace(b"/", b"\0")


def reader_of(pieces: Iterator[bytes]) -> ReadInto:
    """Return what fills buffers from pieces of any size."""
    rest = b""

    def read_into(buffer: memoryview) -> int:
        nonlocal rest
        while not rest:
            piece = next(pieces, None)
            if piece is None:
                return 0
            rest = piece
        count = min(len(buffer), len(rest))
        buffer[:count] = rest[:count]
        rest = rest[count:]
        return count

    return read_into
