"""The folder that pg_receivewal writes to, and from which finished segments go to the bucket.

::

    <spool>/lock          held by the receiver, and by the pg_receivewal that it started
    <spool>/system.json   whose WAL this is
    <spool>/status.json   what the receiver is doing, for people and for monitoring
    <spool>/segments/     pg_receivewal's folder
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError, SourceError
from fastvlm_ops.core.backup.postgresql.lsn import HISTORY_NAME, SEGMENT_NAME, Segment
from fastvlm_ops.core.backup.postgresql.wal_names import History
from fastvlm_ops.core.backup.postgresql.wal_store import write_flushed

_PARTIAL = ".partial"
_LOCK_SECONDS = 5.0


class SpoolBusyError(SourceError):
    """Another receiver uses the spool."""


class OtherSystemError(SourceError):
    """The spool holds WAL of another cluster than the one that answers."""


@dataclass(frozen=True)
class System:
    """The cluster that a spool is for."""

    system_id: str
    segment_bytes: int


@dataclass(frozen=True)
class Pending:
    """How much waits in the spool: finished segments that are not stored, and all that it takes up."""

    segments: int
    size_bytes: int


class Spool:
    """One component's spool.

    :param folder: made where absent, readable by its user alone
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments_folder = folder / "segments"
        self.status_file = folder / "status.json"
        self._system_file = folder / "system.json"
        self._stored: set[str] = set()

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the spool. The file descriptor is for the child, with which it stays locked until that ends.

        :raises SpoolBusyError: another receiver, or its child, holds it
        :raises SourceError: the folder cannot be made or written to
        """
        try:
            self.segments_folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, self.segments_folder):
                folder.chmod(0o700)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SourceError(f"the WAL spool {self.folder} cannot be used: {error.strerror}") from error
        try:
            _lock(descriptor, self.folder)
            yield descriptor
        finally:
            os.close(descriptor)

    # -- whose it is -------------------------------------------------------------------------------

    def system(self) -> System | None:
        """Return the cluster whose WAL is in the spool; None in a new one.

        :raises CorruptionError: the file that says it is broken
        """
        try:
            content = json.loads(self._system_file.read_bytes())
            return System(str(content["system_id"]), int(content["segment_bytes"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(
                f"{self._system_file} does not say whose WAL {self.folder} holds: {error!r}; if all segments"
                " of it are in the bucket, remove the folder"
            ) from error

    def claim(self, system: System) -> None:
        """Make the spool this cluster's.

        :raises OtherSystemError: it is another's
        """
        found = self.system()
        if found is None:
            content = {"system_id": system.system_id, "segment_bytes": system.segment_bytes}
            write_flushed(self._system_file, json.dumps(content).encode())
        elif found != system:
            raise OtherSystemError(
                f"{self.folder} holds WAL of the system {found.system_id}, but the server that answers is"
                f" {system.system_id}. Nothing was mixed. If the cluster was replaced, move {self.folder}"
                " away, start again, and run backup_full for a base backup of the new one"
            )

    # -- what is in it -----------------------------------------------------------------------------

    def finished(self, segment_bytes: int) -> list[Segment | History]:
        """Return what is finished and not known to be stored: histories first, then segments in order."""
        names = [name for name in self._names() if name not in self._stored]
        histories: list[Segment | History] = [
            History.parse(name) for name in sorted(names) if HISTORY_NAME.fullmatch(name)
        ]
        segments = [Segment.parse(name, segment_bytes) for name in names if SEGMENT_NAME.fullmatch(name)]
        return [*histories, *sorted(segments)]

    def path(self, item: Segment | History) -> Path:
        """Of the file of a segment or a history."""
        return self.segments_folder / item.name

    @property
    def is_empty(self) -> bool:
        """Whether pg_receivewal finds nothing to go on from."""
        return not any(SEGMENT_NAME.match(name) for name in self._names())

    def pending(self) -> Pending:
        """Return how much waits."""
        count = size_bytes = 0
        for entry in os.scandir(self.segments_folder):
            with contextlib.suppress(FileNotFoundError):
                size_bytes += entry.stat().st_blocks * 512
            if SEGMENT_NAME.fullmatch(entry.name) and entry.name not in self._stored:
                count += 1
        return Pending(count, size_bytes)

    def _names(self) -> list[str]:
        return os.listdir(self.segments_folder)

    # -- what becomes of it ------------------------------------------------------------------------

    def flush(self, item: Segment | History) -> datetime:
        """Flush a finished file to the disk; return when it was finished."""
        descriptor = os.open(self.path(item), os.O_RDONLY)
        try:
            os.fsync(descriptor)
            return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
        finally:
            os.close(descriptor)

    def mark_stored(self, item: Segment | History, segment_bytes: int) -> None:
        """Note that the bucket has a file, and remove what is not needed any more.

        The newest segment stays: pg_receivewal goes on after it. So do histories, which it asks for
        wherever they are missing.
        """
        self._stored.add(item.name)
        newest = self.newest(segment_bytes)
        for name in self._names():
            if SEGMENT_NAME.fullmatch(name) and name in self._stored and newest and name != newest.name:
                (self.segments_folder / name).unlink(missing_ok=True)
                self._stored.discard(name)
            elif name.endswith(_PARTIAL) and isinstance(item, Segment):
                self._remove_left_behind(name, item)

    def _remove_left_behind(self, name: str, stored: Segment) -> None:
        """Remove what was begun on a timeline that was left within this segment, which its child holds."""
        if not SEGMENT_NAME.fullmatch(name.removesuffix(_PARTIAL)):
            return
        begun = Segment.parse(name.removesuffix(_PARTIAL), stored.segment_bytes)
        if begun.timeline < stored.timeline and begun.number <= stored.number:
            (self.segments_folder / name).unlink(missing_ok=True)

    def newest(self, segment_bytes: int) -> Segment | None:
        """Return the segment after which pg_receivewal goes on: the highest, of the highest timeline."""
        found = [Segment.parse(name, segment_bytes) for name in self._names() if SEGMENT_NAME.fullmatch(name)]
        return max(found, key=lambda segment: (segment.number, segment.timeline), default=None)

    def begin_at(self, segment: Segment) -> None:
        """Have pg_receivewal begin with a segment, in an empty spool: as if it had begun it before."""
        (self.segments_folder / f"{segment.name}{_PARTIAL}").touch(mode=0o600)

    def forget_position(self) -> None:
        """Remove all but what is to be stored: pg_receivewal begins where the slot or the server is."""
        for name in self._names():
            is_begun = name.endswith(_PARTIAL) and SEGMENT_NAME.match(name)
            if is_begun or (SEGMENT_NAME.fullmatch(name) and name in self._stored):
                (self.segments_folder / name).unlink(missing_ok=True)
                self._stored.discard(name)

    def write_status(self, status: dict[str, Any]) -> None:
        """Write the status file; a reader sees no half of it."""
        temporary = self.status_file.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(status, indent=1) + "\n")
        temporary.replace(self.status_file)


def _lock(descriptor: int, folder: Path) -> None:
    # The child of a receiver that was killed ends a moment after it.
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SpoolBusyError(
                    f"another receiver uses the WAL spool {folder}; stop it first, or give this one another"
                    " folder ([fastvlm_ops] wal_spool_dir)"
                ) from None
            time.sleep(0.1)
        else:
            return
