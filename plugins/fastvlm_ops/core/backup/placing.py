"""Putting entries into a target folder, never through a link, never half.

Works by open directories: a name is only ever resolved inside the directory it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.backup.errors import CorruptionError, RestoreTargetError
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_WARNINGS_KEPT = 100
_HASH_BYTES = 1 << 20
_FINISHERS = 4
_FINISHING = 64


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


@dataclass
class _Directory:
    """An open directory of the target. Finished, and closed, when nothing is under way in it any more."""

    entry: Entry | None
    descriptor: int
    above: _Directory | None
    users: int = 1


@dataclass
class _File:
    """A file under a temporary name, being written."""

    entry: Entry
    descriptor: int
    parent: _Directory
    temporary: bytes
    extents: list[tuple[int, int]]
    position: int = 0
    hasher: Any = field(default_factory=blake3)


class TreeWriter:
    """Takes validated entries in tree order.

    Files are flushed to the disk and named by a few threads, since a flush is mostly waiting; a directory
    gets its metadata when all in it is done.

    :param target: an existing folder.
    :param snapshot_id: part of the temporary names, so that leftovers are recognised.
    :param keep_replaced: where to keep what stood at an entry's place; None where nothing of others can.
    """

    def __init__(self, target: Path, snapshot_id: str, keep_replaced: Path | None = None) -> None:
        self._target = target
        self._keep_replaced = keep_replaced
        self._prefix = f".fastvlm-restore-{snapshot_id}".encode()
        self._numbers = itertools.count()
        self._root = _Directory(None, os.open(target, os.O_RDONLY | os.O_DIRECTORY), None)
        self._directory = self._root
        self._file: _File | None = None
        self._pool = ThreadPoolExecutor(_FINISHERS, thread_name_prefix="finish")
        self._finishing: deque[Future[None]] = deque()
        self._lock = Lock()
        self.kept_files = 0
        self.replaced_files = 0
        self.warnings: list[str] = []

    def __enter__(self) -> TreeWriter:
        self._remove_leftovers(self._root.descriptor)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._drop_file()
        try:
            if kind is None:
                self._finish_all()
        finally:
            self._pool.shutdown(wait=True)  # what is verified gets its name also when something else failed
            self._leave_all(complete=kind is None)

    def _leave_all(self, *, complete: bool) -> None:
        directory: _Directory | None = self._directory
        while directory is not None:
            above = directory.above
            if complete and directory.entry is not None:
                self._release(directory)
            else:
                os.close(directory.descriptor)
            directory = above

    # -- directories -------------------------------------------------------------------------------

    def _parent(self, entry: Entry) -> _Directory:
        """The open directory an entry belongs to; those behind us are let go."""
        above = entry.parts[:-1]
        while self._directory.entry is not None and self._directory.entry.parts != above:
            directory, self._directory = self._directory, self._directory.above or self._root
            self._release(directory)
        return self._directory

    def _release(self, directory: _Directory) -> None:
        """One user less; the last one gives the directory its metadata."""
        with self._lock:
            directory.users -= 1
            if directory.users:
                return
        try:
            try:
                if directory.entry is not None:
                    self._set_metadata(directory.entry, directory.descriptor)
                os.fsync(directory.descriptor)
            finally:
                os.close(directory.descriptor)
        except OSError as error:
            raise RestoreTargetError(f"{self._target} cannot be finished: {error.strerror}") from error
        if directory.above is not None and directory.above.entry is not None:
            self._release(directory.above)

    def _hold(self, directory: _Directory) -> _Directory:
        with self._lock:
            directory.users += 1
        return directory

    def _enter(self, entry: Entry) -> None:
        if not entry.parts:
            descriptor = os.open(".", _DIRECTORY, dir_fd=self._root.descriptor)
            self._directory = _Directory(entry, descriptor, self._root)
            return
        parent, name = self._parent(entry), entry.parts[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent.descriptor)
            is_new = True
        except FileExistsError:
            is_new = False
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent.descriptor)
        if not is_new:
            self._remove_leftovers(descriptor)
            if self._keep_replaced is None:  # ours, from the attempt that is being continued
                os.fchmod(descriptor, 0o700)
        self._directory = _Directory(entry, descriptor, self._hold(parent))

    def _remove_leftovers(self, directory: int) -> None:
        """Temporary files of an attempt that was killed."""
        for name in map(os.fsencode, os.listdir(directory)):
            if name.startswith(self._prefix):
                os.unlink(name, dir_fd=directory)

    # -- files -------------------------------------------------------------------------------------

    def write(self, entry: Entry, data: bytes) -> None:
        """Append to the file under way, begun with its first bytes."""
        try:
            file = self._file or self._begin(entry)
            file.hasher.update(data)
            view = memoryview(data)
            while len(view):
                view = view[_write_some(file, view) :]
        except OSError as error:
            raise self._failed(entry, error) from error

    def _begin(self, entry: Entry) -> _File:
        parent = self._parent(entry)
        temporary = self._temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent.descriptor)
        extents = list(reversed(entry.extents if entry.extents is not None else [(0, entry.size)]))
        self._file = _File(entry, descriptor, parent, temporary, extents)
        return self._file

    def _temporary(self) -> bytes:
        return b"%s-%d" % (self._prefix, next(self._numbers))

    def finish(self, entry: Entry) -> None:
        """Verify the file under way; it gets its metadata, is flushed, and then gets its name.

        :raises CorruptionError: the contents are not those that were backed up; nothing bears the name.
        """
        file = self._file
        assert file is not None  # noqa: S101 - write() comes first
        if file.hasher.hexdigest() != entry.blake3:
            self._drop_file()
            raise CorruptionError(f"{show(entry.path)} does not have the hash it was backed up with")
        self._file = None
        self._hold(file.parent)
        self._finishing.append(self._pool.submit(self._finish, file))
        while len(self._finishing) > _FINISHING:
            self._finishing.popleft().result()

    def _finish(self, file: _File) -> None:
        try:
            try:
                if file.entry.extents is not None:
                    os.ftruncate(file.descriptor, file.entry.size)
                self._set_metadata(file.entry, file.descriptor)
                os.fsync(file.descriptor)
                self._give_name(file.entry, file.temporary, file.parent.descriptor)
            finally:
                os.close(file.descriptor)
        except OSError as error:
            _unlink(file.temporary, file.parent.descriptor)
            raise self._failed(file.entry, error) from error
        self._release(file.parent)

    def _finish_all(self) -> None:
        while self._finishing:
            self._finishing.popleft().result()

    def keep(self, entry: Entry) -> None:
        """Give a file that is there its metadata."""
        self.kept_files += 1
        parent = self._parent(entry).descriptor
        descriptor = os.open(entry.parts[-1], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            self._set_metadata(entry, descriptor)
        finally:
            os.close(descriptor)

    def place(self, entry: Entry) -> None:
        """Make anything that has no contents: a directory, a link, a fifo, a socket."""
        try:
            if entry.type == "directory":
                self._enter(entry)
            else:
                self._place_node(entry)
        except OSError as error:
            raise self._failed(entry, error) from error

    def _place_node(self, entry: Entry) -> None:
        parent, name = self._parent(entry).descriptor, self._temporary()
        if entry.hard_link is not None:
            self._finish_all()  # the file it is a link to has to have its name
            root = self._root.descriptor
            os.link(entry.hard_link, name, src_dir_fd=root, dst_dir_fd=parent, follow_symlinks=False)
        elif entry.type == "symlink":
            os.symlink(entry.target or b"", name, dir_fd=parent)
        elif entry.type == "fifo":
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=parent)
        if entry.hard_link is None:
            if os.geteuid() == 0:
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            if entry.type != "symlink":
                os.chmod(name, entry.mode, dir_fd=parent)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        self._give_name(entry, name, parent)

    def _give_name(self, entry: Entry, temporary: bytes, parent: int) -> None:
        """From the temporary name to the entry's, in one step; what stood there is kept first."""
        name = entry.parts[-1]
        if self._keep_replaced is not None and _exists(name, parent):
            self._keep(entry, name, parent)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        if entry.hard_link is not None:  # renaming one link of a file to another does nothing at all
            _unlink(temporary, parent)

    def _keep(self, entry: Entry, name: bytes, parent: int) -> None:
        kept = os.path.join(os.fsencode(self._keep_replaced or b""), entry.path)
        os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # by an attempt that was stopped right here
            os.link(name, kept, src_dir_fd=parent, follow_symlinks=False)
        with self._lock:
            self.replaced_files += 1

    # -- shared ------------------------------------------------------------------------------------

    def _set_metadata(self, entry: Entry, descriptor: int) -> None:
        """Owner before mode, since changing the owner clears set-id bits; times last."""
        if os.geteuid() == 0:
            os.fchown(descriptor, entry.uid, entry.gid)
        elif (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
            self._warn(f"{show(entry.path)}: owner {entry.uid}:{entry.gid} needs root to be restored")
        for name, value in entry.xattrs.items():
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                self._warn(f"{show(entry.path)}: attribute {name} was not restored: {error.strerror}")
        os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _warn(self, message: str) -> None:
        if len(self.warnings) < _WARNINGS_KEPT:
            self.warnings.append(message)

    def _failed(self, entry: Entry, error: OSError) -> RestoreTargetError:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        return RestoreTargetError(f"{self._target}/{show(entry.path)} cannot be written: {what}")

    def _drop_file(self) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
            _unlink(self._file.temporary, self._file.parent.descriptor)
            self._file = None


def _write_some(file: _File, view: memoryview) -> int:
    """Write into the current extent; returns the count."""
    if not file.extents:
        raise CorruptionError("a file has more bytes than its extents")  # validation excludes it
    start, length = file.extents[-1]
    count = os.pwrite(file.descriptor, view[: length - file.position], start + file.position)
    file.position += count
    if file.position == length:
        file.extents.pop()
        file.position = 0
    return count


def _unlink(name: bytes, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
