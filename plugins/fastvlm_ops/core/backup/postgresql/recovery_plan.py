"""From a target to the base backup and the WAL that lead there, proven to have no gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastvlm_ops.core.backup.errors import BackupNotFoundError, RecoveryError
from fastvlm_ops.core.backup.postgresql.bases import Base, read_bases
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.recovery_target import RecoveryTarget
from fastvlm_ops.core.backup.postgresql.timelines import Lineage
from fastvlm_ops.core.backup.postgresql.wal_names import History, StoredSegment, WalListing
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.postgresql.window import (
    RecoverableWindow,
    lineage_for,
    prove_window,
    stored_on,
)
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.repository import Repository


@dataclass(frozen=True)
class RecoveryPlan:
    """How a target is reached. Sizes in bytes.

    :param base: what is restored first
    :param timeline: that is followed to the target
    :param segments: that the server will read, by number, none missing
    :param histories: of all timelines that are known, so that a promoted copy takes a number of its own
    :param base_bytes: size of the base backup
    :param superuser: who to ask the recovered copy as
    :param window: what can be recovered at all
    """

    component: str
    target: RecoveryTarget
    base: Base
    timeline: int
    segments: tuple[StoredSegment, ...]
    histories: tuple[History, ...]
    base_bytes: int
    superuser: str
    window: RecoverableWindow

    @property
    def snapshot_id(self) -> str:
        """Of the base backup."""
        return self.base.snapshot_id

    @property
    def major(self) -> int:
        """Version that the server must have."""
        return int(self.base.version.split(".")[0])

    @property
    def wal_bytes(self) -> int:
        """What the segments take on the disk."""
        return len(self.segments) * self.base.segment_bytes

    def as_dict(self) -> dict[str, Any]:
        window = self.window.as_dict()
        shown = ("recoverable_from", "recoverable_until", "from_lsn", "until_lsn", "gap")
        return {
            "target": str(self.target),
            "snapshot_id": self.snapshot_id,
            "base": self.base.as_dict(),
            "timeline": self.timeline,
            "segments": len(self.segments),
            "first_segment": self.segments[0].segment.name,
            "last_segment": self.segments[-1].segment.name,
            "wal_bytes": self.wal_bytes,
            "window": {name: window[name] for name in shown},
        }

    def __str__(self) -> str:
        first, last = self.segments[0].segment.name, self.segments[-1].segment.name
        return (
            f"{self.component} to {self.target} on timeline {self.timeline}: base backup"
            f" {self.snapshot_id} of {self.base.stopped_at.isoformat()}, then {len(self.segments)} segments"
            f" of WAL, {first} to {last}; {window_text(self.window)}"
        )


def plan_recovery(
    repository: Repository, component: str, target: RecoveryTarget, *, snapshot_id: str | None = None
) -> RecoveryPlan:
    """Choose the newest base backup before a target and the WAL from it to there; prove that none is missing.

    A restore point can be anywhere in the WAL, so that for a name it is the newest base backup of all unless
    one is given, and that the name is there only shows when the WAL is replayed.

    :param repository: an opened one; its log is read to its end
    :param snapshot_id: the base backup to begin with; None to choose
    :raises RecoveryError: it cannot be reached; names the window, the gap, the timeline or the system
    :raises BackupNotFoundError: there is no such base backup
    :raises CorruptionError: what is needed to tell is damaged
    """
    search = _Search(repository, component, target, snapshot_id)
    base = search.choose()
    run = search.unbroken(base)
    segments = search.until_target(base, run)
    evidence = search.evidence(base)
    return RecoveryPlan(
        component,
        target,
        base,
        search.lineage.timeline,
        tuple(segments),
        tuple(stored.history for stored in search.listing.histories),
        search.records[base.snapshot_id]["size_bytes"],
        str(evidence.get("superuser", "postgres")),
        search.window,
    )


def window_text(window: RecoverableWindow) -> str:
    """Return what can be recovered, for people."""
    if window.recoverable_from is None or window.recoverable_until is None:
        why = f": {'; '.join(window.notes)}" if window.notes else ""
        return f"nothing can be recovered to a moment{why}"
    text = (
        f"what can be recovered is {window.recoverable_from.isoformat()} to"
        f" {window.recoverable_until.isoformat()}, LSN {format_lsn(window.from_lsn or 0)} to"
        f" {format_lsn(window.until_lsn or 0)}"
    )
    return text if window.gap is None else f"{text}; {window.gap}"


class _Search:
    """What is known of a component while a target in it is looked for."""

    def __init__(
        self, repository: Repository, component: str, target: RecoveryTarget, snapshot_id: str | None
    ) -> None:
        self.repository = repository
        self.component = component
        self.target = target
        self.store = WalStore(repository, component)
        self.window = prove_window(repository, component)
        snapshots = repository.log.state.snapshots
        self.records = {key: body for key, body in snapshots.items() if body["component"] == component}
        self.bases = self._bases(snapshot_id)
        self.listing = self._listing()
        self.lineage = self._lineage()
        stored = self.listing.parsed(self.newest.segment_bytes)
        self.stored = stored_on(self.lineage, stored)

    @property
    def newest(self) -> Base:
        return self.bases[-1]

    def refusal(self, why: str) -> RecoveryError:
        """The error to raise, with the window."""
        return RecoveryError(
            f"{self.component} cannot be recovered to {self.target}: {why}; {window_text(self.window)}"
        )

    # -- what there is -----------------------------------------------------------------------------

    def _bases(self, snapshot_id: str | None) -> list[Base]:
        """Base backups to choose from: all of the newest one's system, or the one that is asked for."""
        if snapshot_id is not None and snapshot_id not in self.records:
            raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} of {self.component}")
        wanted = self.records.values() if snapshot_id is None else [self.records[snapshot_id]]
        bases, unreadable = read_bases(self.repository, wanted)
        if not bases:
            why = "; ".join(f"{name}: {error}" for name, error in unreadable.items())
            raise RecoveryError(
                f"{self.component} has no base backup of PostgreSQL"
                + (f" that can be read ({why})" if why else "")
            )
        return [base for base in bases if base.system_id == bases[-1].system_id]

    def _listing(self) -> WalListing:
        """:raises RecoveryError: there is WAL, but of other systems only."""
        systems = self.store.systems()
        ours = self.newest.system_id
        if ours not in systems:
            others = ", ".join(sorted(systems))
            what = f"there is only that of another system: {others}" if others else "there is none"
            raise self.refusal(
                f"no WAL of system {ours}, which base backup {self.newest.snapshot_id} is of, is stored;"
                f" {what}"
            )
        return systems[ours]

    def _lineage(self) -> Lineage:
        """The timeline to follow, with its ancestors.

        :raises RecoveryError: it has no history
        """
        histories = [stored.history.timeline for stored in self.listing.histories]
        wanted = self.target.timeline
        if wanted is None:
            found = lineage_for(self.newest.timeline, self.newest.stop_lsn, histories, self._read)
        elif wanted == 1:
            return Lineage(1)
        else:
            found = self._read(wanted) if wanted in histories else Lineage(wanted)
        if found.timeline > 1 and found.timeline not in histories:
            known = ", ".join(map(str, sorted({1, *histories})))
            raise self.refusal(
                f"timeline {found.timeline} has no history, {History(found.timeline).name} is not stored; the"
                f" timelines that can be followed are {known}"
            )
        return found

    def _read(self, timeline: int) -> Lineage:
        history = History(timeline)
        text = self.store.read_history(history, self.newest.system_id)
        return Lineage.parse(timeline, text, history.name)

    # -- which base --------------------------------------------------------------------------------

    def choose(self) -> Base:
        """The newest base backup before the target.

        :raises RecoveryError: there is none, or none that leads to the timeline
        """
        leading = [base for base in self.bases if self.lineage.includes(base.timeline, base.stop_lsn)]
        if not leading:
            there = ", ".join(sorted({str(base.timeline) for base in self.bases}))
            raise self.refusal(
                f"no base backup leads to timeline {self.lineage.timeline}; those there are, are of"
                f" timeline {there}"
            )
        before = [base for base in leading if self._is_before_target(base)]
        if not before:
            first = min(leading, key=lambda base: base.stop_lsn)
            raise self.refusal(
                f"it is before the end of base backup {first.snapshot_id}"
                f" ({first.stopped_at.isoformat()}, LSN {format_lsn(first.stop_lsn)})"
            )
        intact = [base for base in before if not base.is_damaged]
        if not intact:
            names = ", ".join(base.snapshot_id for base in before)
            raise self.refusal(f"the base backups before it were found damaged: {names}")
        return max(intact, key=lambda base: base.stop_lsn)

    def _is_before_target(self, base: Base) -> bool:
        if self.target.time is not None:
            return base.stopped_at <= self.target.time
        return self.target.lsn is None or base.stop_lsn <= self.target.lsn

    def evidence(self, base: Base) -> dict[str, Any]:
        """What the manifest says of the cluster."""
        manifest = read_manifest(self.repository, self.records[base.snapshot_id])
        found: dict[str, Any] = manifest["evidence"]["postgresql"]
        return found

    # -- which WAL ---------------------------------------------------------------------------------

    def unbroken(self, base: Base) -> list[StoredSegment]:
        """The WAL that follows a base backup's start without a gap.

        :raises RecoveryError: it does not make the base backup consistent
        """
        run: list[StoredSegment] = []
        number = base.first_segment.number
        for item in self.stored:
            if item.segment.number == number + len(run):
                run.append(item)
        if not run or run[-1].segment.end_lsn < base.stop_lsn:
            raise self._gap(base, run)
        return run

    def _gap(self, base: Base, run: Sequence[StoredSegment]) -> RecoveryError:
        number = base.first_segment.number + len(run)
        missing = self.lineage.segment(number, base.segment_bytes)
        following = [item.segment.name for item in self.stored if item.segment.number > number]
        after = (
            f"though {following[0]} and {len(following) - 1} more follow" if following else "nor any after it"
        )
        return self.refusal(
            f"WAL segment {missing.name} (LSN {format_lsn(missing.start_lsn)} to"
            f" {format_lsn(missing.end_lsn)}), which base backup {base.snapshot_id} needs to get there, is"
            f" not stored, {after}"
        )

    def until_target(self, base: Base, run: list[StoredSegment]) -> list[StoredSegment]:
        """Cut WAL behind the target.

        :raises RecoveryError: it ends before that
        """
        if self.target.lsn is not None:
            return self._until_lsn(base, run, self.target.lsn)
        if self.target.time is not None:
            return self._until_time(base, run, self.target.time)
        if self._continues(run):
            raise self._gap(base, run)
        return run

    def _continues(self, run: Sequence[StoredSegment]) -> bool:
        """Whether there is WAL behind a gap."""
        return self.stored[-1].segment.number > run[-1].segment.number

    def _until_lsn(self, base: Base, run: list[StoredSegment], lsn: int) -> list[StoredSegment]:
        count = Segment.of(base.timeline, lsn, base.segment_bytes).number - base.first_segment.number + 1
        if count > len(run):
            raise self._beyond(base, run)
        return run[: count + 1]  # the record that begins there, or is the first one after, may be in the next

    def _until_time(self, base: Base, run: list[StoredSegment], time: datetime) -> list[StoredSegment]:
        consistent = Segment.of(base.timeline, base.stop_lsn, base.segment_bytes).number
        count = max(self._count_before(run, time), consistent - base.first_segment.number) + 1
        if count > len(run):
            raise self._beyond(base, run)
        return run[:count]

    def _beyond(self, base: Base, run: Sequence[StoredSegment]) -> RecoveryError:
        """The error of a target that is behind the WAL that follows a base backup."""
        if self._continues(run):
            return self._gap(base, run)
        return self.refusal(
            "it is after the end of the WAL that is stored (for everything that is, give no target)"
        )

    def _count_before(self, run: Sequence[StoredSegment], time: datetime) -> int:
        """Number of segments before the first one with a transaction that ended after a time.

        The server needs one: it stops before it, and fails where there is none. Found by halving, since each
        look reads a segment; those in which no transaction ended go with what stands before them.
        """
        first, end = 0, len(run)
        while first < end:
            middle = (first + end) // 2
            last, at = None, middle
            while last is None and at >= first:
                last = self.store.header(run[at].name).last
                at -= 1
            if last is not None and self._is_behind(last.ended_at, time):
                end = at + 1
            else:
                first = middle + 1
        return first

    def _is_behind(self, ended_at: datetime, time: datetime) -> bool:
        """Whether a server stops before a transaction, which ended then, for a target at a time."""
        return ended_at > time or (ended_at == time and not self.target.inclusive)
