"""What can be backed up: folders and SQLite databases.

A source is opened into a view whose entries come in tree order, metadata only; contents are read
through the descriptor that ``ScannedEntry.open`` gives, which is valid until the next entry.
"""

from __future__ import annotations

import fnmatch
import functools
import grp
import os
import pwd
import shutil
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.tree import MODE_MASK, Entry

_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_BUSY_SECONDS = 30.0
_SQLITE_COPY_SECONDS = 3600.0


@dataclass
class ScannedEntry:
    """An entry without contents, and how to open it (regular files only)."""

    entry: Entry
    open: Callable[[], int]
    links: int = 1


@dataclass
class SourceView:
    """An opened source. ``page_bytes`` is set for database files, which are cut by pages."""

    entries: Callable[[], Iterator[ScannedEntry]]
    evidence: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    page_bytes: int | None = None
    can_skip_unchanged: bool = False


class Source(Protocol):
    """Something that can be backed up."""

    kind: str
    path: Path

    def check(self) -> None:
        """:raises SourceError: when a backup could not even begin."""

    def fingerprint(self) -> list[list[int]] | None:
        """Status of the few files that a change of the whole source would show in: for each its size,
        modification and change time in ns, and inode. None where only a scan can tell.
        """

    def open(self) -> AbstractContextManager[SourceView]: ...


def show(path: bytes) -> str:
    """A path for messages; bytes that are not UTF-8 escaped."""
    return path.decode(errors="backslashreplace")


@functools.lru_cache(maxsize=1024)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@functools.lru_cache(maxsize=1024)
def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def entry_from_status(path: bytes, status: os.stat_result) -> Entry | None:
    """Metadata of an entry; None for device nodes, which no kit has."""
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    is_file = kind == "file"
    return Entry(
        path=path,
        type=kind,
        mode=status.st_mode & MODE_MASK,
        uid=status.st_uid,
        gid=status.st_gid,
        user=_user_name(status.st_uid),
        group=_group_name(status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        ctime_ns=status.st_ctime_ns if is_file else 0,
        inode=status.st_ino if is_file else 0,
        device=status.st_dev if is_file else 0,
    )


def _read_xattrs(directory: int, name: bytes) -> dict[str, bytes]:
    """Extended attributes of an entry itself; empty where the platform or file system has none."""
    if not hasattr(os, "listxattr"):
        return {}
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {item: os.getxattr(path, item, follow_symlinks=False) for item in sorted(names)}
    except OSError:
        return {}


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


class FolderSource:
    """A folder and everything below it. Other file systems mounted below are followed.

    :param path: the folder.
    :param exclude: shell patterns; one without ``/`` matches names at any depth, others the path from
        the folder.
    """

    kind = "files"

    def __init__(self, path: Path, exclude: Sequence[str] = ()) -> None:
        self.path = path
        self.exclude = tuple(exclude)

    def check(self) -> None:
        if not self.path.is_dir():
            problem = "is not a folder" if self.path.exists() else "does not exist"
            raise SourceError(f"{self.path} {problem}")
        if not os.access(self.path, os.R_OK | os.X_OK):
            raise SourceError(
                f"{self.path} cannot be read by user {_user_name(os.geteuid()) or os.geteuid()}"
            )
        with os.scandir(self.path) as entries:
            if next(entries, None) is None:
                raise SourceError(f"{self.path} is empty; an empty backup is refused")

    def fingerprint(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[SourceView]:
        self.check()
        warnings: list[str] = []
        yield SourceView(lambda: self._walk(warnings), warnings=warnings, can_skip_unchanged=True)

    def _excluded(self, path: bytes, name: bytes) -> bool:
        return any(
            fnmatch.fnmatchcase(show(path if "/" in pattern else name), pattern.rstrip("/"))
            for pattern in self.exclude
        )

    def _walk(self, warnings: list[str]) -> Iterator[ScannedEntry]:
        """Depth first, by open directories, so that nobody can swap a parent for a link meanwhile."""
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        stack: list[tuple[int, bytes, Iterator[bytes]]] = []
        try:
            entry = entry_from_status(b".", os.fstat(root))
            if entry is None:
                raise SourceError(f"{self.path} is not a folder")
            stack.append((root, b"", iter(_names(root))))
            yield ScannedEntry(entry, lambda: -1)
            while stack:
                directory, prefix, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(stack.pop()[0])
                    continue
                path = prefix + name
                if self._excluded(path, name):
                    continue
                scanned = self._scan(directory, path, name, warnings)
                if scanned is None:
                    continue
                if scanned.entry.type == "directory" and not self._descend(
                    stack, directory, path, name, warnings
                ):
                    continue
                yield scanned
        finally:
            for directory, _, _ in stack:
                os.close(directory)

    def _scan(self, directory: int, path: bytes, name: bytes, warnings: list[str]) -> ScannedEntry | None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            entry = entry_from_status(path, status)
            if entry is None:
                warnings.append(f"{show(path)}: device node left out")
                return None
            if entry.type == "symlink":
                entry.target = os.readlink(name, dir_fd=directory)
        except FileNotFoundError:
            warnings.append(f"{show(path)}: vanished while the folder was read")
            return None
        entry.xattrs = _read_xattrs(directory, name)

        def open_file() -> int:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)

        return ScannedEntry(entry, open_file, status.st_nlink if entry.type == "file" else 1)

    def _descend(
        self,
        stack: list[tuple[int, bytes, Iterator[bytes]]],
        directory: int,
        path: bytes,
        name: bytes,
        warnings: list[str],
    ) -> bool:
        try:
            opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            warnings.append(f"{show(path)}: vanished while the folder was read")
            return False
        except PermissionError as error:
            raise SourceError(f"{self.path}/{show(path)} cannot be read: {error.strerror}") from error
        stack.append((opened, path + b"/", iter(_names(opened))))
        return True


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
            raise SourceError(
                f"{self.path} cannot be read by user {_user_name(os.geteuid()) or os.geteuid()}"
            )
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
        if self.scratch_dir is not None:
            self.scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fastvlm-sqlite-", dir=self.scratch_dir) as scratch:
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
