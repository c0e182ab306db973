"""Locking for longer what is still needed: Object Lock dates are given once, when an object is stored.

A backup of today needs the configuration, keys, log and many packs of years ago, which nothing protects
when the days that they were locked for have passed. So what has less than half of them left is locked anew.
What the log has condemned waits to be removed, and is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from fastvlm_ops.core.backup.commit_log import CONDEMNED
from fastvlm_ops.core.backup.errors import AccessDeniedError, ObjectNotFoundError, StorageError
from fastvlm_ops.core.backup.key_slots import read_keys
from fastvlm_ops.core.backup.keys import slot_name
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.repository import CONFIG_NAME, Repository
from fastvlm_ops.core.backup.storage import ObjectVersion
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.verify_packs import in_parallel
from fastvlm_ops.core.backup.versions import Retention

# What a repository consists of: where it is at the top of a bucket, the rest is not ours to lock.
_KEPT = (CONFIG_NAME, "keys/", "log/", "snapshots/", "index/", "packs/", "wal/")
_WORKERS = 8


@dataclass(frozen=True)
class LockRenewal:
    """What a renewal did, in versions of objects.

    Of ``objects`` that it looked at, ``renewed`` were locked for longer, and ``long_enough`` were not due.
    ``until``: the earliest date that one of them is locked until now, in ISO 8601; None where there is none.
    """

    objects: int = 0
    renewed: int = 0
    long_enough: int = 0
    until: str | None = None
    duration_seconds: float = 0.0
    usage: Usage | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Small enough for XCom."""
        return asdict(self)


def renew_locks(
    repository: Repository, *, leave_out: Collection[str] = (), progress: ProgressCallback | None = None
) -> LockRenewal:
    """Lock all that is needed for ``policy.lock_days`` from now, where less than half of them are left.

    Every version counts, since an earlier one is what is left of an object that somebody has overwritten or
    hidden. Not locked anew are what the log has condemned, and key slots that were left out of a rotation:
    both wait to be removed. Dates are by S3's clock; none gets earlier, and the mode of a lock that is in
    force stays. Idempotent: a second renewal finds nothing to do. Without locks in the policy it does
    nothing and asks for nothing.

    :param leave_out: names that are to be removed for another reason
    :raises CorruptionError: the log cannot be read, so that what is condemned is not known
    :raises AccessDeniedError: some were refused, all others renewed; the message says how many
    :raises StorageError: likewise, or the endpoint did not answer
    """
    storage = repository.storage
    if storage.policy.lock_mode is None:
        return LockRenewal()
    before = storage.usage
    meter = ProgressMeter("renew locks", "repository", progress, unit="objects")
    renewal = _Renewal(repository, leave_out)
    tally = _Tally()
    for _, outcome in in_parallel(_WORKERS, renewal.renew, renewal.kept()):
        tally.add(outcome)
        meter.add(files=1)
    meter.report()
    tally.require_no_refusal()
    return LockRenewal(
        objects=tally.renewed + tally.long_enough,
        renewed=tally.renewed,
        long_enough=tally.long_enough,
        until=None if tally.until is None else tally.until.isoformat(timespec="seconds"),
        duration_seconds=round(meter.elapsed_seconds, 3),
        usage=storage.usage.since(before),
    )


class _Outcome(NamedTuple):
    """``until`` is None for a version that was removed meanwhile, and for one that was refused."""

    until: datetime | None = None
    renewed: bool = False
    refusal: StorageError | None = None


@dataclass
class _Tally:
    renewed: int = 0
    long_enough: int = 0
    refused: int = 0
    until: datetime | None = None
    first_refusal: StorageError | None = None

    def add(self, outcome: _Outcome) -> None:
        if outcome.refusal is not None:
            self.refused += 1
            self.first_refusal = self.first_refusal or outcome.refusal
        elif outcome.until is not None:
            self.renewed += outcome.renewed
            self.long_enough += not outcome.renewed
            self.until = min(self.until or outcome.until, outcome.until)

    def require_no_refusal(self) -> None:
        """:raises StorageError: as the first refusal was, or AccessDeniedError."""
        if self.first_refusal is None:
            return
        every = self.refused + self.renewed + self.long_enough
        raise type(self.first_refusal)(
            f"{self.refused} of {every} objects could not be locked for longer, {self.renewed} were; the"
            f" first: {self.first_refusal}"
        )


class _Renewal:
    """One run of :func:`renew_locks`."""

    def __init__(self, repository: Repository, leave_out: Collection[str]) -> None:
        self._storage = repository.storage
        self._policy = repository.storage.policy
        self._days = timedelta(days=self._policy.lock_days)
        state = repository.refresh()  # before anything is listed
        condemned = (state.condemned_names(member) for member in CONDEMNED)
        self._left_out = set(leave_out).union(_retired_slots(repository), *condemned)

    def kept(self) -> Iterator[ObjectVersion]:
        for below in _KEPT:
            for version in self._storage.versions(below):
                is_ours = below.endswith("/") or version.name == below
                if is_ours and version.name not in self._left_out:
                    yield version

    def renew(self, version: ObjectVersion) -> _Outcome:
        """:raises StorageError: nothing can be had of the endpoint at all"""
        try:
            held = self._storage.retention_of(version)
            if held is not None and self._is_long_enough(held):
                return _Outcome(held.until)
            return self._extend(version, held)
        except ObjectNotFoundError:  # a collection has removed it
            return _Outcome()
        except StorageError as error:
            if not _is_of_one_object(error):
                raise
            return _Outcome(refusal=error)

    def _is_long_enough(self, held: Retention) -> bool:
        return held.until >= self._storage.now() + self._days / 2

    def _extend(self, version: ObjectVersion, held: Retention | None) -> _Outcome:
        now = self._storage.now()
        mode = held.mode if held is not None and held.until > now else str(self._policy.lock_mode)
        wanted = Retention(mode, (now + self._days).replace(microsecond=0))
        try:
            self._storage.retain(version, wanted)
        except StorageError:
            # Another renewal may have been faster, and S3 then refuses an earlier date.
            found = self._storage.retention_of(version)
            if found is None or not self._is_long_enough(found):
                raise
            return _Outcome(found.until)
        return _Outcome(wanted.until, renewed=True)


def _retired_slots(repository: Repository) -> set[str]:
    """Key slots that were left out of a rotation: locked again and again, they could never be removed."""
    keys = read_keys(repository)
    if keys.problems:  # where an epoch is damaged, all slots look as if they had been left out
        return set()
    return {
        slot_name(repository.repository_id, slot.slot)
        for slot in keys.slots
        if slot.reads_to < keys.newest_epoch and not slot.is_in_use
    }


def _is_of_one_object(error: StorageError) -> bool:
    """Whether S3 has refused this request; else the others would fail too: no answer, wrong credentials."""
    return type(error) in (StorageError, AccessDeniedError) and isinstance(error.__cause__, ClientError)
