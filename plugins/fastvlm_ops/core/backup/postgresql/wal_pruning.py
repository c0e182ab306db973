"""Which WAL no kept base backup can need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fastvlm_ops.core.backup.postgresql.bases import Base, base_of, read_bases
from fastvlm_ops.core.backup.postgresql.lsn import SEGMENT_NAME, Segment
from fastvlm_ops.core.backup.postgresql.wal_names import WalListing, list_wal, wal_prefix
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.storage import ObjectInfo


def removable_wal(repository: Repository, kept_records: Iterable[dict[str, Any]]) -> list[ObjectInfo]:
    """Return the segments that may go: those before the oldest kept base backup of their system, but for
    those of a timeline that no kept base has reached: its first base may be under way.

    WAL of a system without a kept base backup goes only where another system of the component has one, and
    WAL that was stored later: whoever has just moved to a new cluster keeps both. Histories stay, a few
    hundred bytes each.

    :param repository: an opened one, whose log was read before
    :param kept_records: ``snapshot`` entries of the log, of all components, that stay
    :raises CorruptionError: a manifest cannot be read, so that it is not known what it needs; nothing may go
    :raises StorageError: or a subclass: the bucket cannot be read
    """
    # Only components that have WAL: the manifests of others say nothing about it.
    listed = list_wal(repository.storage.list("wal/"))
    records = [record for record in kept_records if record["component"] in listed]
    bases, unreadable = read_bases(repository, records)
    if unreadable:
        raise next(iter(unreadable.values()))
    components = {record["snapshot_id"]: record["component"] for record in records}
    removable: list[ObjectInfo] = []
    for component, systems in listed.items():
        of_it = [base for base in bases if components[base.snapshot_id] == component]
        removable += _of_component(of_it, systems)
    return removable


def needs_any_of(manifest: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether recovery from a base backup reads any of some segments.

    :param manifest: of the base backup
    :param names: of objects
    :raises CorruptionError: the manifest does not say what base it is, or a name is none of its WAL
    """
    base = base_of(dict(manifest))
    if base is None:
        return False
    prefix = wal_prefix(manifest["component"], base.system_id)
    files = (name.rpartition("/")[2] for name in names if name.startswith(prefix))
    segments = [Segment.parse(file, base.segment_bytes) for file in files if SEGMENT_NAME.fullmatch(file)]
    return any(
        segment.number >= base.first_segment.number and segment.timeline >= base.timeline
        for segment in segments
    )


def _of_component(bases: list[Base], systems: Mapping[str, WalListing]) -> list[ObjectInfo]:
    with_segments = {system_id: listing for system_id, listing in systems.items() if listing.segments}
    if not bases or not with_segments:
        return []
    systems_with_base = {base.system_id for base in bases}
    stored_at = [found.newest_at for name, found in with_segments.items() if name in systems_with_base]
    found: list[ObjectInfo] = []
    for system_id, listing in with_segments.items():
        own = [base for base in bases if base.system_id == system_id]
        if own:
            first = min(base.first_segment.number for base in own)
            newest_timeline = max(base.timeline for base in own)
            stored = listing.parsed(own[0].segment_bytes)
            before = {
                item.name
                for item in stored
                if item.segment.number < first and item.segment.timeline <= newest_timeline
            }
            found += [info for info in listing.segments if info.name in before]
        # S3 tells times by the second: of two in the same one, either may be the later.
        elif any(listing.newest_at < moment for moment in stored_at):
            found += listing.segments
    return found
