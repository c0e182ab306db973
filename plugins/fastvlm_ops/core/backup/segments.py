"""Keeping the index in few segments that name only what is there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fastvlm_ops.core.backup.index import ChunkIndex, PackRecords, encode_segment
from fastvlm_ops.core.backup.repository import Repository

_SMALL_BYTES = 1 << 20
_MANY = 16  # small segments, each a request of every run, before they are merged
_PART_BYTES = 64 << 20  # of records, far below what a reader accepts


@dataclass(frozen=True)
class SegmentPlan:
    """What is to become of the segments that were listed.

    ``unneeded`` are superseded, or name nothing that stays; they can go. ``replaced`` name packs that are
    gone, cannot be read, or are many and small: one segment takes the place of all, with the records of
    ``packs``.
    """

    unneeded: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    packs: frozenset[str] = frozenset()

    @property
    def rewrites(self) -> bool:
        return bool(self.replaced or self.packs)


def plan_segments(index: ChunkIndex, leaving: Collection[str], young: Collection[str]) -> SegmentPlan:
    """Plan for what is left when the packs ``leaving`` are gone.

    :param young: packs of runs that may be under way: they will write a segment for theirs themselves
    """
    staying = {pack.name for pack in index.packs()} - set(leaving)
    unindexed = {pack.name for pack in index.adopted} & staying - set(young)
    unneeded, replaced, small = [], [], []
    for name, segment in index.segments.items():
        packs = set(segment.packs)
        if segment.is_superseded or (name not in index.damaged and not packs & staying):
            unneeded.append(name)
        elif name in index.damaged or not packs <= staying:
            replaced.append(name)
        elif segment.size_bytes <= _SMALL_BYTES:
            small.append(name)
    if len(small) >= _MANY:
        replaced += small
    named = {pack for name in replaced for pack in index.segments[name].packs}
    return SegmentPlan(tuple(unneeded), tuple(replaced), frozenset((named & staying) | unindexed))


def rewrite_segments(repository: Repository, index: ChunkIndex, plan: SegmentPlan, prefix: str) -> int:
    """Store the segment that takes the place of others; in several parts where it is large.

    The last part supersedes, so that nothing is hidden before all of its records are stored. It also
    supersedes what an earlier segment had superseded: that one may be gone first.

    :param prefix: below ``index/``, of this collection alone
    :returns: bytes stored.
    """
    if not plan.rewrites:
        return 0
    stored = 0
    parts = list(_parts(index, plan.packs)) or [[]]
    for number, packs in enumerate(parts):
        name = f"{prefix}/{number:05d}"
        supersedes = (*plan.replaced, *plan.unneeded) if number == len(parts) - 1 else ()
        data = repository.seal("I", name, encode_segment(packs, supersedes))
        repository.storage.put(name, data)
        stored += len(data)
    return stored


def _parts(index: ChunkIndex, wanted: Collection[str]) -> Iterator[list[PackRecords]]:
    part: list[PackRecords] = []
    size_bytes = 0
    for pack in index.packs():
        if pack.name in wanted:
            part.append(pack)
            size_bytes += len(pack.records)
            if size_bytes >= _PART_BYTES:
                yield part
                part, size_bytes = [], 0
    if part:
        yield part
