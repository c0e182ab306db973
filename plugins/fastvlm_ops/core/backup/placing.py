"""Putting entries into a target folder, never through a link, never half.

Works by open directories: a name is only ever resolved inside the directory it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from blake3 import blake3

from fastvlm_ops.core.backup.errors import CorruptionError, RestoreTargetError
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_WARNINGS_KEPT = 100
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


class TreeWriter:
    """Takes validated entries in tree order.

    :param target: an existing folder.
    :param snapshot_id: part of the temporary names, so that leftovers are recognised.
    :param keep_replaced: where to keep what stood at an entry's place; None where nothing of others can.
    """

    def __init__(self, target: Path, snapshot_id: str, keep_replaced: Path | None = None) -> None:
        self._target = target
        self._keep_replaced = keep_replaced
        self._temporary = f".fastvlm-restore-{snapshot_id}".encode()
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self._stack: list[tuple[Entry, int]] = []
        self._descriptor: int | None = None
        self._position = 0
        self._extents: list[tuple[int, int]] = []
        self._hasher = blake3()
        self.kept_files = 0
        self.replaced_files = 0
        self.warnings: list[str] = []

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._drop_temporary()
            while self._stack:
                self._leave(complete=kind is None)
        finally:
            os.close(self._root)

    # -- directories -------------------------------------------------------------------------------

    def _parent(self, entry: Entry) -> int:
        """The open directory an entry belongs to; those that are complete are left."""
        while self._stack and self._stack[-1][0].parts != entry.parts[:-1]:
            self._leave(complete=True)
        return self._stack[-1][1] if self._stack else self._root

    def _leave(self, *, complete: bool) -> None:
        entry, directory = self._stack.pop()
        try:
            if complete:
                self._set_metadata(entry, directory)
                os.fsync(directory)
        finally:
            os.close(directory)

    def _enter(self, entry: Entry) -> None:
        if not entry.parts:
            self._stack.append((entry, os.open(".", _DIRECTORY, dir_fd=self._root)))
            return
        parent, name = self._parent(entry), entry.parts[-1]
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        if self._keep_replaced is None:  # ours, perhaps from an attempt that is being continued
            os.fchmod(descriptor, 0o700)
        self._stack.append((entry, descriptor))

    # -- files -------------------------------------------------------------------------------------

    def write(self, entry: Entry, data: bytes) -> None:
        """Append to the file under way, begun with its first bytes."""
        try:
            if self._descriptor is None:
                self._begin(entry)
            self._hasher.update(data)
            view = memoryview(data)
            while len(view):
                view = view[self._write_some(view) :]
        except OSError as error:
            raise self._failed(entry, error) from error

    def _begin(self, entry: Entry) -> None:
        parent = self._parent(entry)
        self._unlink(self._temporary, parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=parent)
        self._hasher = blake3()
        self._extents = list(reversed(entry.extents if entry.extents is not None else [(0, entry.size)]))
        self._position = 0

    def _write_some(self, view: memoryview) -> int:
        """Write into the current extent; returns the count."""
        assert self._descriptor is not None  # noqa: S101 - write() has begun the file
        if not self._extents:
            raise CorruptionError("a file has more bytes than its extents")  # _validate() excludes it
        start, length = self._extents[-1]
        count = os.pwrite(self._descriptor, view[: length - self._position], start + self._position)
        self._position += count
        if self._position == length:
            self._extents.pop()
            self._position = 0
        return count

    def finish(self, entry: Entry) -> None:
        """Verify the file under way, give it its metadata, and then its name.

        :raises CorruptionError: the contents are not those that were backed up; nothing bears the name.
        """
        descriptor = self._descriptor
        assert descriptor is not None  # noqa: S101 - write() comes first
        if self._hasher.hexdigest() != entry.blake3:
            self._drop_temporary()
            raise CorruptionError(f"{show(entry.path)} does not have the hash it was backed up with")
        parent = self._stack[-1][1]
        try:
            if entry.extents is not None:
                os.ftruncate(descriptor, entry.size)
            self._set_metadata(entry, descriptor)
            os.fsync(descriptor)
            self._give_name(entry, parent)
        except OSError as error:
            raise self._failed(entry, error) from error
        os.close(descriptor)
        self._descriptor = None

    def keep(self, entry: Entry) -> None:
        """Give a file that is there its metadata."""
        self.kept_files += 1
        descriptor = os.open(entry.parts[-1], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._parent(entry))
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
        parent, name = self._parent(entry), self._temporary
        self._unlink(name, parent)
        if entry.hard_link is not None:
            os.link(entry.hard_link, name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)
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
        self._give_name(entry, parent)

    def _give_name(self, entry: Entry, parent: int) -> None:
        """From the temporary name to the entry's, in one step; what stood there is kept first."""
        name = entry.parts[-1]
        if self._keep_replaced is not None:
            self._keep(entry, name, parent)
        os.rename(self._temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        if entry.hard_link is not None:  # renaming one link of a file to another does nothing at all
            self._unlink(self._temporary, parent)

    def _keep(self, entry: Entry, name: bytes, parent: int) -> None:
        kept = os.path.join(os.fsencode(self._keep_replaced or b""), entry.path)
        if not _exists(name, parent):
            return
        os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # by an attempt that was stopped right here
            os.link(name, kept, src_dir_fd=parent, follow_symlinks=False)
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
        self._drop_temporary()
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        return RestoreTargetError(f"{self._target}/{show(entry.path)} cannot be written: {what}")

    def _drop_temporary(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._unlink(self._temporary, self._stack[-1][1])

    @staticmethod
    def _unlink(name: bytes, directory: int) -> None:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
