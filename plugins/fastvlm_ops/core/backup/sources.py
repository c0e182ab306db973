"""What can be backed up, and the first of them: folders. Databases are in ``sqlite_source``.

A source is opened into a view whose entries come in tree order, metadata only; contents are read
through the descriptor that ``ScannedEntry.open`` gives, which is valid until the next entry. Or its
entries come as a stream, in any order, each with its contents, which can be read but once.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import grp
import os
import pwd
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.tree import MODE_MASK, Entry

_PACKAGE_SUFFIX = b".mlpackage"


OnChange = Literal["warn", "fail"]


@dataclass
class ScannedEntry:
    """An entry without contents, and how to open it (regular files only).

    ``package`` is the path of the ``.mlpackage`` folder it belongs to, which is backed up as one thing.
    ``attributes`` reads a file's extended attributes, which its entry does not have yet.
    """

    entry: Entry
    open: Callable[[], int]
    links: int = 1
    package: bytes | None = None
    attributes: Callable[[], dict[str, bytes]] = dict


@dataclass
class StreamedEntry:
    """An entry of a stream, and its contents (files only), to be read before the next one is asked for.

    ``page_bytes`` is set for database files, which are cut by pages.
    """

    entry: Entry
    read_into: Callable[[memoryview], int] | None = None
    page_bytes: int | None = None


@dataclass
class SourceView:
    """An opened source. ``page_bytes`` is set for database files, which are cut by pages.

    ``entries_of`` scans a package again. ``stream`` is set where the entries come as a stream, instead of by
    ``entries``; when it has ended without an error, the stream was whole and ``evidence`` is complete.
    """

    entries: Callable[[], Iterator[ScannedEntry]]
    entries_of: Callable[[bytes], Iterator[ScannedEntry]] = lambda _: iter(())
    on_change: OnChange = "warn"
    evidence: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    page_bytes: int | None = None
    can_skip_unchanged: bool = False
    stream: Callable[[], Generator[StreamedEntry, None, None]] | None = None

    def unsteady(self, message: str) -> None:
        """Report that something changed while it was read, by the source's policy.

        :raises SourceError: when the policy is ``fail``.
        """
        if self.on_change == "fail":
            raise SourceError(f"{message} (on_change: fail)")
        self.warnings.append(message)


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
def user_name(uid: int) -> str:
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
        user=user_name(status.st_uid),
        group=_group_name(status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        ctime_ns=status.st_ctime_ns if is_file else 0,
        inode=status.st_ino if is_file else 0,
        device=status.st_dev if is_file else 0,
    )


def renew_entry(entry: Entry, status: os.stat_result, descriptor: int) -> None:
    """Make a file's entry say what is true of what was opened, where that is no longer what was scanned."""
    scanned = (entry.device, entry.inode, entry.ctime_ns)
    if scanned == (status.st_dev, status.st_ino, status.st_ctime_ns):
        return
    fresh = entry_from_status(entry.path, status)
    if fresh is not None:
        fresh.xattrs = _read_xattrs(descriptor)
        vars(entry).update(vars(fresh))


def _read_xattrs(place: int, name: bytes = b"") -> dict[str, bytes]:
    """Extended attributes of an open file, or of an entry itself in an open directory; empty where the
    platform or file system has none.
    """
    if not hasattr(os, "listxattr"):
        return {}
    path, follow = (b"/proc/self/fd/%d/%s" % (place, name), False) if name else (place, True)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
        return {item: os.getxattr(path, item, follow_symlinks=follow) for item in sorted(names)}
    except OSError:
        return {}


# What opening says of a name that stands for nothing any more, or for something else than it did.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.ESTALE)


def raise_unless_gone(error: OSError, source: Path, path: bytes) -> None:
    """:raises SourceError: the path is still there and cannot be read."""
    if error.errno not in _GONE:
        raise SourceError(f"{source}/{show(path)} cannot be read: {error.strerror}") from error


class _Level(NamedTuple):
    """An open directory of a walk."""

    directory: int
    prefix: bytes
    names: Iterator[bytes]
    package: bytes | None


class FolderSource:
    """A folder and everything below it. Other file systems mounted below are followed.

    :param path: the folder.
    :param exclude: shell patterns; one without ``/`` matches names at any depth, others the path from
        the folder.
    :param on_change: what happens when a file changes each time it is read, or vanishes: ``warn`` stores
        what was read and says so, ``fail`` ends the backup.
    """

    kind = "files"

    def __init__(self, path: Path, exclude: Sequence[str] = (), on_change: OnChange = "warn") -> None:
        self.path = path
        self.exclude = tuple(exclude)
        self.on_change = on_change

    def check(self) -> None:
        if not self.path.is_dir():
            problem = "is not a folder" if self.path.exists() else "does not exist"
            raise SourceError(f"{self.path} {problem}")
        if not os.access(self.path, os.R_OK | os.X_OK):
            raise SourceError(f"{self.path} cannot be read by user {user_name(os.geteuid()) or os.geteuid()}")
        with os.scandir(self.path) as entries:
            if next(entries, None) is None:
                raise SourceError(f"{self.path} is empty; an empty backup is refused")

    def fingerprint(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[SourceView]:
        self.check()
        view = SourceView(lambda: self._walk(view), on_change=self.on_change, can_skip_unchanged=True)
        view.entries_of = lambda package: self._walk_package(package, view)
        yield view

    def _excluded(self, path: bytes, name: bytes) -> bool:
        return any(
            fnmatch.fnmatchcase(show(path if "/" in pattern else name), pattern.rstrip("/"))
            for pattern in self.exclude
        )

    def _walk(self, view: SourceView) -> Iterator[ScannedEntry]:
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        entry = entry_from_status(b".", os.fstat(root))
        if entry is not None:
            yield ScannedEntry(entry, lambda: -1)
        yield from self._walk_below(root, b"", None, view)

    def _walk_package(self, package: bytes, view: SourceView) -> Iterator[ScannedEntry]:
        """A package as it is now: its folder and everything below; nothing when it is gone."""
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            scanned = self._scan(root, package, package, package, view)
            if scanned is None or scanned.entry.type != "directory":
                return
            opened = self._open_directory(root, package, package, view)
        finally:
            os.close(root)
        if opened is not None:
            yield scanned
            yield from self._walk_below(opened, package + b"/", package, view)

    def _walk_below(
        self, top: int, prefix: bytes, package: bytes | None, view: SourceView
    ) -> Iterator[ScannedEntry]:
        """Depth first, by open directories, so that nobody can swap a parent for a link meanwhile."""
        stack = [_Level(top, prefix, self._names(top, prefix), package)]
        try:
            while stack:
                level = stack[-1]
                name = next(level.names, None)
                if name is None:
                    os.close(stack.pop().directory)
                    continue
                path = level.prefix + name
                if self._excluded(path, name):
                    continue
                scanned = self._scan(level.directory, path, name, level.package, view)
                if scanned is None:
                    continue
                if scanned.entry.type == "directory":
                    if scanned.package is None and name.endswith(_PACKAGE_SUFFIX):
                        scanned.package = path
                    opened = self._open_directory(level.directory, path, name, view)
                    if opened is None:
                        continue
                    below = path + b"/"
                    try:
                        names = self._names(opened, below)
                    except SourceError:
                        os.close(opened)
                        raise
                    stack.append(_Level(opened, below, names, scanned.package))
                yield scanned
        finally:
            for level in stack:
                os.close(level.directory)

    def _scan(
        self, directory: int, path: bytes, name: bytes, package: bytes | None, view: SourceView
    ) -> ScannedEntry | None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            entry = entry_from_status(path, status)
            if entry is None:
                view.warnings.append(f"{show(path)}: device node left out")
                return None
            if entry.type == "symlink":
                entry.target = os.readlink(name, dir_fd=directory)
        except OSError as error:
            raise_unless_gone(error, self.path, path)
            view.unsteady(f"{show(path)}: vanished while the folder was read")
            return None
        if entry.type != "file":
            entry.xattrs = _read_xattrs(directory, name)
            return ScannedEntry(entry, lambda: -1, package=package)

        def open_file() -> int:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)

        attributes = functools.partial(_read_xattrs, directory, name)
        return ScannedEntry(entry, open_file, status.st_nlink, package, attributes)

    def _names(self, directory: int, path: bytes) -> Iterator[bytes]:
        try:
            return iter(sorted(map(os.fsencode, os.listdir(directory))))
        except OSError as error:
            raise SourceError(f"{self.path}/{show(path)} cannot be read: {error.strerror}") from error

    def _open_directory(self, directory: int, path: bytes, name: bytes, view: SourceView) -> int | None:
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except OSError as error:
            raise_unless_gone(error, self.path, path)
            view.unsteady(f"{show(path)}: vanished while the folder was read")
            return None
