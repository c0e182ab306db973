"""What proves that a base backup came whole, and is of one cluster on one timeline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any

from fastvlm_ops.core.backup.chunking import ReadInto
from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.backup_manifest import (
    BackupLabel,
    BackupManifest,
    ManifestReader,
    WalRange,
)
from fastvlm_ops.core.backup.postgresql.cluster import Cluster
from fastvlm_ops.core.backup.postgresql.lsn import SEGMENT_NAME, Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.tar_stream import Member

_LABEL, _MANIFEST, _CONTROL = b"backup_label", b"backup_manifest", b"global/pg_control"
_WAL = b"pg_wal/"
_LABEL_BYTES = 64 << 10


class BaseProof:
    """Watches the members of a base as they are stored, and then says what they prove.

    :param before: the cluster, before the backup began
    :param label: of the backup, which no other one has
    """

    def __init__(self, before: Cluster, label: str) -> None:
        self.label = label
        self._before = before
        self._content = b""
        self._manifest = ManifestReader()
        self._manifest_came = self._control_came = False
        self._files = self._size_bytes = 0
        self._segments: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether the last member, the manifest, has come."""
        return self._manifest_came

    def watch(self, member: Member, read_into: ReadInto) -> ReadInto:
        """Take note of a file; return what its contents are to be read with."""
        if member.name == _MANIFEST:
            self._manifest_came = True
            return _copying(read_into, self._manifest.feed)
        if member.name.startswith(_WAL):
            self._take_segment(member)
            return read_into
        self._files += 1
        self._size_bytes += member.size_bytes
        self._control_came |= member.name == _CONTROL
        if member.name == _LABEL and member.size_bytes <= _LABEL_BYTES:
            return _copying(read_into, self._take_label)
        return read_into

    def evidence(self, after: Cluster) -> dict[str, Any]:
        """Return what the manifest of the snapshot says of the base.

        :param after: the cluster, when all had come
        :raises SourceError: something is missing, or is not what it must be
        """
        if not (self._manifest_came and self._control_came and self._content):
            raise DumpError("backup_manifest, backup_label or global/pg_control did not come")
        manifest, label = self._manifest.finish(), BackupLabel.parse(self._content)
        self._check_files(manifest)
        wal = self._wal_range(manifest, label)
        self._check_cluster(manifest, label, after)
        self._check_segments(wal)
        return {
            "system_id": after.system_id,
            "version": after.version,
            "major": after.major,
            "timeline": wal.timeline,
            "start_lsn": format_lsn(wal.start_lsn),
            "stop_lsn": format_lsn(wal.stop_lsn),
            "segment_bytes": after.segment_bytes,
            "started_at": self._before.now.astimezone(UTC).isoformat(),
            "stopped_at": after.now.astimezone(UTC).isoformat(),
            "superuser": after.superuser,
        }

    def _take_label(self, data: bytes) -> None:
        self._content += data

    def _take_segment(self, member: Member) -> None:
        name = member.name.removeprefix(_WAL).decode(errors="replace")
        if SEGMENT_NAME.fullmatch(name) and member.size_bytes == self._before.segment_bytes:
            self._segments.add(name)

    def _check_files(self, manifest: BackupManifest) -> None:
        if (manifest.files, manifest.size_bytes) != (self._files, self._size_bytes):
            raise DumpError(
                f"{self._files} files of {self._size_bytes} bytes came, but backup_manifest lists"
                f" {manifest.files} of {manifest.size_bytes} bytes"
            )

    def _wal_range(self, manifest: BackupManifest, label: BackupLabel) -> WalRange:
        if len(manifest.ranges) != 1:
            raise DumpError("the timeline changed while the base was read")
        (wal,) = manifest.ranges
        if (wal.start_lsn, wal.timeline) != (label.start_lsn, label.timeline):
            raise SourceError("backup_label and backup_manifest say different things of where it begins")
        return wal

    def _check_cluster(self, manifest: BackupManifest, label: BackupLabel, after: Cluster) -> None:
        before = self._before
        if label.label != self.label:
            raise SourceError(f"backup_label is of another backup, {label.label!r}")
        systems = {before.system_id, after.system_id, manifest.system_id or before.system_id}
        if len(systems) > 1:
            raise DumpError(f"the address led to several clusters meanwhile: systems {', '.join(systems)}")
        timelines = {before.timeline, after.timeline, label.timeline}
        if len(timelines) > 1:
            raise DumpError(f"the timeline changed while the base was read: {sorted(timelines)}")

    def _check_segments(self, wal: WalRange) -> None:
        """Whether the WAL that makes the base consistent is in it."""
        size = self._before.segment_bytes
        segment, last = (Segment.of(wal.timeline, lsn, size) for lsn in (wal.start_lsn, wal.stop_lsn - 1))
        while segment <= last:
            if segment.name not in self._segments:
                raise DumpError(f"the WAL segment {segment.name}, which the base needs, did not come with it")
            segment = segment.next()


def _copying(read_into: ReadInto, take: Callable[[bytes], None]) -> ReadInto:
    """Read as ``read_into`` does, and show what was read."""

    def read(buffer: memoryview) -> int:
        count = read_into(buffer)
        if count:
            take(bytes(buffer[:count]))
        return count

    return read
