"""Putting entries into a target folder, never through a link, never half.

Works by open directories: a name is only ever resolved inside the directory it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import RLock

from fastvlm_ops.core.backup.errors import RestoreTargetError
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.target_files import Directory, File, PostponedLink
from fastvlm_ops.core.backup.tree import Entry, split_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_REACH = _DIRECTORY | getattr(os, "O_PATH", 0)  # may be done where listing is not allowed
_WARNINGS_KEPT = 100
_FLUSHERS = 8
_FLUSH_FILES = 256
_FLUSH_BYTES = 64 << 20
_HELD_FILES = 16 << 10


class TreeWriter:
    """Takes validated entries in tree order.

    Complete files are flushed to the disk many at a time, beside the writing of others, and then get their
    names; a directory gets its metadata when all in it is done.

    :param target: an existing folder.
    :param snapshot_id: part of the temporary names, so that leftovers are recognised.
    :param keep_replaced: where to keep what stood at an entry's place; None where nothing of others can.
    """

    def __init__(self, target: Path, snapshot_id: str, keep_replaced: Path | None = None) -> None:
        self._target = target
        self._keep_replaced = keep_replaced
        self._prefix = f".fastvlm-restore-{snapshot_id}".encode()
        self._numbers = itertools.count()
        self._root = Directory(None, os.open(target, os.O_RDONLY | os.O_DIRECTORY), None)
        self._directory = self._root
        self._open: set[File] = set()
        self._complete: list[File] = []
        self._complete_bytes = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="name")
        # Flushes that wait together share a commit of the file system's journal.
        self._flushers = ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="flush")
        self._flushes: list[Future[None]] = []
        self._lock = RLock()
        self._held = 0
        # A file under way holds its descriptor and that of its directory: together half of what may be open.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._held_limit = min(limit // 4, _HELD_FILES) if limit > 0 else _HELD_FILES
        self.kept_files = 0
        self.replaced_files = 0
        self.warnings: list[str] = []

    def __enter__(self) -> TreeWriter:
        self._remove_leftovers(self._root.descriptor)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        complete = kind is None
        try:
            # What is verified gets its name also when something else failed.
            with contextlib.nullcontext() if complete else contextlib.suppress(RestoreTargetError):
                self._flush_and_wait()
        finally:
            self._pool.shutdown(wait=True)
            self._flushers.shutdown(wait=True)
            for file in self._open:
                os.close(file.descriptor)
                _unlink(file.temporary, file.parent.descriptor)
                self._release(file.parent, complete=False)
            while self._directory is not self._root:
                directory, self._directory = self._directory, self._directory.above or self._root
                self._release(directory, complete=complete)
            os.close(self._root.descriptor)

    # -- directories -------------------------------------------------------------------------------

    def _parent(self, entry: Entry) -> Directory:
        """The open directory an entry belongs to; those behind us are let go."""
        above = entry.parts[:-1]
        while self._directory.entry is not None and self._directory.entry.parts != above:
            directory, self._directory = self._directory, self._directory.above or self._root
            self._release(directory)
        return self._directory

    def _release(self, directory: Directory, *, complete: bool = True) -> None:
        """One user less; the last one gives the directory its metadata, if all in it is ``complete``."""
        above: Directory | None = directory
        while above is not None:
            with self._lock:
                above.users -= 1
                if above.users or above is self._root:
                    return
            self._finish(above, complete=complete)
            above = above.above

    def _finish(self, directory: Directory, *, complete: bool) -> None:
        try:
            if complete and directory.entry is not None:
                self._set_metadata(directory.entry, directory.descriptor)
                os.fsync(directory.descriptor)
        except OSError as error:
            raise RestoreTargetError(f"{self._target} cannot be finished: {error.strerror}") from error
        finally:
            os.close(directory.descriptor)

    def _hold(self, directory: Directory) -> Directory:
        with self._lock:
            directory.users += 1
        return directory

    def _enter(self, entry: Entry) -> None:
        if not entry.parts:
            descriptor = os.open(".", _DIRECTORY, dir_fd=self._root.descriptor)
            self._directory = Directory(entry, descriptor, self._hold(self._root))
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
        self._directory = Directory(entry, descriptor, self._hold(parent))

    def _remove_leftovers(self, directory: int) -> None:
        """Temporary files of an attempt that was killed."""
        for name in map(os.fsencode, os.listdir(directory)):
            if name.startswith(self._prefix):
                os.unlink(name, dir_fd=directory)

    # -- files -------------------------------------------------------------------------------------

    def begin(self, entry: Entry, pieces: int) -> File:
        """Open a file for its chunks; it completes itself when it has all of them."""
        try:
            file = File(self, entry, self._hold(self._parent(entry)), pieces)
        except OSError as error:
            raise self.failed(entry, error) from error
        with self._lock:
            self._open.add(file)
            self._held += 1
        if not pieces:
            self.complete(file)
        return file

    @property
    def is_crowded(self) -> bool:
        """Whether so many files are under way that it is time to :meth:`settle` them."""
        with self._lock:
            return self._held >= self._held_limit

    def settle(self) -> None:
        """Wait until every file whose chunks are all written has its name."""
        self._flush_and_wait()

    def temporary(self) -> bytes:
        """A name that no other file of this restore has."""
        return b"%s-%d" % (self._prefix, next(self._numbers))

    def complete(self, file: File) -> None:
        """Take a file whose chunks are all written."""
        with self._lock:
            self._open.discard(file)
            self._complete.append(file)
            self._complete_bytes += file.entry.size
            if len(self._complete) >= _FLUSH_FILES or self._complete_bytes >= _FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        with self._lock:
            files, self._complete, self._complete_bytes = self._complete, [], 0
            if files:
                self._flushes.append(self._pool.submit(self._name_files, files))
            done = [flush for flush in self._flushes if flush.done()]
            self._flushes = [flush for flush in self._flushes if not flush.done()]
        for flush in done:
            flush.result()

    def _flush_and_wait(self) -> None:
        self._flush()
        for flush in self._flushes:
            flush.result()

    def _name_files(self, files: list[File]) -> None:
        """Metadata, one flush for all, then the names: a name never stands for contents still to come."""
        entry = files[0].entry
        try:
            for file in files:
                entry = file.entry
                if entry.extents is not None:
                    os.ftruncate(file.descriptor, entry.size)
                self._set_metadata(entry, file.descriptor)
            list(self._flushers.map(os.fsync, [file.descriptor for file in files]))
            for file in files:
                entry = file.entry
                self._give_name(entry, file.temporary, file.parent.descriptor)
        except OSError as error:
            for file in files:
                _unlink(file.temporary, file.parent.descriptor)
            raise self.failed(entry, error) from error
        finally:
            for file in files:
                os.close(file.descriptor)
            with self._lock:
                self._held -= len(files)
        for file in files:
            self._release(file.parent)

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
            raise self.failed(entry, error) from error

    def postpone(self, entry: Entry) -> PostponedLink:
        """Keep a hard link's directory open until :meth:`link`."""
        return PostponedLink(entry, self._hold(self._parent(entry)))

    def link(self, postponed: list[PostponedLink]) -> None:
        """Make hard links, when all chunks of the files they are links to have been written."""
        self._flush_and_wait()
        for entry, parent in postponed:
            name, first = self.temporary(), split_path(entry.hard_link or b"")
            try:
                with self._opened(first[:-1]) as folder:
                    os.link(
                        first[-1],
                        name,
                        src_dir_fd=folder,
                        dst_dir_fd=parent.descriptor,
                        follow_symlinks=False,
                    )
                self._give_name(entry, name, parent.descriptor)
            except OSError as error:
                raise self.failed(entry, error) from error
            self._release(parent)

    @contextlib.contextmanager
    def _opened(self, parts: tuple[bytes, ...]) -> Iterator[int]:
        """A directory of the target, however long its path; good for reaching what is in it."""
        directory = os.dup(self._root.descriptor)
        try:
            for part in parts:
                below = os.open(part, _REACH, dir_fd=directory)
                os.close(directory)
                directory = below
            yield directory
        finally:
            os.close(directory)

    def _place_node(self, entry: Entry) -> None:
        parent, name = self._parent(entry).descriptor, self.temporary()
        if entry.type == "symlink":
            os.symlink(entry.target or b"", name, dir_fd=parent)
        elif entry.type == "fifo":
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=parent)
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

    def failed(self, entry: Entry, error: OSError) -> RestoreTargetError:
        """The error to raise when an entry cannot be written."""
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        return RestoreTargetError(f"{self._target}/{show(entry.path)} cannot be written: {what}")


def _unlink(name: bytes, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
