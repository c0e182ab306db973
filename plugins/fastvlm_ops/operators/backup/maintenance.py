"""Maintains the repository: verifies it, and gives the verdict over that, pruning and locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.links.backup import PruningPageLink, RestoreIntactLink, restore_address
from fastvlm_ops.operators.approving import rejection
from fastvlm_ops.operators.backup.shared import LocksNotRenewedError, RepositoryOperator
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.verify_result import Level, VerifyResult

_IDS_LISTED = 100
_TEXT_CHARACTERS = 8000


class DamageFoundError(Exception):
    """The repository is damaged, or was not verified."""

    retryable = False


class PruningIncompleteError(Exception):
    """What was to be removed was not, or not all of it."""

    retryable = False


class VerifyRepositoryOperator(RepositoryOperator):
    """Verify the repository. Damage is a result, which :class:`ConfirmMaintenanceOperator` fails for.

    Beside each backup that is hit, the result names the intact one that was published nearest to it.

    :param level: ``log``, ``listing``, ``head``, ``share`` or ``full`` (templated)
    :param shares: into how many shares the level ``share`` divides all packs; a run reads the one of its
        week in full (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "level", "shares")
    operator_extra_links = (RestoreIntactLink(),)

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
        text = "\n".join([result.text(), *hit_lines(hit)])
        (self.log.info if result.ok else self.log.error)(text)
        return {
            **result.as_dict(),
            "backups": list(hit),
            "nearest_intact_set": next((nearest for nearest in hit.values() if nearest), None),
            "text": text[:_TEXT_CHARACTERS],
        }

    def _snapshots(self, repository: Repository) -> list[str]:
        """Ids of those that are there before anything is verified, so that all of them will be."""
        from fastvlm_ops.core.backup.errors import CorruptionError

        try:
            return list(repository.refresh().snapshots)
        except CorruptionError:  # of the log, which the verification says better
            return []

    def _sets_hit(self, repository: Repository, result: VerifyResult) -> dict[str, str | None]:
        """The published sets that have a damaged snapshot, newest first, each with the nearest intact one."""
        from fastvlm_ops.core.backup.errors import CorruptionError
        from fastvlm_ops.core.backup.nearest import sets_hit

        damaged = {snapshot.snapshot_id for snapshot in result.snapshots}
        if not damaged:
            return {}
        try:
            hit = sets_hit(repository.refresh(), damaged)
        except CorruptionError:  # of the log, so that all are, as the result says
            return {}
        listed = dict(list(hit.items())[:_IDS_LISTED])
        # Where more is damaged than is listed, which of the others are intact is not known.
        is_whole = result.snapshot_count <= len(result.snapshots)
        return listed if is_whole else dict.fromkeys(listed)


class ConfirmMaintenanceOperator(EvidenceOperator):
    """The verdict of maintenance: fails when damage was found, when something could not be looked at, when
    what was to be removed was not, and when locks were not renewed. Records what came of the plan.

    Belongs behind all of them with ``trigger_rule="all_done"``. It must not stand directly behind the
    approval, whose rejection would skip it too.

    :param verification: output of :class:`VerifyRepositoryOperator`; None when it failed (templated)
    :param plan: output of :class:`PlanPruningOperator`; None when it failed (templated)
    :param renewed: output of :class:`RenewLocksOperator`; None when it failed (templated)
    :param forgotten: output of :class:`ForgetBackupsOperator`; None when it did not run (templated)
    :param collected: output of :class:`CollectGarbageOperator`; None when it did not run (templated)
    :param approval_task_id: id of the task of :class:`ApprovePruningOperator` (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = (
        "verification",
        "plan",
        "renewed",
        "forgotten",
        "collected",
        "approval_task_id",
        "operations_db_conn_id",
    )
    operator_extra_links = (RestoreIntactLink(), PruningPageLink())

    def __init__(
        self,
        *,
        verification: Any,
        plan: Any,
        renewed: Any,
        forgotten: Any = None,
        collected: Any = None,
        approval_task_id: str = "",
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.verification = verification
        self.plan = plan
        self.renewed = renewed
        self.forgotten = forgotten
        self.collected = collected
        self.approval_task_id = approval_task_id
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh what was found and done, and record it."""
        rejected = rejection(context, self.approval_task_id) if self.approval_task_id else None
        unpruned = self._unpruned(rejected)
        failure = self._failure(unpruned)
        if self.plan and self.plan["apply"]:
            try:
                self._record(run_key(context), rejected, unpruned)
            except Exception as error:
                if failure is None:
                    raise
                self.log.warning("What came of the plan is not recorded: %s", error)
        if failure is not None:
            raise failure
        self.log.info("No damage found. %s", self.verification["text"].splitlines()[0])
        if self.plan["reason"]:
            self.log.warning("It would be refused to remove anything: %s", self.plan["reason"])
        return {
            "ok": True,
            "level": self.verification["level"],
            "status": "done" if self.plan["apply"] else self.plan["status"],
            "collected": self.collected if self.plan["apply"] else None,
            "locked_until": self.renewed["until"],
        }

    def _failure(self, unpruned: Exception | None) -> Exception | None:
        """What is worst, and beneath it that locks were not renewed: that is to be mended too."""
        worst = self._damage() or unpruned
        if self.renewed:
            return worst
        unrenewed = LocksNotRenewedError()
        return unrenewed if worst is None else type(worst)(f"{worst}\n{unrenewed}")

    def _damage(self) -> Exception | None:
        if not self.verification:
            return DamageFoundError(
                "nothing was verified, so that nothing is known; see the task that verifies"
            )
        return None if self.verification["ok"] else DamageFoundError(self.verification["text"])

    def _unpruned(self, rejected: str | None) -> Exception | None:
        """Why what was to be removed was not. A plan that is refused is an answer where it is a dry run."""
        if not self.plan:
            return PruningIncompleteError("no pruning was planned; see the task that plans it")
        if self.plan["status"] == "refused" and not self.plan["dry_run"]:
            return PruningIncompleteError(f"nothing was removed: {self.plan['reason']}")
        if not self.plan["apply"]:
            return None
        if rejected:
            return PruningIncompleteError(f"nothing was removed: {rejected}")
        if not self.forgotten or not self.forgotten["done"]:
            return PruningIncompleteError("nothing was removed; see the task that forgets backups")
        if not self.collected or not self.collected["done"]:
            return PruningIncompleteError(
                "backups were forgotten, but what only they needed was not removed, or not all of it; see the"
                " task that collects. The next run goes on with it"
            )
        return None

    def _record(self, key: str, rejected: str | None, unpruned: Exception | None) -> None:
        """Record what came of the plan."""
        from fastvlm_ops.core.backup.prunings import Status, record_outcome

        status = Status.DONE if unpruned is None else Status.REJECTED if rejected else Status.UNFINISHED
        reason = None if unpruned is None else rejected or str(unpruned)
        collected = self.collected if unpruned is None else None
        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            record_outcome(store, key, status=status, reason=reason, collected=collected)

    def subject(self) -> dict[str, Any]:
        """Say which backups are hit, and what to restore instead."""
        found = self.verification or {}
        return {
            "backups": list(found.get("backups", ())),
            "nearest_intact_set": found.get("nearest_intact_set"),
        }


def hit_lines(hit: Mapping[str, str | None]) -> list[str]:
    """Return which backups are hit, for people, and where to restore others from.

    :param hit: ids of backups, newest first, each with the nearest intact one, if there is any
    """
    lines = []
    for set_id, nearest in hit.items():
        instead = f"the nearest intact one is {nearest}" if nearest else "no intact one is known"
        lines.append(f"backup {set_id} is hit; {instead}")
    if offered := next((one for one in hit.values() if one), None):
        lines.append(f"to restore {offered}: {restore_address(offered)}")
    return lines


def share_of_week(moment: datetime, shares: int) -> tuple[int, int]:
    """Return the share that a week's run reads: each of ``shares`` once in as many weeks.

    :param moment: what the run is about
    :param shares: how many there are, at least 1
    """
    # Weeks counted from the first Monday of the calendar: the number of the ISO week starts anew with each
    # year, and would then skip shares.
    return (moment.date().toordinal() - 1) // 7 % shares, shares
