"""What can be recovered: proven from the names in the bucket, segment by segment, on every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.bases import Base, read_bases
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.timelines import Lineage
from fastvlm_ops.core.backup.postgresql.wal_names import History, StoredSegment, WalListing
from fastvlm_ops.core.backup.postgresql.wal_pages import LastTransaction
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.repository import Repository

__all__ = ["Base", "Gap", "RecoverableWindow", "lineage_for", "prove_window"]

_HEADERS_READ = 8
_NAMED = 5
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Gap:
    """Segments that are missing between those that are there.

    ``bases`` are the snapshots that it cuts off from what follows it. ``since`` is when the last segment
    before it was finished, None where that is not known.
    """

    first: Segment
    last: Segment
    bases: tuple[str, ...]
    since: datetime | None
    is_after_newest_base: bool

    def __str__(self) -> str:
        count = self.last.number - self.first.number + 1
        what = f"segment {self.first.name} is missing"
        if count > 1:
            what = f"{count} segments are missing, from {self.first.name} to {self.last.name}"
        where = f"LSN {format_lsn(self.first.start_lsn)} to {format_lsn(self.last.end_lsn)}"
        when = "" if self.since is None else f"; the one before is of {self.since:%Y-%m-%d %H:%M:%S} UTC"
        named = ", ".join(self.bases[:_NAMED]) + (" and more" if len(self.bases) > _NAMED else "")
        return f"{what} ({where}{when}); nothing after it can be reached from {named}"


@dataclass(frozen=True)
class RecoverableWindow:
    """To which moments a component can be recovered. Times are by the server's clock; None is unknown.

    Any moment from ``recoverable_from`` to ``recoverable_until`` can be the target of a recovery: the stop
    of the oldest base backup from which WAL is unbroken to ``until_lsn``, and the last moment that is
    followed by the end of a transaction there, which is ``last``. ``segments`` and ``stored_bytes`` count
    all WAL of the system that is stored. ``notes`` name what was left out: other systems, timelines without
    a history, base backups that cannot be used.
    """

    component: str
    system_id: str | None = None
    timeline: int | None = None
    recoverable_from: datetime | None = None
    recoverable_until: datetime | None = None
    from_lsn: int | None = None
    until_lsn: int | None = None
    segments: int = 0
    stored_bytes: int = 0
    newest_stored_at: datetime | None = None
    last: LastTransaction | None = None
    gaps: tuple[Gap, ...] = ()
    bases: list[Base] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> str | None:
        """The first gap, and how many follow; None where there is none."""
        if not self.gaps:
            return None
        more = f" (and {len(self.gaps) - 1} more gaps)" if len(self.gaps) > 1 else ""
        return f"{self.gaps[0]}{more}"

    @property
    def is_broken(self) -> bool:
        """Whether the newest base backup is cut off, so that only a new one makes recovery possible again."""
        return any(gap.is_after_newest_base for gap in self.gaps)

    def as_dict(self) -> dict[str, Any]:
        return {
            "component": self.component,
            "system_id": self.system_id,
            "timeline": self.timeline,
            "recoverable_from": _iso(self.recoverable_from),
            "recoverable_until": _iso(self.recoverable_until),
            "from_lsn": _lsn(self.from_lsn),
            "until_lsn": _lsn(self.until_lsn),
            "segments": self.segments,
            "stored_bytes": self.stored_bytes,
            "gap": self.gap,
            "broken": self.is_broken,
            "bases": [base.as_dict() for base in self.bases],
            "notes": list(self.notes),
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _lsn(lsn: int | None) -> str | None:
    return None if lsn is None else format_lsn(lsn)


def prove_window(repository: Repository, component: str) -> RecoverableWindow:
    """Prove what a component can be recovered to, from names and a few headers.

    Gaps, other systems and timelines without a history are findings, not errors.

    :param repository: an opened one; its log is read to its end
    :param component: its name
    :raises StorageError: or a subclass: the bucket cannot be read
    :raises CorruptionError: the log is damaged, or names of WAL contradict the base backups
    """
    state = repository.refresh()
    store = WalStore(repository, component)
    records = [body for body in state.snapshots.values() if body["component"] == component]
    bases, unreadable = read_bases(repository, records)
    # Listed after the log was read: a base whose WAL was stored meanwhile would else seem cut off.
    systems = store.systems()
    notes = [f"base backup {snapshot_id}: {error}" for snapshot_id, error in unreadable.items()]
    if not bases:
        notes.append("there is no base backup, so that WAL alone recovers nothing: run backup_full")
        return _without_bases(component, systems, notes)
    newest = bases[-1]
    notes += _other_systems(newest, bases, systems)
    ours = [base for base in bases if base.system_id == newest.system_id]
    listing = systems.get(newest.system_id, WalListing())
    return _window(_Proof(store, ours, listing, notes))


def _without_bases(component: str, systems: dict[str, WalListing], notes: Sequence[str]) -> RecoverableWindow:
    filled = {system_id: listing for system_id, listing in systems.items() if listing.segments}
    if not filled:
        return RecoverableWindow(component, notes=tuple(notes))
    system_id = max(filled, key=lambda name: filled[name].newest_at)
    listing = filled[system_id]
    return RecoverableWindow(
        component,
        system_id,
        segments=len(listing.segments),
        stored_bytes=sum(info.size_bytes for info in listing.segments),
        newest_stored_at=listing.newest_at,
        notes=tuple(notes),
    )


def _other_systems(newest: Base, bases: Sequence[Base], systems: dict[str, WalListing]) -> list[str]:
    notes = []
    for system_id in sorted({*systems, *(base.system_id for base in bases)} - {newest.system_id}):
        count = sum(base.system_id == system_id for base in bases)
        stored = len(systems.get(system_id, WalListing()).segments)
        notes.append(
            f"system {system_id} is another one than that of the newest base backup ({newest.system_id}):"
            f" its {count} base backups and {stored} segments are left out"
        )
    return notes


class _Proof:
    """What is known of one system while its window is proven."""

    def __init__(self, store: WalStore, bases: list[Base], listing: WalListing, notes: list[str]) -> None:
        self.store = store
        self.system_id = bases[-1].system_id
        self.segment_bytes = bases[-1].segment_bytes
        self.notes = notes
        self.listing = listing
        self.stored = listing.parsed(self.segment_bytes)
        newest = bases[-1]
        self.lineage = lineage_for(
            newest.timeline,
            newest.stop_lsn,
            [stored.history.timeline for stored in listing.histories],
            self.read_lineage,
        )
        self._note_timelines(bases)
        self.on_lineage = {
            item.segment.number: item
            for item in self.stored
            if self.lineage.timeline_of(item.segment.number, self.segment_bytes) == item.segment.timeline
        }
        self.ends = _run_ends(sorted(self.on_lineage))
        self.bases = [replace(base, reach_lsn=self._reach(base)) for base in bases]

    def read_lineage(self, timeline: int) -> Lineage | None:
        """The lineage of a timeline whose history is listed; None, and a note, where it cannot be read."""
        history = History(timeline)
        try:
            return Lineage.parse(timeline, self.store.read_history(history, self.system_id), history.name)
        except CorruptionError as error:
            self.notes.append(f"timeline {timeline} is not followed: {error}")
            return None

    def _note_timelines(self, bases: Sequence[Base]) -> None:
        known = {self.lineage.timeline, *(ancestor for ancestor, _ in self.lineage.ancestors)}
        for timeline in sorted({item.segment.timeline for item in self.stored} - known):
            histories = {stored.history.timeline for stored in self.listing.histories}
            why = (
                "it is no descendant of the newest base backup's"
                if timeline in histories or timeline < self.lineage.timeline
                else f"its history {timeline:08X}.history is not stored"
            )
            self.notes.append(f"timeline {timeline} is not followed: {why}")
        for base in bases:
            if not self.lineage.includes(base.timeline, base.stop_lsn):
                self.notes.append(
                    f"base backup {base.snapshot_id} is on timeline {base.timeline}, from which no way leads"
                    f" to timeline {self.lineage.timeline}"
                )

    def _reach(self, base: Base) -> int | None:
        if not self.lineage.includes(base.timeline, base.stop_lsn):
            return None
        end = self.ends.get(base.first_segment.number)
        return None if end is None else (end + 1) * self.segment_bytes

    def gaps(self) -> tuple[Gap, ...]:
        """Gaps between a base backup and the newest segment."""
        found: dict[int, list[Base]] = {}
        numbers = sorted(self.on_lineage)
        for base in self.bases:
            if not numbers or not self.lineage.includes(base.timeline, base.stop_lsn):
                continue
            first = base.first_segment.number
            missing = first if base.reach_lsn is None else base.reach_lsn // self.segment_bytes
            if missing < numbers[-1]:
                found.setdefault(missing, []).append(base)
        return tuple(self._gap(first, bases, numbers) for first, bases in sorted(found.items()))

    def _gap(self, first: int, bases: Sequence[Base], numbers: Sequence[int]) -> Gap:
        following = next(number for number in numbers if number > first)
        before = self.on_lineage.get(first - 1)
        return Gap(
            self.lineage.segment(first, self.segment_bytes),
            self.lineage.segment(following - 1, self.segment_bytes),
            tuple(base.snapshot_id for base in bases),
            None if before is None else before.stored_at,
            self.bases[-1] in bases,
        )

    def last_transaction(self, end: int, first: int) -> LastTransaction | None:
        """The last transaction that ended in segments up to number ``end``."""
        for number in range(end, max(first - 1, end - _HEADERS_READ), -1):
            item = self.on_lineage[number]
            try:
                header = self.store.header(item.name, limit_bytes=self.segment_bytes)
            except CorruptionError as error:
                self.notes.append(str(error))
                return None
            if header.last is not None:
                return header.last
        return None


def _window(proof: _Proof) -> RecoverableWindow:
    usable = [base for base in proof.bases if base.is_usable]
    damaged = [base.snapshot_id for base in proof.bases if base.is_damaged]
    if damaged:
        proof.notes.append(f"base backups that were found damaged are left out: {', '.join(damaged)}")
    found = RecoverableWindow(
        proof.store.component,
        proof.system_id,
        proof.lineage.timeline,
        segments=len(proof.stored),
        stored_bytes=sum(item.size_bytes for item in proof.stored),
        newest_stored_at=max((item.stored_at for item in proof.stored), default=None),
        gaps=proof.gaps(),
        bases=proof.bases,
    )
    if not usable:
        proof.notes.append("no base backup has the WAL yet that makes it consistent")
        return replace(found, notes=tuple(proof.notes))
    reach = usable[-1].reach_lsn or 0
    oldest = min((base for base in usable if base.reach_lsn == reach), key=lambda base: base.stop_lsn)
    end = reach // proof.segment_bytes - 1
    last = proof.last_transaction(end, oldest.first_segment.number)
    # Recovery to a time ends before the first transaction that ended after it, and fails where none did.
    # Where nothing ended since, the end of the base backup is as far as one gets.
    until = oldest.stopped_at if last is None else max(last.ended_at - _TICK, oldest.stopped_at)
    return replace(
        found,
        recoverable_from=oldest.stopped_at,
        recoverable_until=until,
        last=last,
        from_lsn=oldest.stop_lsn,
        until_lsn=reach,
        notes=tuple(proof.notes),
    )


def lineage_for(
    timeline: int, lsn: int, histories: Sequence[int], read: Callable[[int], Lineage | None]
) -> Lineage:
    """Return the newest lineage that a base backup is part of: its own timeline where there is no other.

    :param timeline: of the base backup
    :param lsn: where it stopped
    :param histories: timelines whose history is stored
    :param read: of one of them; None where it cannot be
    """
    for candidate in sorted(set(histories), reverse=True):
        if candidate < timeline:
            break
        lineage = read(candidate)
        if lineage is not None and lineage.includes(timeline, lsn):
            return lineage
    return Lineage(timeline)


def _run_ends(numbers: Sequence[int]) -> dict[int, int]:
    """For each number, the last one of the unbroken run that it is in."""
    ends: dict[int, int] = {}
    run: list[int] = []
    for number, following in [*pairwise(numbers), *((last, None) for last in numbers[-1:])]:
        run.append(number)
        if following != number + 1:
            ends.update(dict.fromkeys(run, number))
            run = []
    return ends


def stored_on(lineage: Lineage, stored: Sequence[StoredSegment]) -> list[StoredSegment]:
    """Return the segments that recovery along a lineage reads, by number.

    :param stored: all of one system
    """
    kept = [
        item
        for item in stored
        if lineage.timeline_of(item.segment.number, item.segment.segment_bytes) == item.segment.timeline
    ]
    return sorted(kept, key=lambda item: item.segment.number)
