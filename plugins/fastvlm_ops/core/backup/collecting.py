"""Removing what no snapshot needs, beside backups and without clocks (docs/backup-format.md §8).

Nothing is deleted that is not named by a ``condemn`` entry which this collector has claimed itself, and none
is claimed after a snapshot, or another ``condemn``, that its plan does not know. A snapshot that is claimed
after it has read it. So whichever comes first, the other sees it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.collection_plan import (
    CollectionLimits,
    CollectionPlan,
    Survey,
    survey,
    unfinished_entries,
)
from fastvlm_ops.core.backup.commit_log import CONDEMNED, LogState
from fastvlm_ops.core.backup.copying import Copied, copy_live
from fastvlm_ops.core.backup.errors import PruningRefusedError, StorageError
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.segments import plan_segments, rewrite_segments
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.versions import Locked

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.forgetting import ForgetPlan

_ATTEMPTS = 50  # each but the first reads only what is new
_DELETERS = 8
_LISTED = 50


class _PlanAgainError(Exception):
    """The log has gained something that the plan does not know."""


@dataclass(frozen=True)
class CollectionResult:
    """What was removed. Sizes in bytes.

    ``left`` maps what is still locked to the date of its lock (None: a legal hold); the next collection
    tries again. Of what an earlier collection had condemned the objects are counted, their bytes are not
    known. ``kept`` says of packs that could not be emptied why. ``reused`` is True when this run had
    done all that before, and nothing was done now.
    """

    deleted_objects: int = 0
    deleted_bytes: int = 0
    copied_bytes: int = 0
    locked_objects: int = 0
    left: dict[str, str | None] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    postponed: int = 0
    duration_seconds: float = 0.0
    reused: bool = False
    usage: Usage | None = field(default=None, compare=False)

    @property
    def locked_until(self) -> str | None:
        """The last date of a lock; None where nothing is locked, or a hold has no date."""
        dates = [date for date in self.left.values() if date is not None]
        return max(dates) if dates and len(dates) == len(self.left) else None

    def as_dict(self) -> dict[str, Any]:
        """Small enough for XCom."""
        content = asdict(self) | {"locked_until": self.locked_until}
        for name in ("left", "kept"):
            content[name] = dict(sorted(content[name].items())[:_LISTED])
        return content


def plan_collection(
    repository: Repository,
    *,
    keep_unreferenced: timedelta,
    max_waste: float,
    copy_limit_bytes: int,
    max_share: float,
    forget: ForgetPlan | None = None,
    progress: ProgressCallback | None = None,
) -> CollectionPlan:
    """What a collection would remove; nothing is written. For the parameters see
    :class:`~.collection_plan.CollectionLimits`.

    :param forget: plan as if this had been forgotten
    :raises StorageError: or a subclass: the endpoint did not answer, or refused
    """
    limits = CollectionLimits(keep_unreferenced, max_waste, copy_limit_bytes, max_share)
    meter = ProgressMeter("plan collection", "repository", progress, unit="snapshots")
    forgotten = [] if forget is None else [planned.snapshot_id for planned in forget.snapshots]
    return survey(repository, limits, forgotten, meter).plan


def collect(
    repository: Repository,
    *,
    keep_unreferenced: timedelta,
    max_waste: float,
    copy_limit_bytes: int,
    max_share: float,
    run_key: str,
    progress: ProgressCallback | None = None,
) -> CollectionResult:
    """Remove what no snapshot needs. Idempotent by ``run_key``; for the others see
    :class:`~.collection_plan.CollectionLimits`.

    What an earlier collection has condemned and not deleted comes first, also when the rest is refused.

    :raises PruningRefusedError: too much would go, or a snapshot cannot be read, which is named
    :raises AccessDeniedError: the credentials may not remove; what was condemned stays to be finished
    :raises StorageError: or another subclass; the next collection finishes what this one began
    """
    limits = CollectionLimits(keep_unreferenced, max_waste, copy_limit_bytes, max_share)
    collection = _Collection(repository, limits, run_key, progress)
    before = repository.storage.usage
    state = repository.refresh()
    if collection.done_key in state.recorded:
        return _result_of(repository, state.recorded[collection.done_key])
    repository.require_conditional_writes()
    collection.finish_others()
    return replace(collection.run(), usage=repository.storage.usage.since(before))


def _result_of(repository: Repository, seq: int) -> CollectionResult:
    body = repository.log.entry(seq)["body"]
    left = body["left"]
    return CollectionResult(
        body["objects"], body["bytes"], body["copied_bytes"], len(left), left, reused=True
    )


class _Collection:
    """One run of :func:`collect`."""

    def __init__(
        self,
        repository: Repository,
        limits: CollectionLimits,
        run_key: str,
        progress: ProgressCallback | None,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._run_key = run_key
        self._meter = ProgressMeter("collect", "repository", progress, unit="objects")
        self._prefix = f"index/collection/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        self.done_key = f"swept/{run_key}"
        self._deleted_objects = self._deleted_bytes = self._copied_bytes = 0
        self._left: dict[str, str | None] = {}

    # -- what others have begun --------------------------------------------------------------------

    def finish_others(self) -> None:
        """Delete what was condemned and may be there yet, under an own entry.

        Of whoever condemned it first we cannot know whether he is dead or asleep: that is why what *we* are
        about to delete is named again, and why his names are not dropped when we are through.
        """
        for _ in range(_ATTEMPTS):
            entries = unfinished_entries(self._repository.refresh(), self._repository.storage.now())
            if not entries:
                return
            names = {member: _joined(entry[member] for entry in entries) for member in CONDEMNED}
            finished = [entry["seq"] for entry in entries]

            def still_unfinished(state: LogState, entries: list[dict[str, Any]] = entries) -> None:
                if unfinished_entries(state, self._repository.storage.now())[: len(entries)] != entries:
                    raise _PlanAgainError

            try:
                seq = self._condemn(names, still_unfinished, f"condemn/{self._run_key}/finished")
            except _PlanAgainError:
                continue
            left = self._delete(names, {})
            self._swept(seq, left, f"swept/{self._run_key}/finished", finished=finished)
            return
        raise StorageError(
            f"{self._repository.storage}log: others finished condemned names {_ATTEMPTS} times"
        )

    # -- what nobody needs -------------------------------------------------------------------------

    def run(self) -> CollectionResult:
        found: Survey | None = None
        for _ in range(_ATTEMPTS):
            found = survey(self._repository, self._limits, (), self._meter, before=found)
            if found.plan.refusal is not None:
                raise PruningRefusedError(found.plan.refusal)
            if found.plan.does_nothing:
                return self._result(found, Copied())
            copied = self._copy(found)
            try:
                return self._carry_out(found, copied)
            except _PlanAgainError:
                continue
        raise StorageError(
            f"{self._repository.storage}log: other writers came first {_ATTEMPTS} times in a row; nothing "
            "more was condemned, try again"
        )

    def _copy(self, found: Survey) -> Copied:
        """Before anything is condemned, so that every needed chunk is always in a pack that counts."""
        if not found.leaving or found.liveness is None:
            return Copied()
        repository, prefix = self._repository, f"{self._prefix}-{uuid.uuid4().hex[:8]}"
        copied = copy_live(repository, found.index, found.liveness, found.leaving, prefix, self._meter)
        self._copied_bytes += copied.written_bytes
        return copied

    def _carry_out(self, found: Survey, copied: Copied) -> CollectionResult:
        """Claim, delete, rewrite, and say so.

        :raises _PlanAgainError: the log has gained what the plan does not know; nothing was condemned
        """
        plan = found.plan
        packs = found.dead if found.liveness is None else found.dead | _names(found, copied.emptied)
        segments = found.segments
        if copied.kept:  # they stay, and so does what names them
            segments = plan_segments(found.index, packs, found.index.listed.keys())
        names = {
            "packs": sorted(packs),
            "indexes": sorted(segments.unneeded),
            "manifests": list(plan.manifests),
            "wal": list(plan.wal),
        }

        def still_planned(state: LogState) -> None:
            # A new snapshot may need what the plan takes for unneeded; another collector may have condemned
            # the copy of a chunk that the plan relies on. To forget only makes less needed.
            if not found.snapshots >= state.snapshots.keys():
                raise _PlanAgainError
            if not found.known_condemned >= state.condemned_names("packs"):
                raise _PlanAgainError

        if any(names.values()):
            seq = self._condemn(names, still_planned, f"condemn/{self._run_key}")
            left = self._delete(names, found.sizes)
            # Before `swept`: from then on the log need not say any more that those packs are gone.
            rewrite_segments(self._repository, found.index, segments, self._prefix)
            self._swept(seq, left, self.done_key)
        else:
            rewrite_segments(self._repository, found.index, segments, self._prefix)
        return self._result(found, copied)

    def _result(self, found: Survey, copied: Copied) -> CollectionResult:
        self._meter.report()
        left = found.plan.locked | self._left
        return CollectionResult(
            deleted_objects=self._deleted_objects,
            deleted_bytes=self._deleted_bytes,
            copied_bytes=self._copied_bytes,
            locked_objects=len(left),
            left=left,
            kept=copied.kept,
            postponed=found.plan.postponed,
            duration_seconds=round(self._meter.elapsed_seconds, 3),
        )

    # -- the steps ---------------------------------------------------------------------------------

    def _condemn(self, names: dict[str, list[str]], still_valid: Any, key: str) -> int:
        return self._repository.log.append("condemn", {**names, "key": key}, still_valid=still_valid)

    def _delete(self, names: dict[str, list[str]], sizes: dict[str, int]) -> dict[str, str | None]:
        """Delete what this collector has condemned; what is still locked, with the date."""
        storage = self._repository.storage
        left: dict[str, str | None] = {}
        wanted = [name for member in CONDEMNED for name in names[member]]
        with ThreadPoolExecutor(_DELETERS, thread_name_prefix="delete") as pool:
            for name, outcome in zip(wanted, pool.map(storage.remove, wanted), strict=True):
                if isinstance(outcome, Locked):
                    left[name] = None if outcome.until is None else outcome.until.isoformat()
                    continue
                size_bytes = sizes.get(name, 0)
                self._deleted_objects += 1
                self._deleted_bytes += size_bytes
                self._meter.add(files=1, read_bytes=size_bytes)
        self._left |= left
        return left

    def _swept(
        self, condemn: int, left: dict[str, str | None], key: str, finished: Iterable[int] = ()
    ) -> None:
        body = {
            "condemn": condemn,
            "left": left,
            "finished": list(finished),
            "key": key,
            "objects": self._deleted_objects,
            "bytes": self._deleted_bytes,
            "copied_bytes": self._copied_bytes,
        }
        self._repository.log.append("swept", body)


def _names(found: Survey, packs: Collection[int]) -> frozenset[str]:
    assert found.liveness is not None  # noqa: S101 - packs have numbers only where it is known
    return frozenset(found.liveness.table.packs[pack][0] for pack in packs)


def _joined(lists: Iterable[list[str]]) -> list[str]:
    return sorted({name for names in lists for name in names})
