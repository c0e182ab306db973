"""A second place of a repository: the same objects under the same names, in another bucket.

Why the second place is a repository at every moment:

* The first place's log is read before anything there is listed. Whatever a snapshot of that log needs was
  stored before its entry, so it is in the listing; unless it was removed since, and then an entry that was
  claimed later condemns it.
* An object that was listed and is gone when it is fetched means just that, so the log is read again and all
  is listed again. When nothing is gone any more, everything that the log's snapshots need has been copied: a
  snapshot that needed what is gone is forgotten in that log.
* Packs are copied before the segments and manifests that were listed before them, all of these before the
  log, and its entries in their order, each claimed. So no snapshot counts before it is whole. The exception
  is one that the log has forgotten again by its last entry: it counts in the second place for the few
  requests between its entry and the ``forget``, although its packs may be gone. A log without gaps cannot
  leave its entry out; who asks for it in that moment is told which pack is missing.
* Where something is damaged or missing in the first place, trees are walked to see which snapshots need it,
  and the log is copied up to the entry before the first of them. Everything else goes on.

What is removed in the first place stays in the second, unless its removal is mirrored. The log there says
what it says in the first: while a name is condemned, readers take it as gone; after ``swept`` it is an
object like any other whose chunks may be used, and whose name never comes back with other bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from fastvlm_ops.core.backup.commit_log import CONDEMNED, LogState, entry_name
from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError, StorageError
from fastvlm_ops.core.backup.key_epochs import epoch_of
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter, format_bytes
from fastvlm_ops.core.backup.replica_log import ReplicaLog, condemned_by
from fastvlm_ops.core.backup.replica_objects import ObjectCopier
from fastvlm_ops.core.backup.replica_place import copy_keys, open_place
from fastvlm_ops.core.backup.replica_proof import Proof
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.verify_result import Share
from fastvlm_ops.core.backup.versions import Removed

_PASSES = 6
_LISTED = 50
_BEFORE_PACKS, _AFTER_PACKS = ("index/", "snapshots/"), ("wal/",)
_COPIED = ("packs/", *_BEFORE_PACKS, *_AFTER_PACKS)


@dataclass(frozen=True)
class ReplicationResult:
    """What a replication did, and how far behind the second place is. Sizes in bytes.

    ``ok`` says that nothing was damaged and the whole log, as it was read, is in the second place.
    ``sequence`` is the last entry that it has; ``behind_entries`` those of the first place that it lacks at
    the end of the run, ``behind_seconds`` how old the oldest of them is by the first place's clock.
    ``complete_until``: all that was committed by then, by that clock, is in the second place; None when an
    entry was held back, for the reason ``held_back``. Lists of names are bounded to 50, their counts are not.
    """

    ok: bool
    repository_id: str
    run_key: str
    sequence: int
    entries: int
    behind_entries: int
    behind_seconds: float
    complete_until: datetime | None
    held_back: str
    objects: int
    size_bytes: int
    present_objects: int
    extra_objects: int
    checked_objects: int
    unchecked_objects: int
    removed_objects: int
    locked_objects: int
    damaged_count: int
    damaged: tuple[tuple[str, str], ...]
    repaired_count: int
    repaired: tuple[str, ...]
    warnings: tuple[str, ...]
    duration_seconds: float
    usage: Usage | None = field(default=None, compare=False)
    target_usage: Usage | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        until = self.complete_until
        content["complete_until"] = None if until is None else until.isoformat(timespec="seconds")
        content["damaged"] = [list(found) for found in self.damaged]
        return content | {"repaired": list(self.repaired), "warnings": list(self.warnings)}

    def text(self) -> str:
        """For a log or a message."""
        lines = [
            f"replicate: {'ok' if self.ok else 'NOT COMPLETE'}, {self.objects} objects of"
            f" {format_bytes(self.size_bytes)} and {self.entries} entries of the log copied,"
            f" {self.present_objects} objects were there, {self.duration_seconds:.0f} s"
        ]
        lines += [f"{name}: {what}" for name, what in self.damaged]
        if self.damaged_count > len(self.damaged):
            lines.append(f"… and {self.damaged_count - len(self.damaged)} more")
        if self.held_back:
            lines.append(f"the log was copied up to entry {self.sequence} only: {self.held_back}")
        if self.repaired_count:
            lines.append(f"put back in the second place: {', '.join(self.repaired)}")
        return "\n".join([*lines, *self.warnings])


def replicate(
    repository: Repository,
    target: S3Storage,
    *,
    run_key: str,
    verify_share: Share | None = None,
    mirror_removals: bool = False,
    progress: ProgressCallback | None = None,
) -> ReplicationResult:
    """Bring the second place up to date. Can be killed at any request, and goes on where it was.

    What is there already is told by name and size, and for one share by the checksums that S3 keeps.

    :param repository: the first place
    :param target: the second, with a client of its own
    :param run_key: natural key of the run, for the result
    :param verify_share: ``(i, n)`` with 0 <= i < n: the share whose checksums are compared; None for none
    :param mirror_removals: whether what a collection has removed from the first place is removed here too
    :raises StorageError: or a subclass: one of the places does not answer or refuses
    :raises OtherRepositoryError: the target is the first place, or holds something else
    :raises DivergedError: somebody has backed up into the second place; the entry is named
    :raises CorruptionError: the log of the first place cannot be read
    """
    run = _Replication(repository, target, verify_share, mirror_removals, progress)
    open_place(repository, target)
    run.log.compare()
    run.first = run.log.seq
    state = run.copy_objects()
    run.copy_log(state)
    if mirror_removals and not run.held_back:  # else what the last entries removed may be needed there
        run.remove_swept(state)
    return run.result(run_key)


class _Replication:
    def __init__(
        self,
        repository: Repository,
        target: S3Storage,
        share: Share | None,
        mirror_removals: bool,
        progress: ProgressCallback | None,
    ) -> None:
        self._repository = repository
        self._source, self._target = repository.storage, target
        self._before = (self._source.usage, target.usage)
        self._meter = ProgressMeter("replicate", "repository", progress, unit="objects")
        self._copier = ObjectCopier(repository, target, share, self._meter, want_extra=mirror_removals)
        self.log = ReplicaLog(repository, target)
        self.first = 0
        self._slots: Sequence[str] = ()
        self._as_of: datetime | None = None
        self.held_back = ""
        self._condemned: set[str] = set()
        self._removed = self._locked = 0

    @property
    def _copied(self) -> Any:
        return self._copier.copied

    def copy_objects(self) -> LogState:
        """Copy until nothing is gone any more that was listed; returns the log as it was read before that.

        :raises StorageError: the first place changed faster than it could be copied
        """
        for number in range(_PASSES):
            state = self._refresh()
            if not self._copy_once(state, again=number > 0):
                return state
        raise StorageError(
            f"{self._source}: in {_PASSES} passes, objects were removed while they were copied; try again"
            " when no collection runs"
        )

    def _refresh(self) -> LogState:
        self._as_of = self._source.now()
        return self._repository.refresh()

    def _copy_once(self, state: LogState, *, again: bool) -> set[str]:
        """One pass; returns what was gone. Segments and manifests are listed before packs, copied after."""
        skip = condemned_names(state)
        manifests = {record["manifest"]: record["sha256"] for record in state.snapshots.values()}
        listed = {prefix: list(self._source.list(prefix)) for prefix in _BEFORE_PACKS}
        for prefix in _COPIED:
            if gone := self._copier.copy(prefix, skip, manifests, again=again, listed=listed.get(prefix)):
                return gone
        return set()

    def copy_log(self, state: LogState) -> None:
        """Copy the log as far as what it needs is there; first the keys, of which there may be new ones."""
        keys = copy_keys(self._repository, self._target)
        self._slots = [name for name in keys.extra if epoch_of(name) is None]
        self._copied.damaged.update(keys.damaged)
        self._note_gone(state)
        good = self._last_good(state.seq)
        proof = Proof(self._repository, self._target, state)
        last, why = proof.furthest(self.log, good, state)
        if last < state.seq:
            self.held_back = why or f"{entry_name(last + 1)} is damaged in the first place"
        for entry in self.log.extend(last):
            self._condemned |= condemned_by(entry.content)
            self._meter.add(files=1, read_bytes=len(entry.data), transferred_bytes=len(entry.data))
        self._meter.report()

    def _last_good(self, last: int) -> int:
        """Seq of the last entry before one that is damaged in the first place, which is noted."""
        good = self.log.seq
        for number, entry in enumerate(self.log.entries(last), self.log.seq + 1):
            if isinstance(entry, CorruptionError):
                self._copied.damaged[entry_name(number)] = str(entry)
                return good
            good = number
        return good

    def _note_gone(self, state: LogState) -> None:
        """What is gone has been condemned; else somebody has removed it without the log."""
        gone = self._copied.gone - condemned_names(state)
        for name in gone - self.log.condemned(gone, state.seq):
            self._copied.damaged[name] = "was removed while it was copied, and no entry of the log says so"

    def remove_swept(self, state: LogState) -> None:
        """Remove what only the second place has and the log has condemned: never what is only missing."""
        extra = self._copied.extra
        known = extra & (self._condemned | condemned_names(state))
        known |= self.log.condemned(extra - known, self.log.seq)
        for name in sorted(known):
            if isinstance(self._target.remove(name), Removed):
                self._removed += 1
            else:
                self._locked += 1
        self._copied.extra_objects -= self._removed

    def result(self, run_key: str) -> ReplicationResult:
        copied, behind, age = self._copied, *self._lag()
        damaged = sorted(copied.damaged.items())
        repaired = sorted([*self.log.repaired, *copied.repaired])
        return ReplicationResult(
            ok=not damaged and not self.held_back,
            repository_id=self._repository.repository_id,
            run_key=run_key,
            sequence=self.log.seq,
            entries=self.log.seq - self.first,
            behind_entries=behind,
            behind_seconds=age,
            complete_until=None if self.held_back else self._as_of,
            held_back=self.held_back,
            objects=copied.objects,
            size_bytes=copied.size_bytes,
            present_objects=copied.present,
            extra_objects=copied.extra_objects,
            checked_objects=copied.checked,
            unchecked_objects=copied.unchecked,
            removed_objects=self._removed,
            locked_objects=self._locked,
            damaged_count=len(damaged),
            damaged=tuple(damaged[:_LISTED]),
            repaired_count=len(repaired),
            repaired=tuple(repaired[:_LISTED]),
            warnings=tuple(_slot_warnings(self._slots)),
            duration_seconds=round(self._meter.elapsed_seconds, 3),
            usage=self._source.usage.since(self._before[0]),
            target_usage=self._target.usage.since(self._before[1]),
        )

    def _lag(self) -> tuple[int, float]:
        """Entries of the first place that the second lacks by now, and the age of the oldest, in seconds."""
        newest = self._repository.refresh().seq
        if newest == self.log.seq:
            return 0, 0.0
        try:
            since = self._source.head(entry_name(self.log.seq + 1)).last_modified
        except ObjectNotFoundError:
            return newest - self.log.seq, 0.0
        return newest - self.log.seq, max(0.0, (self._source.now() - since).total_seconds())


def removed_names(repository: Repository, target: S3Storage) -> set[str]:
    """What only the second place has, because a collection has removed it from the first.

    :param repository: the first place
    :param target: the second
    :raises StorageError: or a subclass: one of the places does not answer or refuses
    :raises CorruptionError: the log of the first place cannot be read
    """
    theirs = {info.name for prefix in _COPIED for info in target.list(prefix)}
    state = repository.refresh()
    ours = (info.name for prefix in _COPIED for info in repository.storage.list(prefix))
    extra = theirs.difference(ours)
    known = extra & condemned_names(state)
    return known | ReplicaLog(repository, target).condemned(extra - known, state.seq)


def condemned_names(state: LogState) -> set[str]:
    """Names of all kinds that must be taken as gone."""
    return {name for member in CONDEMNED for name in state.condemned_names(member)}


def _slot_warnings(slots: Sequence[str]) -> list[str]:
    what = "only the second place has this key slot: who knew its passphrase or has its file still opens it"
    return [f"{name}: {what}" for name in slots]
