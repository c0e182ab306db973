"""Which backup sets a retention policy keeps, and why. Decides only: nothing is read or removed here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fastvlm_ops.core.backup.sets import BackupSet

_BUCKETS: dict[str, Callable[[datetime], str]] = {
    "daily": lambda time: f"{time:%Y-%m-%d}",
    "weekly": lambda time: f"{time:%G}-W{time:%V}",
    "monthly": lambda time: f"{time:%Y-%m}",
    "yearly": lambda time: f"{time:%Y}",
}


@dataclass(frozen=True)
class RetentionPolicy:
    """How many sets to keep: the last n, and of the newest n days, weeks, … with a set its newest.

    Days begin at midnight UTC, weeks on Monday (ISO 8601).

    :raises ValueError: naming the member, or when all are zero: that would keep nothing.
    """

    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0

    def __post_init__(self) -> None:
        for name, count in asdict(self).items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ValueError(f"{name} is {count!r}: it has to be a whole number, zero or more")
        if not any(asdict(self).values()):
            raise ValueError("a retention policy with all of keep_last, keep_daily, … zero keeps nothing")


@dataclass(frozen=True)
class PlannedSet:
    """A set and the reasons to keep it; without a reason it would be forgotten."""

    set_id: str
    kind: str
    timestamp: str
    sequence: int
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class RetentionPlan:
    """What would be kept and what forgotten, newest first.

    ``forgotten_snapshots`` are those of forgotten sets that no kept set has.
    """

    policy: RetentionPolicy
    kept: tuple[PlannedSet, ...]
    forgotten: tuple[PlannedSet, ...]
    forgotten_snapshots: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "policy": asdict(self.policy),
            "kept": [planned.as_dict() for planned in self.kept],
            "forgotten": [planned.as_dict() for planned in self.forgotten],
            "forgotten_snapshots": list(self.forgotten_snapshots),
        }

    def table(self) -> str:
        """The plan for people, a line a set."""
        every = sorted((*self.kept, *self.forgotten), key=lambda planned: -planned.sequence)
        rows = [("", "backup set", "kind", "time", "reasons")]
        for planned in every:
            what = "keep" if planned.reasons else "forget"
            rows.append(
                (what, planned.set_id, planned.kind, planned.timestamp, ", ".join(planned.reasons) or "-")
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, f"{len(self.kept)} kept, {len(self.forgotten)} forgotten"])


def plan_retention(
    sets: Sequence[BackupSet],
    policy: RetentionPolicy,
    *,
    now: datetime,
    verified: Collection[str] = frozenset(),
) -> RetentionPlan:
    """Plan over published sets.

    Order is the log's; timestamps only tell the day, week, … a set stands for. Whatever the policy says,
    these are kept: the newest set of each kind and its components, unless a newer one of the kind has them
    all; the newest verified one; and each whose timestamp cannot be read or lies after ``now``.

    :param verified: ids of sets that a verification found intact.
    :raises ValueError: ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"now is {now.isoformat()}: it has to have a time zone")
    newest_first = sorted(sets, key=lambda backup: -backup.sequence)
    reasons: dict[int, list[str]] = {backup.sequence: [] for backup in newest_first}
    for number, backup in enumerate(newest_first[: policy.keep_last], 1):
        reasons[backup.sequence].append(f"last {number}")
    times = {backup.sequence: _time(backup.timestamp, now) for backup in newest_first}
    for backup in newest_first:
        time = times[backup.sequence]
        if isinstance(time, str):
            reasons[backup.sequence].append(time)
    dated = [
        (backup.sequence, time)
        for backup in newest_first
        if isinstance(time := times[backup.sequence], datetime)
    ]
    for name, bucket_of in _BUCKETS.items():
        count = getattr(policy, f"keep_{name}")
        for sequence, bucket in _newest_of_buckets(dated, bucket_of, count):
            reasons[sequence].append(f"{name} {bucket}")
    _protect(newest_first, verified, reasons)
    return _plan(policy, newest_first, reasons)


def _time(timestamp: str, now: datetime) -> datetime | str:
    """The time in UTC, or why it does not count."""
    try:
        time = datetime.fromisoformat(timestamp)
        if time.tzinfo is None:
            return "its timestamp has no time zone"
        time = time.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return "its timestamp cannot be read"
    return "its timestamp is in the future" if time > now else time


def _newest_of_buckets(
    dated: list[tuple[int, datetime]], bucket_of: Callable[[datetime], str], count: int
) -> list[tuple[int, str]]:
    """The newest set of each of the newest buckets that have one."""
    found: dict[str, int] = {}
    for sequence, time in dated:
        if len(found) == count:
            break
        found.setdefault(bucket_of(time), sequence)
    return [(sequence, bucket) for bucket, sequence in found.items()]


def _protect(newest_first: list[BackupSet], verified: Collection[str], reasons: dict[int, list[str]]) -> None:
    newer: dict[str, list[set[str]]] = {}
    for backup in newest_first:
        components = {member.component for member in backup.snapshots}
        others = newer.setdefault(backup.kind, [])
        if not any(components <= other for other in others):
            shown = ", ".join(sorted(components)) or "nothing"
            reasons[backup.sequence].append(f"newest {backup.kind} of {shown}")
            others.append(components)
    last_verified = next((backup for backup in newest_first if backup.set_id in verified), None)
    if last_verified is not None:
        reasons[last_verified.sequence].append("last verified")


def _plan(
    policy: RetentionPolicy, newest_first: list[BackupSet], reasons: dict[int, list[str]]
) -> RetentionPlan:
    kept: list[PlannedSet] = []
    forgotten: list[PlannedSet] = []
    kept_snapshots: set[str] = set()
    forgotten_snapshots: dict[str, None] = {}
    for backup in newest_first:
        why = tuple(reasons[backup.sequence])
        planned = PlannedSet(backup.set_id, backup.kind, backup.timestamp, backup.sequence, why)
        (kept if why else forgotten).append(planned)
        ids = [member.snapshot_id for member in backup.snapshots]
        if why:
            kept_snapshots.update(ids)
        else:
            forgotten_snapshots.update(dict.fromkeys(ids))
    gone = tuple(sorted(forgotten_snapshots.keys() - kept_snapshots))
    return RetentionPlan(policy, tuple(kept), tuple(forgotten), gone)
