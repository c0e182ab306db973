"""``backup_manifest`` and ``backup_label`` of a base backup: what they say of it, read as they come."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn

_LINE_BYTES = 64 << 10  # a path has at most 1024 bytes
_LABEL_BYTES = 64 << 10
_VERSIONS = (1, 2)  # 2 since PostgreSQL 17, with the system identifier


@dataclass(frozen=True)
class WalRange:
    """WAL that must be replayed for the base to be consistent, on one timeline."""

    timeline: int
    start_lsn: int
    stop_lsn: int


@dataclass(frozen=True)
class BackupManifest:
    """What a manifest says.

    :param files: how many it lists outside pg_wal, of which it lists no segments
    :param size_bytes: of those
    :param system_id: of the cluster; None before PostgreSQL 17
    """

    files: int
    size_bytes: int
    ranges: tuple[WalRange, ...]
    system_id: str | None


@dataclass
class ManifestReader:
    """Reads a manifest a line at a time, as PostgreSQL writes it, so that memory does not grow with it."""

    _hasher: Any = field(default_factory=hashlib.sha256)
    _rest: bytes = b""
    _files: int = 0
    _size_bytes: int = 0
    _ranges: list[WalRange] = field(default_factory=list)
    _version: int | None = None
    _system_id: str | None = None
    _checksum: str | None = None

    def feed(self, data: bytes) -> None:
        """Read what comes next of it.

        :raises SourceError: it is malformed
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            raise SourceError("backup_manifest is malformed: a line of it does not end")
        for line in lines:
            self._take(line)

    def finish(self) -> BackupManifest:
        """Return what it says, all of it having been read.

        :raises SourceError: it is malformed, or its own checksum is wrong
        """
        if self._rest or self._checksum is None or self._version not in _VERSIONS or not self._ranges:
            raise SourceError("backup_manifest is incomplete, or of a version that is not known")
        if self._checksum != self._hasher.hexdigest():
            raise SourceError("backup_manifest is damaged: its checksum is not the one at its end")
        return BackupManifest(self._files, self._size_bytes, tuple(self._ranges), self._system_id)

    def _take(self, line: bytes) -> None:
        if self._checksum is not None:
            raise SourceError("backup_manifest goes on after its end")
        try:
            if line.startswith(b'"Manifest-Checksum"'):
                self._checksum = json.loads(b"{" + line)["Manifest-Checksum"]
                return
            self._hasher.update(line + b"\n")
            if line.startswith(b'{ "PostgreSQL-Backup-Manifest-Version"'):
                self._version = json.loads(line.rstrip(b",") + b"}")["PostgreSQL-Backup-Manifest-Version"]
            elif line.startswith(b'"System-Identifier"'):
                self._system_id = str(json.loads(b"{" + line.rstrip(b",") + b"}")["System-Identifier"])
            elif line.startswith(b"{"):
                self._take_item(json.loads(line.rstrip(b",")))
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"backup_manifest is malformed: {error}") from None

    def _take_item(self, item: dict[str, Any]) -> None:
        if "Size" in item:
            if not item.get("Path", "").startswith("pg_wal/"):
                self._files += 1
                self._size_bytes += item["Size"]
        else:
            start, stop = parse_lsn(item["Start-LSN"]), parse_lsn(item["End-LSN"])
            self._ranges.append(WalRange(item["Timeline"], start, stop))


@dataclass(frozen=True)
class BackupLabel:
    """What ``backup_label`` says."""

    start_lsn: int
    timeline: int
    label: str

    @classmethod
    def parse(cls, content: bytes) -> BackupLabel:
        """:raises SourceError: it is malformed"""
        text = content[:_LABEL_BYTES].decode(errors="replace")
        start = re.search(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) ", text, re.M)
        timeline = re.search(r"^START TIMELINE: (\d+)$", text, re.M)
        label = re.search(r"^LABEL: (.*)$", text, re.M)
        if start is None or timeline is None or label is None:
            raise SourceError("backup_label is malformed: it does not say where the backup begins")
        return cls(parse_lsn(start[1]), int(timeline[1]), label[1])
