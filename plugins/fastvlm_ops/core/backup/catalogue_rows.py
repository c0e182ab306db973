"""What the catalogue of backups answers with. Sizes in bytes, times in UTC; None is unknown, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal


@dataclass(frozen=True)
class Check:
    """A verification that covered a snapshot, a restore of it, or a restore test.

    ``ok`` is False for damage that nothing later has shown to be gone, and for a restore test that failed.
    ``level_or_where`` is a level of verification, or ``scratch``, ``new folder`` or ``in place``, or
    ``test``. ``text`` is for people.
    """

    at: datetime
    what: Literal["verified", "restored", "restore-tested"]
    level_or_where: str
    ok: bool
    text: str
    component: str
    snapshot_id: str
    run_key: str


@dataclass(frozen=True)
class Verification:
    """A verification, by the time of who ran it. ``share`` counts from 0, of ``shares``.

    ``snapshots`` is how many it covered. Of the objects that are damaged and that some snapshot needs,
    ``named_objects`` holds the first. What an older version did not record is None.
    """

    sequence: int
    at: datetime
    run_key: str
    level: str
    share: int | None
    shares: int | None
    ok: bool
    snapshots: int
    damaged_snapshots: int
    objects: int | None
    size_bytes: int | None
    read_bytes: int | None
    duration_seconds: float | None
    damaged_objects: int | None
    named_objects: tuple[str, ...]


@dataclass(frozen=True)
class CatalogueMember:
    """A snapshot of a component.

    ``new_bytes`` is what was sent for it, ``shared_bytes`` the rest of its size: what other snapshots had
    stored already, or compression saved. ``started_at`` and ``duration_seconds`` are None when its manifest
    could not be read, ``warnings`` when an earlier version did not count them. ``last_verified`` tells of
    damage, as long as there is any, before any later check that did not look there, and
    ``last_restore_tested`` of a test that failed, until one passes.
    """

    component: str
    snapshot_id: str
    kind: str
    started_at: datetime | None
    finished_at: datetime
    duration_seconds: float | None
    files: int
    size_bytes: int
    new_bytes: int
    warnings: int | None
    last_verified: Check | None
    last_restored: Check | None
    last_restore_tested: Check | None = None

    @property
    def shared_bytes(self) -> int:
        return max(self.size_bytes - self.new_bytes, 0)


@dataclass(frozen=True)
class CatalogueSet:
    """A published backup set. ``published_at`` is by the clock of S3, ``timestamp`` what the run is about."""

    set_id: str
    kind: str
    timestamp: datetime
    published_at: datetime
    sequence: int
    run_key: str
    members: tuple[CatalogueMember, ...]

    @property
    def files(self) -> int:
        return sum(member.files for member in self.members)

    @property
    def size_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members)

    @property
    def new_bytes(self) -> int:
        return sum(member.new_bytes for member in self.members)

    @property
    def duration_seconds(self) -> float | None:
        """From the first member's start to the last one's end; None when a start is unknown."""
        starts = [member.started_at for member in self.members]
        known = [start for start in starts if start is not None]
        if not known or len(known) < len(starts):
            return None
        return (max(member.finished_at for member in self.members) - min(known)).total_seconds()

    @property
    def last_verified(self) -> Check | None:
        """Damage in any member; else the oldest of their checks, None as long as one was never verified."""
        return _of_all([member.last_verified for member in self.members])

    @property
    def last_restored(self) -> Check | None:
        """The newest restore of any member."""
        found = [member.last_restored for member in self.members if member.last_restored is not None]
        return max(found, key=lambda check: check.at, default=None)

    @property
    def last_restore_tested(self) -> Check | None:
        """A failed test of any member; else the oldest of their tests, None while one was never tested."""
        return _of_all([member.last_restore_tested for member in self.members])


def _of_all(checks: list[Check | None]) -> Check | None:
    """The newest one that found something; else the oldest, None where one is missing."""
    found = [check for check in checks if check is not None]
    if bad := [check for check in found if not check.ok]:
        return max(bad, key=lambda check: check.at)
    return min(found, key=lambda check: check.at) if found and len(found) == len(checks) else None


@dataclass(frozen=True)
class ComponentState:
    """The newest published snapshot of a component that is not known to be damaged, and how old it is.

    ``newest``, ``set_id``, ``backed_up_at`` and ``age`` are None without one. ``overdue`` is None when the
    catalogue was never filled, so that nothing is known; in a filled one, a component that has an objective
    and no such snapshot is overdue. ``last_verified_at`` and ``last_restored_at`` are about any published
    snapshot of the component, ``damaged`` counts those that were found damaged and not mended since.
    ``last_restore_tested_at`` is when a restore test of one last passed, ``restore_failed`` counts those
    whose test failed, with none since that passed.
    """

    component: str
    newest: CatalogueMember | None
    set_id: str | None
    backed_up_at: datetime | None
    age: timedelta | None
    objective: timedelta | None
    overdue: bool | None
    last_verified_at: datetime | None
    last_restored_at: datetime | None
    damaged: int | None
    last_restore_tested_at: datetime | None = None
    restore_failed: int | None = None


@dataclass(frozen=True)
class CatalogueSummary:
    """What bringing the catalogue up to date did."""

    repository_id: str
    sequence: int
    sets: int
    snapshots: int
    new_sets: int
    new_snapshots: int
    removed_sets: int
    removed_snapshots: int
    replaced_repository_id: str | None = None
    warnings: tuple[str, ...] = ()
