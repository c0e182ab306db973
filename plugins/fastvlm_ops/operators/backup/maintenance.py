"""Maintains the repository: verifies it, and plans which backups would be kept. Deletes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import include_hash, load_components
from fastvlm_ops.operators.backup.shared import RepositoryOperator
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.retention import RetentionPlan
    from fastvlm_ops.core.backup.sets import BackupSet
    from fastvlm_ops.core.backup.verify_result import Level, VerifyResult

_IDS_LISTED = 100
_TEXT_CHARACTERS = 8000


class DamageFoundError(Exception):
    """The repository is damaged, or was not verified."""

    retryable = False


class VerifyRepositoryOperator(RepositoryOperator):
    """Verify the repository. Damage is a result, which :class:`ConfirmMaintenanceOperator` fails for.

    :param level: ``log``, ``listing``, ``head``, ``share`` or ``full`` (templated)
    :param shares: into how many shares the level ``share`` divides all packs; a run reads the one of its
        week in full (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "level", "shares")

    def __init__(self, *, level: Level = "share", shares: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.shares = shares

    def work(self, context: Context) -> dict[str, Any]:
        """Verify, and name what is damaged, with the files and backups that need it."""
        from fastvlm_ops.core.backup.journal import record_verified
        from fastvlm_ops.core.backup.verify import verify_repository

        share = share_of_week(as_of(context), int(self.shares)) if self.level == "share" else None
        repository = self.hook.open_repository()
        covered = self._snapshots(repository)
        result = verify_repository(repository, level=self.level, share=share, progress=self.show)
        self.note(
            "The repository was verified",
            lambda: record_verified(repository, result, covered, run_key=run_key(context)),
        )
        hit = self._sets_hit(repository, result)
        text = "\n".join([result.text(), *(f"backup {set_id} is hit" for set_id in hit)])
        (self.log.info if result.ok else self.log.error)(text)
        return {**result.as_dict(), "backups": hit, "text": text[:_TEXT_CHARACTERS]}

    def _snapshots(self, repository: Repository) -> list[str]:
        """Ids of those that are there before anything is verified, so that all of them will be."""
        from fastvlm_ops.core.backup.errors import CorruptionError

        try:
            return list(repository.refresh().snapshots)
        except CorruptionError:  # of the log, which the verification says better
            return []

    def _sets_hit(self, repository: Repository, result: VerifyResult) -> list[str]:
        """Ids of the published sets that have a damaged snapshot, newest first."""
        from fastvlm_ops.core.backup.errors import CorruptionError
        from fastvlm_ops.core.backup.sets import list_sets

        hit = {snapshot.snapshot_id for snapshot in result.snapshots}
        if not hit:
            return []
        try:
            sets = list_sets(repository)
        except CorruptionError:  # of the log, so that all are, as the result says
            return []
        found = [backup.set_id for backup in sets if any(m.snapshot_id in hit for m in backup.snapshots)]
        return found[::-1][:_IDS_LISTED]


class PlanRetentionOperator(RepositoryOperator):
    """Plan which backups the policy in ``components.yaml`` keeps, as a table in the log. Deletes nothing.

    Backups with all components and those of the configuration alone are planned apart: else a change of
    the configuration in the evening would stand for that day.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Return the ids that would be kept and forgotten."""
        from fastvlm_ops.core.backup.retention import RetentionPolicy, plan_retention
        from fastvlm_ops.core.backup.sets import COMPLETE_KINDS, list_sets

        include_dir = settings.include_dir()
        policy = load_components(include_dir).retention.model_dump()
        groups: dict[str, list[BackupSet]] = {"all components": []}
        for backup in list_sets(self.hook.open_repository()):
            name = "all components" if backup.kind in COMPLETE_KINDS else backup.kind
            groups.setdefault(name, []).append(backup)
        plans = {}
        for name, sets in groups.items():
            plan = plan_retention(sets, RetentionPolicy(**policy), now=as_of(context))
            self.log.info("Backups of %s; nothing is deleted:\n%s", name, plan.table())
            plans[name] = _outline(plan)
        return {"policy": policy, "plans": plans, "include_hash": include_hash(include_dir)}


def _outline(plan: RetentionPlan) -> dict[str, Any]:
    """Small enough for XCom: counts, and the newest ids."""
    return {
        "kept": len(plan.kept),
        "forgotten": len(plan.forgotten),
        "kept_ids": [planned.set_id for planned in plan.kept[:_IDS_LISTED]],
        "forgotten_ids": [planned.set_id for planned in plan.forgotten[:_IDS_LISTED]],
    }


class ConfirmMaintenanceOperator(EvidenceOperator):
    """The verdict of maintenance: fails when damage was found, or something could not be looked at.

    Belongs last with ``trigger_rule="all_done"``.

    :param verification: output of :class:`VerifyRepositoryOperator`; None when it failed (templated)
    :param retention: output of :class:`PlanRetentionOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = ("verification", "retention")

    def __init__(self, *, verification: Any, retention: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.verification = verification
        self.retention = retention

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh both results."""
        if not self.verification:
            raise DamageFoundError(
                "nothing was verified, so that nothing is known; see the task that verifies"
            )
        if not self.verification["ok"]:
            raise DamageFoundError(self.verification["text"])
        if not self.retention:
            raise DamageFoundError("no retention was planned; see the task that plans it")
        self.log.info("No damage found. %s", self.verification["text"].splitlines()[0])
        return {"ok": True, "level": self.verification["level"]}

    def subject(self) -> dict[str, Any]:
        """Say which backups are hit."""
        return {"backups": (self.verification or {}).get("backups", [])}


def share_of_week(moment: datetime, shares: int) -> tuple[int, int]:
    """Return the share that a week's run reads: each of ``shares`` once in as many weeks.

    :param moment: what the run is about
    :param shares: how many there are, at least 1
    """
    # Weeks counted from the first Monday of the calendar: the number of the ISO week starts anew with each
    # year, and would then skip shares.
    return (moment.date().toordinal() - 1) // 7 % shares, shares
