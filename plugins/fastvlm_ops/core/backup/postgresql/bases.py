"""Base backups as their manifests prove them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastvlm_ops.core.backup.errors import BackupError, CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn, parse_lsn
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.repository import Repository

EVIDENCE = "postgresql"
_READERS = 4


@dataclass(frozen=True)
class Base:
    """A base backup. Times are by the server's clock.

    ``reach_lsn`` is to where WAL follows its start without a gap; None where not even the segment that it
    starts in is stored. ``is_damaged`` is what the last verification found.
    """

    snapshot_id: str
    system_id: str
    version: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    segment_bytes: int
    started_at: datetime
    stopped_at: datetime
    is_damaged: bool = False
    reach_lsn: int | None = None

    @property
    def first_segment(self) -> Segment:
        """The segment that recovery begins to read."""
        return Segment.of(self.timeline, self.start_lsn, self.segment_bytes)

    @property
    def is_usable(self) -> bool:
        """Whether it can be brought to a consistent state."""
        return not self.is_damaged and self.reach_lsn is not None and self.reach_lsn >= self.stop_lsn

    def as_dict(self) -> dict[str, Any]:
        return {
            "snapshot_id": self.snapshot_id,
            "system_id": self.system_id,
            "version": self.version,
            "timeline": self.timeline,
            "start_lsn": format_lsn(self.start_lsn),
            "stop_lsn": format_lsn(self.stop_lsn),
            "stopped_at": self.stopped_at.isoformat(),
            "reach_lsn": None if self.reach_lsn is None else format_lsn(self.reach_lsn),
            "usable": self.is_usable,
        }


def base_of(manifest: dict[str, Any], *, is_damaged: bool = False) -> Base | None:
    """Return the base backup that a manifest describes; None where it is of something else.

    :raises CorruptionError: its evidence is not whole
    """
    evidence = manifest.get("evidence") or {}
    found = evidence.get(EVIDENCE)
    if found is None:
        return None
    try:
        base = Base(
            manifest["snapshot_id"],
            str(found["system_id"]),
            str(found["version"]),
            int(found["timeline"]),
            parse_lsn(found["start_lsn"]),
            parse_lsn(found["stop_lsn"]),
            int(found["segment_bytes"]),
            _time(found["started_at"]),
            _time(found["stopped_at"]),
            is_damaged,
        )
        if base.timeline < 1 or base.stop_lsn < base.start_lsn or base.segment_bytes < 1 << 20:
            raise ValueError("it contradicts itself")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"the manifest of {manifest['snapshot_id']} does not say what its base backup is: {error!r}"
        ) from error
    return base


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)


def read_bases(
    repository: Repository, records: Iterable[dict[str, Any]]
) -> tuple[list[Base], dict[str, BackupError]]:
    """Return the base backups among snapshots, in their order, and why others cannot be read, by id.

    :param records: entries of the log
    """
    wanted = list(records)
    checks = repository.log.state.checks

    def read(record: dict[str, Any]) -> Base | BackupError | None:
        is_damaged = "damaged" in checks.get(record["snapshot_id"], {})
        try:
            return base_of(read_manifest(repository, record), is_damaged=is_damaged)
        except CorruptionError as error:
            return error

    with ThreadPoolExecutor(_READERS, thread_name_prefix="manifest") as pool:
        found = list(pool.map(read, wanted))
    bases = [item for item in found if isinstance(item, Base)]
    unreadable = {
        record["snapshot_id"]: item
        for record, item in zip(wanted, found, strict=True)
        if isinstance(item, BackupError)
    }
    return bases, unreadable
