"""Pruning as one: what is forgotten and what that lets go, when it is refused, and how it is shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from fastvlm_ops.core.backup.collecting import CollectionResult, collect, plan_collection
from fastvlm_ops.core.backup.collection_plan import CollectionPlan
from fastvlm_ops.core.backup.forgetting import ForgetPlan, ForgetResult, forget, plan_forgetting
from fastvlm_ops.core.backup.progress import ProgressCallback
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.retention import RetentionPolicy
from fastvlm_ops.core.config import Components, Pruning

_IDS_NAMED = 5
_SETS_SHOWN = 2000
_SNAPSHOTS_SHOWN = 100


@dataclass(frozen=True)
class PruningPlan:
    """What would be forgotten, and what would then be removed.

    :param unverified: why this run knows too little to remove anything; None where it knows enough
    :param damage: what is known to be damaged; None where nothing is
    """

    forget: ForgetPlan
    collection: CollectionPlan
    unverified: str | None
    damage: str | None

    @property
    def does_nothing(self) -> bool:
        """Whether there is nothing to forget or remove."""
        collection = self.collection
        return self.forget.does_nothing and collection.does_nothing and not collection.unfinished

    @property
    def is_measured(self) -> bool:
        """Whether it is known what would be removed; it is not where a snapshot cannot be read."""
        return self.collection.refusal is None or not self.collection.does_nothing

    def refusal(self, *, despite_damage: bool = False) -> str | None:
        """Why nothing may be removed; None where it may.

        :param despite_damage: whether known damage is no reason
        """
        damage = None if despite_damage else self.damage
        reasons = (self.unverified, damage, self.forget.refusal, self.collection.refusal)
        return "\n".join(reason for reason in reasons if reason) or None

    def outline(self) -> dict[str, Any]:
        """Counts, and the ids of all that would be forgotten: what was approved and nothing else may be."""
        return {
            "kept": len(self.forget.kept),
            "set_ids": [planned.set_id for planned in self.forget.sets],
            "snapshot_ids": [planned.snapshot_id for planned in self.forget.snapshots],
            "lost": list(self.forget.lost),
            "collection": self.collection.as_dict(),
            "bytes": self.sizes(),
        }

    def sizes(self) -> dict[str, int]:
        """What becomes of all bytes; without what is not known."""
        plan = self.collection
        if not self.is_measured:
            return {}
        return {
            "kept": plan.total_bytes - plan.removed_bytes,
            "copied": plan.copied_bytes,
            "removed": plan.removed_bytes - plan.copied_bytes,
            "locked": plan.locked_bytes,
        }

    def row(self) -> dict[str, Any]:
        """Columns of ``backup_pruning``, with what a page shows in ``plan``."""
        plan, known = self.collection, self.is_measured
        return {
            "forgotten_sets": len(self.forget.sets),
            "forgotten_snapshots": len(self.forget.snapshots),
            "packs": len(plan.packs) if known else None,
            "total_bytes": plan.total_bytes,
            "removed_bytes": plan.removed_bytes if known else None,
            "copied_bytes": plan.copied_bytes if known else None,
            "plan": {
                "sets": self._sets(),
                "snapshots": [asdict(planned) for planned in self.forget.snapshots[:_SNAPSHOTS_SHOWN]],
                "bytes": self.sizes(),
                "locked": len(plan.locked),
            },
        }

    def _sets(self) -> list[dict[str, Any]]:
        """All sets, newest first."""
        kept = [(planned, True) for planned in self.forget.kept]
        forgotten = [(planned, False) for planned in self.forget.sets]
        newest_first = sorted(kept + forgotten, key=lambda pair: -pair[0].sequence)
        return [
            {
                "set_id": planned.set_id,
                "kind": planned.kind,
                "timestamp": planned.timestamp,
                "kept": is_kept,
                "reasons": list(planned.reasons),
            }
            for planned, is_kept in newest_first[:_SETS_SHOWN]
        ]


def plan_pruning(
    repository: Repository,
    definitions: Components,
    *,
    now: datetime,
    verification: Mapping[str, Any] | None,
    lost: Collection[str] = (),
    progress: ProgressCallback | None = None,
) -> PruningPlan:
    """Plan what ``retention`` and ``pruning`` keep and remove. Changes nothing.

    :param repository: opened for reading chunks
    :param now: what the ages of backups are about
    :param verification: what this run's verification found, by ``ok``, ``level`` and ``text``; None where it
        found nothing out
    :param lost: damaged snapshots that go whatever the policy says
    :raises CorruptionError: the log is damaged.
    :raises StorageError: the endpoint did not answer, or refused.
    """
    plan = _plan_forgetting(repository, definitions, now, lost)
    collection = plan_collection(repository, **_limits(definitions.pruning), forget=plan, progress=progress)
    return PruningPlan(plan, collection, _unverified(verification), _damage(repository, verification))


def forget_planned(
    repository: Repository,
    definitions: Components,
    *,
    now: datetime,
    set_ids: Collection[str],
    snapshot_ids: Collection[str],
    run_key: str,
    lost: Collection[str] = (),
) -> ForgetResult:
    """Forget what was planned, as far as the policy still does. Idempotent by ``run_key``.

    :param now: as it was planned
    :param set_ids: of the sets that may be forgotten, and no others
    :param snapshot_ids: likewise
    :param lost: as it was planned
    :raises PruningRefusedError: more would go than may.
    """
    plan = _plan_forgetting(repository, definitions, now, lost)
    allowed = replace(
        plan,
        sets=tuple(planned for planned in plan.sets if planned.set_id in set(set_ids)),
        snapshots=tuple(one for one in plan.snapshots if one.snapshot_id in set(snapshot_ids)),
    )
    return forget(repository, allowed, run_key=run_key)


def collect_garbage(
    repository: Repository,
    definitions: Components,
    *,
    run_key: str,
    progress: ProgressCallback | None = None,
) -> CollectionResult:
    """Remove what no backup needs, and finish what an earlier run has begun. Idempotent by ``run_key``.

    :param repository: opened for reading chunks, by who may delete
    :raises PruningRefusedError: more would go than may, or a snapshot cannot be read.
    """
    return collect(repository, **_limits(definitions.pruning), run_key=run_key, progress=progress)


def _plan_forgetting(
    repository: Repository, definitions: Components, now: datetime, lost: Collection[str]
) -> ForgetPlan:
    rules = definitions.pruning
    return plan_forgetting(
        repository,
        RetentionPolicy(**definitions.retention.model_dump()),
        now=now,
        max_share=rules.max_share,
        keep_unpublished=rules.keep_unpublished,
        lost=lost,
    )


def _limits(rules: Pruning) -> dict[str, Any]:
    return {
        "keep_unreferenced": rules.keep_unreferenced,
        "max_waste": rules.max_waste,
        "copy_limit_bytes": rules.copy_limit_bytes,
        "max_share": rules.max_share,
    }


def _unverified(verification: Mapping[str, Any] | None) -> str | None:
    if not verification:
        return (
            "this run has verified nothing, so that what is kept may be damaged; see the task that verifies"
        )
    if verification["level"] == "log":
        return (
            "the level log looks at no pack, so that what is kept may be damaged; choose listing, or a level"
            " that reads more"
        )
    return None


def _damage(repository: Repository, verification: Mapping[str, Any] | None) -> str | None:
    """What this run has found, else what the log has known since an earlier one."""
    if verification and not verification["ok"]:
        return f"damage was found: {verification['text'].splitlines()[0]}"
    checks = repository.log.state.checks
    damaged = [snapshot_id for snapshot_id, kinds in checks.items() if "damaged" in kinds]
    if not damaged:
        return None
    named = ", ".join(damaged[:_IDS_NAMED]) + (", …" if len(damaged) > _IDS_NAMED else "")
    return (
        f"an earlier verification found {named} damaged, and none since has shown it to be mended: run"
        " backup_full, then backup_maintenance with the level full"
    )
