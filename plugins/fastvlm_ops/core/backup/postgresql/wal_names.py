"""Names of WAL in the bucket: what a listing says without anything being read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import HISTORY_NAME, SEGMENT_NAME, Segment
from fastvlm_ops.core.backup.storage import ObjectInfo

_SYSTEM_ID = re.compile(r"[1-9][0-9]{0,19}")
_COMPONENT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TIMELINE = re.compile(r"[0-9A-F]{8}")


@dataclass(frozen=True, order=True)
class History:
    """The history file of a timeline, which says where it and its ancestors branched off."""

    timeline: int

    @classmethod
    def parse(cls, name: str) -> History:
        """:raises CorruptionError: no history file has such a name"""
        if HISTORY_NAME.fullmatch(name) is None or not int(name[:8], 16):
            raise CorruptionError(f"{name!r} is no name of a timeline's history")
        return cls(int(name[:8], 16))

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.timeline:08X}.history"


@dataclass(frozen=True)
class StoredSegment:
    """A segment that the bucket lists. ``stored_at`` is by S3's clock."""

    segment: Segment
    name: str
    size_bytes: int
    stored_at: datetime


@dataclass(frozen=True)
class StoredHistory:
    """A timeline's history that the bucket lists."""

    history: History
    name: str
    size_bytes: int
    stored_at: datetime


@dataclass
class WalListing:
    """What is listed of one system: names of segments, by timeline and name, and of histories."""

    segments: list[ObjectInfo] = field(default_factory=list)
    histories: list[StoredHistory] = field(default_factory=list)

    @property
    def newest_at(self) -> datetime:
        """When the newest of them was stored, by S3's clock."""
        return max(item.last_modified for item in self.segments) if self.segments else self._newest_history

    @property
    def _newest_history(self) -> datetime:
        return max(item.stored_at for item in self.histories)

    def parsed(self, segment_bytes: int) -> list[StoredSegment]:
        """Return the segments, in the order of their names.

        :raises CorruptionError: a name is none of a segment of that size
        """
        return [
            StoredSegment(
                Segment.parse(info.name.rpartition("/")[2], segment_bytes),
                info.name,
                info.size_bytes,
                info.last_modified,
            )
            for info in self.segments
        ]


def wal_prefix(component: str, system_id: str = "") -> str:
    """Return what the names of a component's WAL begin with, of one system or of all.

    :raises CorruptionError: such a component or system cannot be
    """
    if _COMPONENT.fullmatch(component) is None:
        raise CorruptionError(f"{component!r} cannot be a component")
    if not system_id:
        return f"wal/{component}/"
    if _SYSTEM_ID.fullmatch(system_id) is None:
        raise CorruptionError(f"{system_id!r} cannot be a system identifier")
    return f"wal/{component}/{system_id}/"


def object_name(component: str, system_id: str, item: Segment | History) -> str:
    """Return the name of the object that holds a segment or a history."""
    return f"{wal_prefix(component, system_id)}{item.timeline:08X}/{item.name}"


def list_wal(objects: Iterable[ObjectInfo]) -> dict[str, dict[str, WalListing]]:
    """Sort listed names by component and system. What has no name of WAL is nothing that we wrote.

    :param objects: listed below ``wal/``
    """
    found: dict[str, dict[str, WalListing]] = {}
    for info in objects:
        parts = info.name.split("/")
        if len(parts) != 5:
            continue
        _, component, system_id, timeline, file = parts
        if not (_COMPONENT.fullmatch(component) and _SYSTEM_ID.fullmatch(system_id)):
            continue
        if not _TIMELINE.fullmatch(timeline) or not int(timeline, 16) or not file.startswith(timeline):
            continue
        listing = found.setdefault(component, {})
        if SEGMENT_NAME.fullmatch(file):
            listing.setdefault(system_id, WalListing()).segments.append(info)
        elif HISTORY_NAME.fullmatch(file):
            stored = StoredHistory(History.parse(file), info.name, info.size_bytes, info.last_modified)
            listing.setdefault(system_id, WalListing()).histories.append(stored)
    return found
