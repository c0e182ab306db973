"""SQLite databases as a source."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.sources import ScannedEntry, SourceView, entry_from_status, user_name

_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_BUSY_SECONDS = 30.0
_SQLITE_COPY_SECONDS = 3600.0


class SQLiteSource:
    """An SQLite database, copied while others write to it.

    The online-backup API in one step (``pages=-1``): with smaller steps every foreign write starts the
    copy again, and under constant writes it never ends.

    :param path: the database file.
    :param scratch_dir: where the copy goes while it is read.
    """

    kind = "sqlite"

    def __init__(self, path: Path, scratch_dir: Path | None = None) -> None:
        self.path = path
        self.scratch_dir = scratch_dir

    def check(self) -> None:
        if not self.path.is_file():
            problem = "is not a file" if self.path.exists() else "does not exist"
            raise SourceError(f"{self.path} {problem}")
        if not os.access(self.path, os.R_OK):
            raise SourceError(f"{self.path} cannot be read by user {user_name(os.geteuid()) or os.geteuid()}")
        with self.path.open("rb") as file:
            if file.read(16) != _SQLITE_MAGIC:
                raise SourceError(f"{self.path} is not an SQLite database (or an empty one)")

    def fingerprint(self) -> list[list[int]]:
        """Of the database and its write-ahead log: every commit writes to one of them."""
        found = []
        for suffix in ("", "-wal"):
            try:
                status = os.stat(f"{self.path}{suffix}")
            except FileNotFoundError:
                found.append([0, 0, 0, 0])
                continue
            # As root, SQLite sets the owner of the log whenever it opens it, our own reading included.
            changed_ns = status.st_mtime_ns if suffix else status.st_ctime_ns
            found.append([status.st_size, status.st_mtime_ns, changed_ns, status.st_ino])
        return found

    @contextmanager
    def open(self) -> Iterator[SourceView]:
        self.check()
        try:
            if self.scratch_dir is not None:
                self.scratch_dir.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix="fastvlm-sqlite-", dir=self.scratch_dir)
        except OSError as error:
            place = self.scratch_dir or tempfile.gettempdir()
            raise SourceError(f"{self.path} cannot be copied to {place}: {error.strerror}") from error
        with folder as scratch:
            copy = Path(scratch) / "copy.db"
            self._require_space(Path(scratch))
            self._copy(copy)
            evidence = self._prove(copy)
            yield SourceView(
                lambda: self._entries(copy), evidence=evidence, page_bytes=int(evidence["page_size"])
            )

    def _require_space(self, scratch: Path) -> None:
        needed = self.path.stat().st_size
        wal = self.path.with_name(self.path.name + "-wal")
        needed += wal.stat().st_size if wal.exists() else 0
        free = shutil.disk_usage(scratch).free
        if free < needed:
            raise SourceError(f"{scratch} has {free} bytes free; the copy of {self.path} needs {needed}")

    def _copy(self, copy: Path) -> None:
        deadline = time.monotonic() + _SQLITE_COPY_SECONDS

        def within_deadline(status: int, remaining: int, total: int) -> None:
            if time.monotonic() > deadline:
                raise SourceError(f"{self.path} stayed locked for {_SQLITE_COPY_SECONDS:.0f} s")

        uri = f"file:{quote(os.fspath(self.path))}?mode=ro"
        try:
            with (
                closing(sqlite3.connect(uri, uri=True, timeout=_SQLITE_BUSY_SECONDS)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                target.execute("PRAGMA synchronous = OFF")  # it need not outlive this process
                source.backup(target, pages=-1, progress=within_deadline)
        except sqlite3.Error as error:
            raise SourceError(f"{self.path} cannot be copied: {error}") from error

    def _prove(self, copy: Path) -> dict[str, Any]:
        with closing(
            sqlite3.connect(f"file:{quote(os.fspath(copy))}?mode=ro&immutable=1", uri=True)
        ) as database:
            try:
                found = [row[0] for row in database.execute("PRAGMA quick_check(5)")]
            except sqlite3.DatabaseError as error:
                raise SourceError(f"{self.path} is damaged: {error}") from error
        if found != ["ok"]:
            raise SourceError(f"{self.path} is damaged, quick_check says: {'; '.join(found)}")
        with copy.open("rb") as file:
            header = file.read(100)
        (page_size,) = struct.unpack_from(">H", header, 16)
        page_size = 65536 if page_size == 1 else page_size
        return {
            "quick_check": "ok",
            "page_size": page_size,
            "page_count": copy.stat().st_size // page_size,
            "sqlite_version": sqlite3.sqlite_version,
        }

    def _entries(self, copy: Path) -> Iterator[ScannedEntry]:
        folder = entry_from_status(b".", self.path.parent.stat())
        status = self.path.stat()
        entry = entry_from_status(os.fsencode(self.path.name), status)
        if folder is None or entry is None:
            raise SourceError(f"{self.path} was replaced while it was backed up")
        entry.size = copy.stat().st_size
        yield ScannedEntry(folder, lambda: -1)
        yield ScannedEntry(entry, lambda: os.open(copy, os.O_RDONLY))
