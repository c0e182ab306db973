"""WAL in the bucket: each finished segment, and each timeline's history, as one sealed object.

Names say everything that a listing has to tell (docs/backup-format.md §10); they are claimed, so that a
segment is written once and never replaced by another one of its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.postgresql.lsn import DEFAULT_SEGMENT_BYTES, SEGMENT_NAME, Segment
from fastvlm_ops.core.backup.postgresql.wal_names import (
    History,
    StoredHistory,
    StoredSegment,
    WalListing,
    list_wal,
    object_name,
    wal_prefix,
)
from fastvlm_ops.core.backup.postgresql.wal_pages import LastTransaction, check_segment, last_transaction
from fastvlm_ops.core.backup.repository import Repository

KIND = "W"
_LENGTH = struct.Struct("<I")
_HEADER_LIMIT_BYTES = 1 << 16
_HISTORY_LIMIT_BYTES = 1 << 20
_SEGMENT_LIMIT_BYTES = 1 << 30  # PostgreSQL's own
_SLACK_BYTES = 1 << 17  # headers, and what compression adds to what does not shrink


@dataclass(frozen=True)
class WalHeader:
    """What an object of WAL says of its contents.

    ``closed_at`` is when the receiver saw the file finished, by its own clock; of what
    :func:`~.wal_pages.last_transaction` finds, the time is by the server's. Of a history file,
    ``segment_bytes`` is 0.
    """

    file: str
    system_id: str
    timeline: int
    segment_bytes: int
    closed_at: datetime
    sha256: str
    last: LastTransaction | None = None

    @property
    def last_transaction_at(self) -> datetime | None:
        """When the last transaction in it ended, by the server's clock; None where none did."""
        return None if self.last is None else self.last.ended_at

    def to_json(self) -> bytes:
        content: dict[str, Any] = {
            "segment": self.file,
            "system_id": self.system_id,
            "timeline": self.timeline,
            "segment_bytes": self.segment_bytes,
            "closed_at": self.closed_at.astimezone(UTC).isoformat(),
            "sha256": self.sha256,
        }
        if self.last is not None:
            content["last_transaction_at"] = self.last.ended_at.isoformat()
            content["last_transaction_id"] = self.last.transaction_id
        return json.dumps(content).encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> WalHeader:
        """:raises CorruptionError: it is no such header"""
        try:
            content = json.loads(data)
            last = None
            if "last_transaction_at" in content:
                ended_at = datetime.fromisoformat(content["last_transaction_at"]).astimezone(UTC)
                last = LastTransaction(ended_at, int(content["last_transaction_id"]))
            return cls(
                str(content["segment"]),
                str(content["system_id"]),
                int(content["timeline"]),
                int(content["segment_bytes"]),
                datetime.fromisoformat(content["closed_at"]).astimezone(UTC),
                str(content["sha256"]),
                last,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"{name} has no header of WAL: {error!r}") from error


class WalStore:
    """The WAL of one component.

    :param repository: an opened one
    :param component: its name
    :raises StorageError: or a subclass, from every method
    """

    def __init__(self, repository: Repository, component: str) -> None:
        self.repository = repository
        self.component = component
        self._prefix = wal_prefix(component)

    # -- what is there -----------------------------------------------------------------------------

    def systems(self) -> dict[str, WalListing]:
        """Return what is listed, by system identifier."""
        listed = list_wal(self.repository.storage.list(self._prefix))
        return listed.get(self.component, {})

    def segments(self, system_id: str, segment_bytes: int | None = None) -> list[StoredSegment]:
        """Return the segments of a system in the order of their names: by timeline, then by number.

        :param segment_bytes: as a base backup of the system says; read from one of them where not given
        :raises CorruptionError: a name is none of a segment of that size
        """
        listing = self._listing(system_id)
        if segment_bytes is None and listing.segments:
            segment_bytes = self.header(listing.segments[-1].name).segment_bytes
        return listing.parsed(segment_bytes or DEFAULT_SEGMENT_BYTES)

    def histories(self, system_id: str) -> list[StoredHistory]:
        """Return the histories of a system's timelines, by timeline."""
        return sorted(self._listing(system_id).histories, key=lambda stored: stored.history)

    def _listing(self, system_id: str) -> WalListing:
        listed = list_wal(self.repository.storage.list(wal_prefix(self.component, system_id)))
        return listed.get(self.component, {}).get(system_id, WalListing())

    # -- writing -----------------------------------------------------------------------------------

    def put_segment(self, path: Path, *, system_id: str, segment: Segment, closed_at: datetime) -> bool:
        """Store a finished segment; once it returns, the bucket has it.

        :param path: its file
        :param closed_at: when it was finished
        :returns: whether it was new; one with the same bytes may be there already
        :raises CorruptionError: the file is another segment, or another system's; or the bucket has other
            bytes under this name: the timeline was used twice, or the cluster was copied
        """
        data = _read(path, segment.segment_bytes)
        check_segment(data, segment, system_id, str(path))
        header = WalHeader(
            segment.name,
            system_id,
            segment.timeline,
            segment.segment_bytes,
            closed_at,
            hashlib.sha256(data).hexdigest(),
            last_transaction(data, str(path)),
        )
        return self._put(object_name(self.component, system_id, segment), header, data)

    def put_history(self, path: Path, *, system_id: str, timeline: int) -> bool:
        """Store the history of a timeline.

        :param path: its file
        :returns: whether it was new
        :raises CorruptionError: the bucket has another history of this timeline
        """
        history = History(timeline)
        data = _read(path, _HISTORY_LIMIT_BYTES)
        closed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        digest = hashlib.sha256(data).hexdigest()
        header = WalHeader(history.name, system_id, timeline, 0, closed_at, digest)
        return self._put(object_name(self.component, system_id, history), header, data)

    def _put(self, name: str, header: WalHeader, data: bytes) -> bool:
        self.repository.require_conditional_writes()
        encoded = header.to_json()
        payload = _LENGTH.pack(len(encoded)) + encoded + data
        if self.repository.storage.claim(name, self.repository.seal(KIND, name, payload)):
            return True
        found = self.header(name, limit_bytes=max(len(data), _HISTORY_LIMIT_BYTES))
        if found.sha256 != header.sha256:
            raise CorruptionError(
                f"{name} is in the bucket with other bytes: this timeline was used before, by another copy of"
                " the cluster or after a restore to another moment without promotion. Nothing was replaced;"
                " give the component another name, or take the other cluster's receiver away"
            )
        return False

    # -- reading -----------------------------------------------------------------------------------

    def header(self, name: str, *, limit_bytes: int = _SEGMENT_LIMIT_BYTES) -> WalHeader:
        """Return what an object says of its contents, which are read and checked for it.

        :param name: of the object, as listed
        :param limit_bytes: of the contents
        :raises CorruptionError: it is damaged, missing, larger, or under another's name
        """
        return self._open(name, limit_bytes)[0]

    def fetch(self, item: Segment | History, system_id: str, into: Path) -> WalHeader:
        """Write a segment or a history into a folder, under its own name once it is whole and flushed.

        :param item: which one
        :param into: the folder
        :raises CorruptionError: it is damaged, missing, or another's
        :raises OSError: the folder cannot be written to
        """
        limit = item.segment_bytes if isinstance(item, Segment) else _HISTORY_LIMIT_BYTES
        header, data = self._open(object_name(self.component, system_id, item), limit)
        if isinstance(item, Segment):
            check_segment(data, item, system_id, header.file)
        write_flushed(into / item.name, data)
        return header

    def read_history(self, history: History, system_id: str) -> str:
        """Return the text of a history file.

        :raises CorruptionError: it is damaged, missing, or not text
        """
        name = object_name(self.component, system_id, history)
        try:
            return self._open(name, _HISTORY_LIMIT_BYTES)[1].decode()
        except UnicodeDecodeError as error:
            raise CorruptionError(f"{name} is not the text of a timeline's history") from error

    def _open(self, name: str, limit_bytes: int) -> tuple[WalHeader, bytes]:
        _, component, system_id, _, file = name.split("/")
        is_segment = SEGMENT_NAME.fullmatch(file) is not None
        storage = self.repository.storage
        try:
            sealed = storage.get(name, limit_bytes=limit_bytes + limit_bytes // 64 + _SLACK_BYTES)
        except ObjectNotFoundError as error:
            raise CorruptionError(f"the WAL {error}") from error
        limit = limit_bytes + _HEADER_LIMIT_BYTES + _LENGTH.size
        payload = self.repository.unseal(KIND, name, sealed, limit_bytes=limit)
        header, data = _split(payload, name)
        if (component, header.system_id, header.file) != (self.component, system_id, file):
            raise CorruptionError(f"{name} holds {header.file} of system {header.system_id}")
        expected_timeline = int(file[:8], 16)
        wrong_size = is_segment and len(data) != header.segment_bytes
        if header.timeline != expected_timeline or wrong_size:
            raise CorruptionError(f"{name} holds {len(data)} bytes of timeline {header.timeline}")
        if hashlib.sha256(data).hexdigest() != header.sha256:
            raise CorruptionError(f"{name} does not hold what its header says (SHA-256)")
        return header, data


def _split(payload: bytes, name: str) -> tuple[WalHeader, bytes]:
    if len(payload) < _LENGTH.size:
        raise CorruptionError(f"{name} holds {len(payload)} bytes, which is no WAL")
    (length,) = _LENGTH.unpack_from(payload)
    end = _LENGTH.size + length
    if length > _HEADER_LIMIT_BYTES or end > len(payload):
        raise CorruptionError(f"{name} states a header of {length} bytes")
    return WalHeader.from_json(payload[_LENGTH.size : end], name), payload[end:]


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise CorruptionError(f"{path} is larger than {limit_bytes} bytes")
    return data


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, and give it its own: never half a file.

    :raises OSError: the folder cannot be written to
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
