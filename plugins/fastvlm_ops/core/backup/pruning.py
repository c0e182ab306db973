"""Pruning as one: what is forgotten and what that lets go, when it is refused, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastvlm_ops.core.backup.collecting import CollectionPlan, CollectionResult, collect, plan_collection
from fastvlm_ops.core.backup.errors import BackupError, CorruptionError
from fastvlm_ops.core.backup.forgetting import ForgetPlan, ForgetResult, forget, plan_forgetting
from fastvlm_ops.core.backup.progress import ProgressCallback
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.retention import RetentionPolicy
from fastvlm_ops.core.config import Components

_IDS_LISTED = 100
_IDS_NAMED = 5
_SETS_SHOWN = 2000


class PruningRefusedError(BackupError):
    """A guard keeps backups from being removed."""


@dataclass(frozen=True)
class PruningPlan:
    """What would be forgotten, and what would then be removed.

    :param collection: None where it could not be planned, which ``problem`` says
    :param unverified: why this run knows too little to remove anything; None where it knows enough
    :param damage: what is known to be damaged; None where nothing is
    """

    forget: ForgetPlan
    collection: CollectionPlan | None
    problem: str | None
    unverified: str | None
    damage: str | None

    def refusal(self, *, despite_damage: bool = False) -> str | None:
        """Why nothing may be removed; None where it may.

        :param despite_damage: whether known damage is no reason
        """
        collection = self.problem if self.collection is None else self.collection.refusal
        damage = None if despite_damage else self.damage
        found = [one for one in (self.unverified, damage, self.forget.refusal, collection) if one]
        return "\n".join(found) or None


def plan_pruning(
    repository: Repository,
    definitions: Components,
    *,
    now: datetime,
    verification: Mapping[str, Any] | None,
    progress: ProgressCallback | None = None,
) -> PruningPlan:
    """Plan what ``retention`` and ``pruning`` keep and remove. Changes nothing.

    :param now: what the ages of backups are about
    :param verification: what this run's verification found, as :meth:`VerifyResult.as_dict` says it; None
        where it found nothing out
    :raises CorruptionError: the log is damaged.
    :raises StorageError: the endpoint did not answer, or refused.
    """
    rules = definitions.pruning
    plan = _plan_forgetting(repository, definitions, now)
    collection, problem = None, None
    try:
        collection = plan_collection(
            repository,
            keep_unreferenced=rules.keep_unreferenced,
            max_waste=rules.max_waste,
            copy_limit_bytes=rules.copy_limit_bytes,
            max_share=rules.max_share,
            forget=plan,
            progress=progress,
        )
    except CorruptionError as error:
        problem = f"what the backups need cannot be told: {error}"
    return PruningPlan(
        plan, collection, problem, _unverified(verification), _damage(repository, verification)
    )


def _plan_forgetting(repository: Repository, definitions: Components, now: datetime) -> ForgetPlan:
    rules = definitions.pruning
    return plan_forgetting(
        repository,
        RetentionPolicy(**definitions.retention.model_dump()),
        now=now,
        max_share=rules.max_share,
        keep_unpublished=rules.keep_unpublished,
    )


def _unverified(verification: Mapping[str, Any] | None) -> str | None:
    if verification is None:
        return (
            "this run has verified nothing, so that what is kept may be damaged; see the task that verifies"
        )
    if verification["level"] == "log":
        return (
            "this run was verified at the level log alone, which looks at no pack; take listing, or a level"
            " that reads more"
        )
    return None


def _damage(repository: Repository, verification: Mapping[str, Any] | None) -> str | None:
    """What this run has found, else what the log has known since an earlier one."""
    if verification is not None and not verification["ok"]:
        return f"damage was found: {verification['text'].splitlines()[0]}"
    checks = repository.log.state.checks
    damaged = [snapshot_id for snapshot_id, kinds in checks.items() if "damaged" in kinds]
    if not damaged:
        return None
    named = ", ".join(damaged[:_IDS_NAMED]) + (", …" if len(damaged) > _IDS_NAMED else "")
    return (
        f"an earlier verification found damage, and none since has shown it to be gone: {named}. Run"
        " backup_full, and then backup_maintenance with the level full"
    )
