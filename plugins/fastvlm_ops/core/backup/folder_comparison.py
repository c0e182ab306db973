"""Whether a folder is what a snapshot holds: every entry, every byte, and nothing besides.

Unlike :mod:`~fastvlm_ops.core.backup.compare`, which asks whether there is something to back up, this reads
every file to its last byte, holes included, and names what differs.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.backup.errors import BackupNotFoundError, CorruptionError
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry, TreeValidator

_READ_BYTES = 1 << 20
_NAMED = 100
_ROOT = b"."
_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
#: Is called with the path of each file that was read, and the SHA-256 of its bytes.
NoteFile = Callable[[bytes, str], None]


@dataclass
class FolderComparison:
    """What a folder has in common with a snapshot, and what not.

    :param entries: that were looked at, folders and links among them
    :param files: that are equal to the backup's, byte by byte
    :param size_bytes: of them
    :param difference_count: how many entries differ, are missing, or should not be there
    :param differences: the first of them, each with its path, for people
    """

    snapshot_id: str
    component: str
    entries: int = 0
    files: int = 0
    size_bytes: int = 0
    difference_count: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs; what was not read cannot be equal."""
        return self.difference_count == 0 and self.entries > 0

    def as_dict(self) -> dict[str, Any]:
        """As small JSON."""
        return {
            "snapshot_id": self.snapshot_id,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "difference_count": self.difference_count,
            "differences": list(self.differences),
        }


class _EnoughError(Exception):
    """So many differences were asked for."""


def compare_folder(
    repository: Repository,
    snapshot_id: str,
    folder: Path,
    *,
    ignored: Collection[bytes] = (),
    note_file: NoteFile | None = None,
    stop_after: int | None = None,
) -> FolderComparison:
    """Compare a folder with a snapshot by names, types, modes, targets of links, and contents.

    Owners, times and attributes are not compared: to restore them can need root.

    :param ignored: paths below the folder that are looked at on neither side
    :param note_file: is told of each file that was read
    :param stop_after: so many differences; the rest is then not looked at
    :raises BackupNotFoundError: there is no such snapshot
    :raises CorruptionError: its tree cannot be read
    """
    record = repository.refresh().snapshots.get(snapshot_id)
    if record is None:
        raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} in {repository.storage}")
    manifest = read_manifest(repository, record)
    reader = ChunkReader(repository, repository.load_index(lambda _: None))
    found = FolderComparison(snapshot_id, record["component"])
    comparing = _Comparing(os.fsencode(folder), found, note_file, stop_after)
    expected = set(ignored)
    validator = TreeValidator()
    files = 0
    try:
        if not folder.is_dir():
            comparing.differs(_ROOT, f"{folder} is no folder" if os.path.lexists(folder) else "is missing")
            return found
        for entry in read_tree(reader, manifest["tree"]):
            validator.check(entry)
            files += entry.type == "file"
            if entry.path not in expected:
                comparing.look_at(entry)
            expected.add(entry.path)
        for path in _besides(os.fsencode(folder), expected):
            comparing.differs(path, "is not in the backup")
    except _EnoughError:
        return found
    if files != manifest["totals"]["files"]:
        raise CorruptionError(f"the tree of {snapshot_id} has not the files its manifest states")
    return found


def _besides(root: bytes, expected: Collection[bytes]) -> Iterator[bytes]:
    """Paths that are there and not expected; of a folder, nothing below it."""
    folders = [b""]
    while folders:
        below = folders.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            there = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_folder in there:
            path = below + name
            if path not in expected:
                yield path
            elif is_folder:
                folders.append(path + b"/")


@dataclass
class _Comparing:
    root: bytes
    found: FolderComparison
    note_file: NoteFile | None
    stop_after: int | None

    def differs(self, path: bytes, how: str) -> None:
        """:raises _EnoughError: no more are asked for"""
        self.found.difference_count += 1
        if len(self.found.differences) < _NAMED:
            name = "the folder" if path == _ROOT else show(path)
            self.found.differences.append(f"{name} {how}")
        if self.found.difference_count == self.stop_after:
            raise _EnoughError

    def look_at(self, entry: Entry) -> None:
        self.found.entries += entry.path != _ROOT
        place = os.path.join(self.root, entry.path)
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return self.differs(entry.path, "is missing")
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
        if kind != entry.type:
            return self.differs(entry.path, f"is a {kind}, in the backup a {entry.type}")
        if entry.type == "symlink":
            target = os.readlink(place)
            if target != entry.target:
                self.differs(
                    entry.path, f"leads to {show(target)}, in the backup to {show(entry.target or b'')}"
                )
            return None
        mode = stat.S_IMODE(status.st_mode)
        if mode != entry.mode and entry.path != _ROOT:
            self.differs(entry.path, f"has mode {mode:04o}, in the backup {entry.mode:04o}")
        return self._look_at_file(entry, place) if entry.type == "file" else None

    def _look_at_file(self, entry: Entry, place: bytes) -> None:
        if entry.hard_link is not None:  # whose contents are looked at under the first name
            first = os.path.join(self.root, entry.hard_link)
            if os.path.lexists(first) and os.path.samestat(os.lstat(first), os.lstat(place)):
                self.found.files += 1
            else:
                self.differs(entry.path, f"is not the same file as {show(entry.hard_link)}, as in the backup")
            return
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return self.differs(entry.path, f"cannot be read: {error.strerror}")
        try:
            self._read(entry, descriptor)
        except OSError as error:
            self.differs(entry.path, f"cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _read(self, entry: Entry, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size != entry.size:
            return self.differs(entry.path, f"has {size} bytes, in the backup {entry.size}")
        read = _read_contents(descriptor, entry)
        if self.note_file is not None:
            self.note_file(entry.path, read.sha256)
        if read.size != entry.size:
            return self.differs(entry.path, f"ends after {read.size} bytes, in the backup after {entry.size}")
        if read.blake3 != entry.blake3:
            return self.differs(
                entry.path, f"has other contents: BLAKE3 {read.blake3}, in the backup {entry.blake3}"
            )
        if read.hole_at is not None:
            return self.differs(
                entry.path, f"has other contents: byte {read.hole_at} is in a hole, and not 0"
            )
        self.found.files += 1
        self.found.size_bytes += size
        return None


@dataclass(frozen=True)
class _Contents:
    """What was read of a file; ``hole_at`` is the first byte that is not 0 and lies in a hole."""

    size: int
    blake3: str
    sha256: str
    hole_at: int | None


def _read_contents(descriptor: int, entry: Entry) -> _Contents:
    """Read a file to its end: the backup's hash covers the extents of its data, and the rest has to be 0."""
    kept, whole = blake3(), hashlib.sha256()
    hole_at: int | None = None
    position = 0
    for end, is_data in _stretches(entry):
        while position < end and (data := os.pread(descriptor, min(_READ_BYTES, end - position), position)):
            whole.update(data)
            if is_data:
                kept.update(data)
            elif hole_at is None and data.count(0) != len(data):
                hole_at = position + len(data) - len(data.lstrip(b"\0"))
            position += len(data)
        if position < end:
            break
    return _Contents(position, kept.hexdigest(), whole.hexdigest(), hole_at)


def _stretches(entry: Entry) -> Iterator[tuple[int, bool]]:
    """Ends of the stretches of a file, one after the other, and whether they are data."""
    if entry.extents is None:
        yield entry.size, True
        return
    for start, length in entry.extents:
        yield start, False
        yield start + length, True
    yield entry.size, False
