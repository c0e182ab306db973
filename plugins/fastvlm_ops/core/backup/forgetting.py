"""Forgetting backups that a policy does not keep: one entry of the log, after which they do not count.

Nothing is deleted here; what only they needed is removed by the next collection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fastvlm_ops.core.backup.commit_log import LogState, entry_name
from fastvlm_ops.core.backup.errors import PruningRefusedError, StorageError
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.retention import PlannedSet, RetentionPolicy, plan_retention
from fastvlm_ops.core.backup.sets import COMPLETE_KINDS, BackupSet, sets_of

_ATTEMPTS = 8
_LISTED = 100
ALL_COMPONENTS = "all components"


class _PlanAgainError(Exception):
    """The log has gained something that the plan does not know."""


@dataclass(frozen=True)
class PlannedSnapshot:
    """A snapshot that would be forgotten, and why."""

    snapshot_id: str
    component: str
    reason: str


@dataclass(frozen=True)
class ForgetPlan:
    """What would be forgotten (``sets``, ``snapshots``) and what is ``kept``, newest first.

    ``share`` is the part of all sets that would go; ``refusal`` says why nothing may. Sets with all
    components and those of each other kind are planned apart, else a change of the configuration in the
    evening would stand for that day. ``lost`` are damaged snapshots that go whatever the policy says.
    """

    policy: RetentionPolicy
    now: datetime
    max_share: float
    keep_unpublished: timedelta
    sequence: int
    kept: tuple[PlannedSet, ...] = ()
    sets: tuple[PlannedSet, ...] = ()
    snapshots: tuple[PlannedSnapshot, ...] = ()
    lost: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def share(self) -> float:
        total = len(self.kept) + len(self.sets)
        return len(self.sets) / total if total else 0.0

    @property
    def does_nothing(self) -> bool:
        return not (self.sets or self.snapshots)

    def as_dict(self) -> dict[str, Any]:
        """Small enough for XCom: counts, and the first of each with their reasons."""
        return {
            "policy": asdict(self.policy),
            "kept": len(self.kept),
            "kept_sets": [planned.as_dict() for planned in self.kept[:_LISTED]],
            "sets": len(self.sets),
            "forgotten_sets": [planned.as_dict() for planned in self.sets[:_LISTED]],
            "snapshots": len(self.snapshots),
            "forgotten_snapshots": [asdict(planned) for planned in self.snapshots[:_LISTED]],
            "share": round(self.share, 4),
            "refusal": self.refusal,
        }

    def table(self) -> str:
        """The plan for people, a line a set, then the snapshots that are in none."""
        forgotten = {planned.sequence for planned in self.sets}
        rows = [("", "backup set", "kind", "time", "reasons")]
        for planned in sorted((*self.kept, *self.sets), key=lambda planned: -planned.sequence):
            what = "forget" if planned.sequence in forgotten else "keep"
            why = ", ".join(planned.reasons) or "-"
            rows.append((what, planned.set_id, planned.kind, planned.timestamp, why))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"forget snapshot {one.snapshot_id}: {one.reason}" for one in self.snapshots]
        lines.append(
            f"{len(self.kept)} sets kept, {len(self.sets)} forgotten with {len(self.snapshots)} snapshots"
        )
        return "\n".join([*lines, f"REFUSED: {self.refusal}"] if self.refusal else lines)


@dataclass(frozen=True)
class ForgetResult:
    """What was forgotten. ``sequence`` is the entry's, None where there was nothing to forget.

    ``reused`` is True when this run had done it before.
    """

    sets: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    sequence: int | None = None
    reused: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Small enough for XCom."""
        return {
            "sets": len(self.sets),
            "snapshots": len(self.snapshots),
            "set_ids": list(self.sets[:_LISTED]),
            "snapshot_ids": list(self.snapshots[:_LISTED]),
            "sequence": self.sequence,
            "reused": self.reused,
        }


@dataclass
class _Split:
    """Sets on their way into a plan, newest first."""

    kept: list[PlannedSet] = field(default_factory=list)
    forgotten: list[PlannedSet] = field(default_factory=list)


def plan_forgetting(
    repository: Repository,
    policy: RetentionPolicy,
    *,
    now: datetime,
    max_share: float,
    keep_unpublished: timedelta,
    lost: Collection[str] = (),
) -> ForgetPlan:
    """What the policy would forget; nothing is written.

    Whatever the policy says, these stay: what :func:`~.retention.plan_retention` keeps of each kind, the set
    that holds the newest verified snapshot of a component, and the newest snapshot of each component, on
    which the next incremental builds.

    :param now: what the plan is about; a set of a later time is kept
    :param max_share: refuse to forget more than this share of all sets, from 0 to 1
    :param keep_unpublished: how long snapshots that are in no set stay, by S3's clock alone
    :param lost: snapshots that go although the policy keeps them, with the sets that hold them. Refused
        unless each was found damaged, and a newer one of its component is there
    :raises ValueError: ``now`` has no time zone, ``max_share`` is no share, ``keep_unpublished`` is negative
    :raises StorageError: or a subclass: the endpoint did not answer, or refused
    """
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share is {max_share!r}: it has to be a share from 0 to 1")
    if keep_unpublished < timedelta(0):
        raise ValueError(f"keep_unpublished is {keep_unpublished!r}: it has to be zero or more")
    state = repository.refresh()
    lost = frozenset(lost) & state.snapshots.keys()  # the rest is gone already
    split = _split(sets_of(state), policy, now, state, lost)
    _keep_verified(split, state)
    snapshots = _unneeded_snapshots(repository, state, split, keep_unpublished, lost)
    plan = ForgetPlan(
        policy,
        now,
        max_share,
        keep_unpublished,
        state.seq,
        tuple(sorted(split.kept, key=lambda planned: -planned.sequence)),
        tuple(sorted(split.forgotten, key=lambda planned: -planned.sequence)),
        tuple(snapshots),
        tuple(sorted(lost)),
        _not_lost(state, lost),
    )
    return plan if plan.refusal else _refuse_too_much(plan)


def forget(repository: Repository, plan: ForgetPlan, *, run_key: str) -> ForgetResult:
    """Forget what was planned, by one entry of the log. Idempotent by ``run_key``.

    What the log has gained since may have made something the last of its kind. So it is planned once more,
    and only what both plans forget is forgotten.

    :raises PruningRefusedError: the plan is refused, or planned once more it would be
    :raises StorageError: or a subclass: the endpoint did not answer, or refused; nothing is forgotten
    """
    key = _key(run_key)
    for _ in range(_ATTEMPTS):
        state = repository.refresh()
        if was_done(state, run_key):
            seq = state.recorded[key]
            body = repository.log.entry(seq)["body"]
            return ForgetResult(tuple(body["sets"]), tuple(body["snapshots"]), seq, reused=True)
        again = plan_forgetting(
            repository,
            plan.policy,
            now=plan.now,
            max_share=plan.max_share,
            keep_unpublished=plan.keep_unpublished,
            lost=plan.lost,
        )
        for refusal in (plan.refusal, again.refusal):
            if refusal is not None:
                raise PruningRefusedError(refusal)
        sets, snapshots = _in_both(plan, again)
        if not sets and not snapshots:
            return ForgetResult()
        body = {"snapshots": snapshots, "sets": sets, "run_key": run_key, "key": key}

        def unchanged(state: LogState, planned: int = again.sequence) -> None:
            if state.seq != planned:
                raise _PlanAgainError

        repository.require_conditional_writes()
        try:
            seq = repository.log.append("forget", body, still_valid=unchanged)
        except _PlanAgainError:
            continue
        return ForgetResult(tuple(sets), tuple(snapshots), seq)
    raise StorageError(
        f"{repository.storage}log: other writers came first {_ATTEMPTS} times in a row; nothing was "
        "forgotten, try again"
    )


def was_done(state: LogState, run_key: str) -> bool:
    """Whether a run has forgotten what it had planned."""
    return _key(run_key) in state.recorded


def _key(run_key: str) -> str:
    return f"forget/{run_key}"


def _in_both(plan: ForgetPlan, again: ForgetPlan) -> tuple[list[str], list[str]]:
    sets = {planned.set_id for planned in again.sets}
    snapshots = {planned.snapshot_id for planned in again.snapshots}
    return (
        [planned.set_id for planned in plan.sets if planned.set_id in sets],
        [planned.snapshot_id for planned in plan.snapshots if planned.snapshot_id in snapshots],
    )


# -- sets ----------------------------------------------------------------------------------------------


def is_verified(state: LogState, snapshot_id: str) -> bool:
    """Whether a check of contents found a snapshot intact, and none has found it damaged since."""
    checks = state.checks.get(snapshot_id, {})
    return "verified" in checks and "damaged" not in checks


def _split(
    every: list[BackupSet], policy: RetentionPolicy, now: datetime, state: LogState, lost: Collection[str]
) -> _Split:
    split = _Split()
    sets = []
    for backup in every:
        held = [member.snapshot_id for member in backup.snapshots if member.snapshot_id in lost]
        if held:  # nor does it stand for its day: another one may
            reasons = (f"{', '.join(held)} is lost",)
            split.forgotten.append(
                PlannedSet(backup.set_id, backup.kind, backup.timestamp, backup.sequence, reasons)
            )
        else:
            sets.append(backup)
    groups: dict[str, list[BackupSet]] = {}
    for backup in sets:
        group = ALL_COMPONENTS if backup.kind in COMPLETE_KINDS else backup.kind
        groups.setdefault(group, []).append(backup)
    verified = {
        backup.set_id
        for backup in sets
        if all(is_verified(state, member.snapshot_id) for member in backup.snapshots)
    }
    for members in groups.values():
        plan = plan_retention(members, policy, now=now, verified=verified)
        split.kept += plan.kept
        split.forgotten += plan.forgotten
    return split


def _not_lost(state: LogState, lost: Collection[str]) -> str | None:
    """Why snapshots may not be given up; None where they may."""
    newest = {body["snapshot_id"] for body in _newest_of_each(state, state.snapshots)}
    for snapshot_id in sorted(lost):
        if "damaged" not in state.checks.get(snapshot_id, {}):
            return f"snapshot {snapshot_id} is not known to be damaged, so that it is not given up as lost"
        if snapshot_id in newest:
            component = state.snapshots[snapshot_id]["component"]
            return (
                f"snapshot {snapshot_id} is the newest of {component}: run backup_full before it is given up"
                " as lost"
            )
    return None


def _keep_verified(split: _Split, state: LogState) -> None:
    """Keep the newest set that holds the newest verified snapshot of a component."""
    newest: dict[str, str] = {}
    for snapshot_id, body in state.snapshots.items():
        if is_verified(state, snapshot_id):
            newest[body["component"]] = snapshot_id
    for component, snapshot_id in newest.items():
        if any(snapshot_id in _members(state, planned) for planned in split.kept):
            continue
        holding = [planned for planned in split.forgotten if snapshot_id in _members(state, planned)]
        if holding:
            chosen = max(holding, key=lambda planned: planned.sequence)
            split.forgotten.remove(chosen)
            reason = f"last verified of {component}"
            split.kept.append(
                PlannedSet(chosen.set_id, chosen.kind, chosen.timestamp, chosen.sequence, (reason,))
            )


def _members(state: LogState, planned: PlannedSet) -> list[str]:
    return list(state.sets[planned.set_id]["snapshots"].values())


# -- snapshots -----------------------------------------------------------------------------------------


def _unneeded_snapshots(
    repository: Repository,
    state: LogState,
    split: _Split,
    keep_unpublished: timedelta,
    lost: Collection[str],
) -> list[PlannedSnapshot]:
    """Those of forgotten sets, old ones of no set, and lost ones, newest first."""
    kept = {snapshot_id for planned in split.kept for snapshot_id in _members(state, planned)}
    of_forgotten = {snapshot_id for planned in split.forgotten for snapshot_id in _members(state, planned)}
    kept |= {body["snapshot_id"] for body in _newest_of_each(state, state.snapshots)}
    kept |= {
        body["snapshot_id"]
        for body in _newest_of_each(state, (one for one in state.snapshots if is_verified(state, one)))
    }
    unpublished = [one for one in state.snapshots if one not in kept and one not in of_forgotten]
    old = _stored_before(repository, state, unpublished, keep_unpublished)
    found = []
    for snapshot_id in reversed(state.snapshots):
        component = state.snapshots[snapshot_id]["component"]
        if snapshot_id in lost:
            found.append(PlannedSnapshot(snapshot_id, component, "damaged, and given up as lost"))
        elif snapshot_id in of_forgotten and snapshot_id not in kept:
            found.append(PlannedSnapshot(snapshot_id, component, "no kept set has it"))
        elif snapshot_id in old:
            reason = f"in no set, and older than {keep_unpublished.total_seconds() / 86400:g} days"
            found.append(PlannedSnapshot(snapshot_id, component, reason))
    return found


def _newest_of_each(state: LogState, snapshot_ids: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The newest of some snapshots of each component; they come in the order of the log."""
    newest = {state.snapshots[one]["component"]: state.snapshots[one] for one in snapshot_ids}
    return newest.values()


def _stored_before(
    repository: Repository, state: LogState, snapshot_ids: list[str], keep_unpublished: timedelta
) -> set[str]:
    """Those whose entry S3 stored longer ago, by its own clock. Asks for nothing where there are none."""
    if not snapshot_ids:
        return set()
    names = {entry_name(state.snapshots[one]["seq"]): one for one in snapshot_ids}
    listed = list(repository.storage.list("log/"))
    oldest_spared = repository.storage.now() - keep_unpublished
    return {names[info.name] for info in listed if info.name in names and info.last_modified <= oldest_spared}


def _refuse_too_much(plan: ForgetPlan) -> ForgetPlan:
    if plan.share <= plan.max_share:
        return plan
    refusal = (
        f"{len(plan.sets)} of {len(plan.sets) + len(plan.kept)} backup sets would be forgotten, which is "
        f"{plan.share:.0%}; at most {plan.max_share:.0%} may at once (max_share)"
    )
    return replace(plan, refusal=refusal)
