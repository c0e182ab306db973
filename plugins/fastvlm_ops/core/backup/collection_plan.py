"""What a collection would remove, and why it would refuse to. Decides only: nothing is written here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fastvlm_ops.core.backup.commit_log import CONDEMNED, LogState
from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.index import ChunkIndex, load_index
from fastvlm_ops.core.backup.liveness import Liveness, NeededChunks
from fastvlm_ops.core.backup.progress import ProgressMeter, format_bytes
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.segments import SegmentPlan, plan_segments
from fastvlm_ops.core.backup.storage import ObjectInfo

MOST_PACKS = 50_000  # an entry of the log of 4 MB; the rest waits for the next collection
_LISTED = 50

IsYoung = Callable[[datetime | None], bool]

MALFORMED = (CorruptionError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class CollectionLimits:
    """What a collection may do.

    Unneeded objects younger than ``keep_unreferenced``, by S3's clock, are left alone: a run under way may
    come to need them. That only saves work: no run relies on it. Packs of which a share of more than
    ``max_waste`` is not needed are emptied by copying, up to ``copy_limit_bytes`` in one collection. When
    more than ``max_share`` of all bytes would go, it refuses.
    """

    keep_unreferenced: timedelta
    max_waste: float
    copy_limit_bytes: int
    max_share: float

    def __post_init__(self) -> None:
        for name in ("max_waste", "max_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it has to be a share from 0 to 1")
        if self.keep_unreferenced < timedelta(0) or self.copy_limit_bytes < 0:
            raise ValueError("keep_unreferenced and copy_limit_bytes have to be zero or more")


@dataclass(frozen=True)
class CollectionPlan:
    """What would go. Sizes in bytes.

    ``packs`` are to be condemned; needed chunks in ``emptied`` ones among them are copied or checked first,
    ``copied_bytes`` of them. ``removed_bytes`` are the sizes of packs and WAL to be removed, of
    ``total_bytes`` that there are; ``share`` is the part of all bytes that nobody could read any more
    afterwards. Packs that an earlier entry has condemned are in none of these. ``locked`` maps what an
    earlier collection could not remove to the date of its lock; its packs have ``locked_bytes``, which no
    other figure counts. ``postponed`` counts packs left to the next collection, by its limits.
    """

    packs: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    wal: tuple[str, ...] = ()
    rewritten: int = 0
    unfinished: int = 0
    removed_bytes: int = 0
    copied_bytes: int = 0
    total_bytes: int = 0
    postponed: int = 0
    refusal: str | None = None
    locked: dict[str, str | None] = field(default_factory=dict)
    locked_bytes: int = 0

    @property
    def share(self) -> float:
        return (self.removed_bytes - self.copied_bytes) / self.total_bytes if self.total_bytes else 0.0

    @property
    def does_nothing(self) -> bool:
        return not (self.packs or self.indexes or self.manifests or self.wal or self.rewritten)

    def as_dict(self) -> dict[str, Any]:
        """Small enough for XCom: counts and sizes, and the first of what is locked."""
        return {
            "packs": len(self.packs),
            "emptied": len(self.emptied),
            "indexes": len(self.indexes),
            "manifests": len(self.manifests),
            "wal": len(self.wal),
            "rewritten": self.rewritten,
            "unfinished": self.unfinished,
            "removed_bytes": self.removed_bytes,
            "copied_bytes": self.copied_bytes,
            "total_bytes": self.total_bytes,
            "share": round(self.share, 4),
            "postponed": self.postponed,
            "refusal": self.refusal,
            "locked": len(self.locked),
            "locked_names": dict(sorted(self.locked.items())[:_LISTED]),
        }


@dataclass(frozen=True)
class Survey:
    """What a plan was made from, and is needed to carry it out."""

    plan: CollectionPlan
    index: ChunkIndex
    needed: NeededChunks
    liveness: Liveness | None
    leaving: frozenset[int]  # packs to empty, by number
    dead: frozenset[str]
    segments: SegmentPlan
    sizes: dict[str, int]
    snapshots: frozenset[str]
    known_condemned: frozenset[str]


def survey(
    repository: Repository,
    limits: CollectionLimits,
    forgotten: Collection[str],
    meter: ProgressMeter,
    before: Survey | None = None,
) -> Survey:
    """Read the log, then list what there is, then walk what remains; see :class:`CollectionPlan`.

    :param forgotten: snapshots that are to be taken as forgotten
    :param before: an earlier survey of the same collection: what it has read is not read again, so that
        backups that are quicker than a walk do not keep a collection from ever ending. What was forgotten
        since then counts as needed yet.
    """
    state = repository.refresh()
    snapshots, known = frozenset(state.snapshots), frozenset(state.condemned_names("packs"))
    records = [body for snapshot_id, body in state.snapshots.items() if snapshot_id not in set(forgotten)]
    locked = locked_names(state)
    # Only now: what had been swept from a state that this reader may have skipped is not listed any more.
    index = load_index(
        repository.storage, repository.ring, repository.repository_id, state, warn=lambda problem: None
    )
    needed = _needed_chunks(repository, index, before)
    damaged = _walk_all(repository, records, needed, meter)
    listed = _Listed.of(repository, records, limits, state)
    plan = CollectionPlan(
        total_bytes=sum(index.listed.values()) + listed.wal_bytes,
        unfinished=len(unfinished_entries(state, repository.storage.now())),
        locked=locked,
        locked_bytes=sum(index.condemned.get(name, 0) for name in locked),
        refusal=_tell_damaged(damaged) if damaged else None,
    )
    found = Survey(plan, index, needed, None, frozenset(), frozenset(), SegmentPlan(), {}, snapshots, known)
    return found if damaged else _sort_all(found, listed, limits)


def _sort_all(found: Survey, listed: _Listed, limits: CollectionLimits) -> Survey:
    """What of all that is there is to go, and what of it is copied or written anew first."""
    index, liveness = found.index, found.needed.choose()
    packs = _sort_packs(index, liveness, limits, listed.is_young)
    zombies = index.condemned.keys() - found.plan.locked.keys()
    dead = frozenset(sorted(packs.dead | zombies)[:MOST_PACKS])
    emptied = {liveness.table.packs[pack][0] for pack in packs.leaving}
    young = {name for name in index.listed if listed.is_young(index.stored_at.get(name))}
    segments = plan_segments(index, dead | emptied, young)
    sizes = {**index.listed, **index.condemned, **listed.sizes}
    sizes |= {name: segment.size_bytes for name, segment in index.segments.items()}
    plan = replace(
        found.plan,
        packs=tuple(sorted(dead | emptied)),
        emptied=tuple(sorted(emptied)),
        indexes=segments.unneeded,
        manifests=listed.manifests,
        wal=listed.wal,
        rewritten=len(segments.replaced) or int(segments.rewrites),
        removed_bytes=sum(sizes[name] for name in (*(dead - zombies), *emptied, *listed.wal)),
        copied_bytes=packs.copied_bytes,
        postponed=packs.postponed + max(0, len(packs.dead | zombies) - MOST_PACKS),
    )
    return replace(
        found,
        plan=_refuse_too_much(plan, limits),
        liveness=liveness,
        leaving=frozenset(packs.leaving),
        dead=dead,
        segments=segments,
        sizes=sizes,
    )


def locked_names(state: LogState) -> dict[str, str | None]:
    """What earlier collections could not remove, with the date until which it is locked (None: a hold)."""
    found: dict[str, str | None] = {}
    for entry in state.condemned:
        found |= entry.get("left", {})
    return found


def unfinished_entries(state: LogState, now: datetime) -> list[dict[str, Any]]:
    """Condemn entries that still have something to delete: as bodies, by what is locked no longer.

    :param now: S3's own time, against the dates of locks
    """
    found = []
    for entry in state.condemned:
        if entry.get("finished"):
            continue
        left: dict[str, str | None] | None = entry.get("left")
        names = {
            member: [
                name for name in entry.get(member, ()) if left is None or not _is_locked(left[name], now)
            ]
            for member in CONDEMNED
        }
        if any(names.values()):
            found.append({"seq": entry["seq"], **names})
    return found


def _is_locked(until: str | None, now: datetime) -> bool:
    """A legal hold may have been lifted since: that is tried every time."""
    return until is not None and datetime.fromisoformat(until) > now


# -- what is needed ------------------------------------------------------------------------------------


def _needed_chunks(repository: Repository, index: ChunkIndex, before: Survey | None) -> NeededChunks:
    if before is not None:
        needed = NeededChunks(ChunkReader(repository, index), index)
        with contextlib.suppress(CorruptionError):  # perhaps of what was forgotten and is gone since
            needed.take_over(before.needed)
            return needed
    return NeededChunks(ChunkReader(repository, index), index)


def _walk_all(
    repository: Repository, records: list[dict[str, Any]], needed: NeededChunks, meter: ProgressMeter
) -> dict[str, str]:
    """Mark what all snapshots need; those that cannot be walked, with the reason."""
    damaged: dict[str, str] = {}
    for record in records:
        try:
            needed.walk(read_manifest(repository, record))
        except MALFORMED as error:
            damaged[record["snapshot_id"]] = str(error)
        meter.add(files=1)
    return damaged


def _tell_damaged(damaged: dict[str, str]) -> str:
    first, why = next(iter(damaged.items()))
    others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    return (
        f"snapshot {first}{others} cannot be read whole, so that what it needs is not known: {why}. "
        "Verify the repository; if the snapshot is lost, give it up (Lost snapshots of backup_maintenance)"
    )


def _refuse_too_much(plan: CollectionPlan, limits: CollectionLimits) -> CollectionPlan:
    if plan.share <= limits.max_share:
        return plan
    gone = format_bytes(plan.removed_bytes - plan.copied_bytes)
    refusal = (
        f"{gone} of {format_bytes(plan.total_bytes)} would go, which is {plan.share:.0%}; "
        f"at most {limits.max_share:.0%} may in one collection (max_share)"
    )
    return replace(plan, refusal=refusal)


# -- what is to go -------------------------------------------------------------------------------------


@dataclass
class _SortedPacks:
    """``dead`` by name; ``leaving``, to be emptied first, by number."""

    dead: set[str] = field(default_factory=set)
    leaving: set[int] = field(default_factory=set)
    copied_bytes: int = 0
    postponed: int = 0


def _sort_packs(
    index: ChunkIndex, liveness: Liveness, limits: CollectionLimits, is_young: IsYoung
) -> _SortedPacks:
    """Which packs nothing is needed of, and which are worth emptying: the cheapest for their size first."""
    found = _SortedPacks()
    unusable = index.listed.keys() - {name for name, _ in liveness.table.packs}
    found.dead = {name for name in unusable if not is_young(index.stored_at.get(name))}
    worthwhile = []
    for pack, (name, size_bytes) in enumerate(liveness.table.packs):
        if is_young(index.stored_at.get(name)):
            continue
        cost = int(liveness.needed_bytes[pack])
        if not len(liveness.needed_rows(pack)):
            found.dead.add(name)
        elif liveness.waste(pack) > limits.max_waste:
            worthwhile.append((cost / size_bytes, name, cost, pack))
    budget = limits.copy_limit_bytes
    for _, _, cost, pack in sorted(worthwhile):
        if cost > budget or len(found.leaving) >= MOST_PACKS:
            found.postponed += 1
            continue
        budget -= cost
        found.leaving.add(pack)
        found.copied_bytes += int(liveness.chosen_bytes[pack])
    return found


@dataclass(frozen=True)
class _Listed:
    """What is there besides packs and segments, and not needed; ``sizes`` of it."""

    manifests: tuple[str, ...]
    wal: tuple[str, ...]
    wal_bytes: int
    sizes: dict[str, int]
    is_young: IsYoung

    @classmethod
    def of(
        cls,
        repository: Repository,
        records: list[dict[str, Any]],
        limits: CollectionLimits,
        state: LogState,
    ) -> _Listed:
        storage = repository.storage
        used = {record["manifest"] for record in records}
        orphans = [info for info in storage.list("snapshots/") if info.name not in used]
        oldest_spared = storage.now() - limits.keep_unreferenced

        def is_young(stored_at: datetime | None) -> bool:
            return stored_at is None or stored_at > oldest_spared

        locked = locked_names(state)
        old = [info for info in orphans if not is_young(info.last_modified) and info.name not in locked]
        wal, wal_bytes = _removable_wal(repository, records)
        wal = [info for info in wal if info.name not in locked]
        sizes = {info.name: info.size_bytes for info in (*old, *wal)}
        names = tuple(info.name for info in old)
        return cls(names, tuple(info.name for info in wal), wal_bytes, sizes, is_young)


def _removable_wal(repository: Repository, records: list[dict[str, Any]]) -> tuple[list[ObjectInfo], int]:
    """WAL before what the oldest remaining base needs, and the bytes of all WAL."""
    stored = sum(info.size_bytes for info in repository.storage.list("wal/"))
    if not stored:
        return [], 0
    from fastvlm_ops.core.backup.postgresql.wal_pruning import removable_wal

    return removable_wal(repository, records), stored
