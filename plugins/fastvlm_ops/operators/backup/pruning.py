"""Prunes the repository: plans what is kept, asks, forgets backups, and removes what no backup needs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import include_hash, load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.links.backup import PruningPageLink
from fastvlm_ops.operators.approving import AskPersonOperator
from fastvlm_ops.operators.backup.shared import LockRenewingOperator, RepositoryOperator
from fastvlm_ops.operators.shared import as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository

_LISTED = 50


class PruningSetupError(Exception):
    """The tasks that remove backups would not do what was planned: another repository, or without a task."""

    retryable = False


class PlanPruningOperator(RepositoryOperator):
    """Plan what is kept, forgotten and removed, by ``retention`` and ``pruning`` in ``components.yaml``.

    Removes nothing. Runs of the schedule are carried out where ``pruning.enabled`` is true, and ask nobody;
    others where they are no dry run, once somebody has approved it. Belongs behind the verification with
    ``trigger_rule="all_done"``: a plan is shown also where it is refused.

    :param verification: output of :class:`VerifyRepositoryOperator`; None when it failed (templated)
    :param dry_run: whether a run that a person started only plans (templated)
    :param despite_damage: whether such a run goes on though damage is known (templated)
    :param lost_snapshots: ids of damaged snapshots that such a run gives up, though the policy keeps them
        (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "verification",
        "dry_run",
        "despite_damage",
        "lost_snapshots",
    )
    operator_extra_links = (PruningPageLink(),)

    def __init__(
        self,
        *,
        verification: Any,
        dry_run: bool = True,
        despite_damage: bool = False,
        lost_snapshots: Sequence[str] = (),
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.verification = verification
        self.dry_run = dry_run
        self.despite_damage = despite_damage
        self.lost_snapshots = lost_snapshots
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return what would be done, whether it is to be, and whether somebody is asked."""
        from fastvlm_ops.core.backup.pruning import plan_pruning

        include_dir = settings.include_dir()
        definitions = load_components(include_dir)
        is_scheduled = context["dag_run"].run_type == "scheduled"
        dry_run = not definitions.pruning.enabled if is_scheduled else bool(self.dry_run)
        despite_damage = bool(self.despite_damage) and not is_scheduled
        repository = self.hook.open_repository(chunks=True)
        moment = as_of(context)
        plan = plan_pruning(
            repository,
            definitions,
            now=moment,
            verification=self.verification,
            lost=() if is_scheduled else self._lost(repository, run_key(context)),
            progress=self.show,
        )
        refusal = plan.refusal(despite_damage=despite_damage)
        result = {
            **plan.outline(),
            "status": "refused" if refusal else "planned" if dry_run else "waiting",
            "reason": refusal,
            "dry_run": dry_run,
            "apply": not refusal and not dry_run,
            "ask": not refusal and not dry_run and not is_scheduled and not plan.does_nothing,
            "damage": plan.damage,
            "as_of": moment.isoformat(),
            "repository_id": repository.repository_id,
            "include_hash": include_hash(include_dir),
        }
        self.log.info("%s\n%s", plan.forget.table(), summary(result))
        if refusal:
            self.log.warning("Removing anything %s refused: %s", "would be" if dry_run else "is", refusal)
        self._record({name: result[name] for name in ("status", "reason", "dry_run")} | plan.row(), context)
        return result

    def _lost(self, repository: Repository, key: str) -> list[str]:
        """Return the snapshots to give up; they are gone already where the run was cleared.

        :raises BackupNotFoundError: there is no such snapshot
        """
        from fastvlm_ops.core.backup.errors import BackupNotFoundError
        from fastvlm_ops.core.backup.forgetting import was_done

        if not self.lost_snapshots:
            return []
        state = repository.refresh()
        unknown = [one for one in self.lost_snapshots if one not in state.snapshots]
        if unknown and not was_done(state, key):
            raise BackupNotFoundError(
                f"there is no snapshot {unknown[0]!r} to give up; verify_repository names those that are"
                " damaged"
            )
        return list(self.lost_snapshots)

    def _record(self, row: dict[str, Any], context: Context) -> None:
        from fastvlm_ops.core.backup.prunings import record_plan

        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            record_plan(store, {"run_key": run_key(context), "planned_at": datetime.now(UTC), **row})


class ApprovePruningOperator(AskPersonOperator):
    """Ask a person before backups are removed.

    Must stand directly before the task that forgets, and that only: it is skipped on rejection.

    :param plan: output of :class:`PlanPruningOperator` (templated)
    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("plan", "timeout_minutes")
    operator_extra_links = (PruningPageLink(),)
    question = "Remove backups for good?"
    skips_on_rejection = True

    def __init__(self, *, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def is_needed(self) -> bool:
        """Return whether somebody has to be asked, by the plan."""
        return bool(self.plan["ask"])

    def describe(self) -> str:
        """Return what would be removed."""
        return request_text(self.plan)


class _PruningRoleOperator(RepositoryOperator):
    """Base of the operators that work as who may delete, on the repository that was planned for.

    :param plan: output of :class:`PlanPruningOperator` (templated)
    :param s3_conn_id: connection of type ``fastvlm_s3`` of who may delete; ``[fastvlm_ops] pruning_conn_id``
        where it is not given (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "plan")

    def __init__(self, *, plan: Any, s3_conn_id: str = "", **kwargs: Any) -> None:
        super().__init__(s3_conn_id=s3_conn_id, **kwargs)
        self.plan = plan

    @cached_property
    def hook(self) -> BackupRepositoryHook:
        """The hook to the repository, as who may delete."""
        return BackupRepositoryHook(self.s3_conn_id or settings.pruning_conn_id())

    def open(self, *, chunks: bool = False) -> Repository:
        """Open the repository that was planned for.

        :param chunks: whether chunks will be read or written
        :raises PruningSetupError: the connection leads to another one
        """
        repository = self.hook.open_repository(chunks=chunks)
        planned = (self.plan or {}).get("repository_id", repository.repository_id)
        if repository.repository_id != planned:
            raise PruningSetupError(
                f"connection {self.hook.s3_conn_id!r} leads to repository {repository.repository_id}, but"
                f" what is to be removed was planned for {planned}; give both connections"
                " the same bucket and prefix"
            )
        return repository


class _RemovingOperator(_PruningRoleOperator):
    """Base of the operators that remove something. Does so only where the plan is to be carried out."""

    operator_extra_links = (PruningPageLink(),)

    def is_to_be_done(self) -> bool:
        """Return whether the plan is to be carried out, and say so where it is not."""
        if not self.plan["apply"]:
            why = self.plan["reason"] or "it is a dry run"
            self.log.info("Nothing is removed: %s", why)
        return bool(self.plan["apply"])


class ForgetBackupsOperator(_RemovingOperator):
    """Take the backups that were planned off the list, as far as the policy still does; deletes nothing."""

    def work(self, context: Context) -> dict[str, Any]:
        """Forget, once for each run."""
        from fastvlm_ops.core.backup.pruning import forget_planned

        if not self.is_to_be_done():
            return {"done": False}
        result = forget_planned(
            self.open(),
            load_components(settings.include_dir()),
            now=datetime.fromisoformat(self.plan["as_of"]),
            set_ids=self.plan["set_ids"],
            snapshot_ids=self.plan["snapshot_ids"],
            lost=self.plan["lost"],
            run_key=run_key(context),
        )
        self.log.info("Forgotten: %d sets, %d snapshots", len(result.sets), len(result.snapshots))
        return {"done": True, **result.as_dict()}


class CollectGarbageOperator(_RemovingOperator):
    """Remove what no backup needs, and finish what an earlier run has begun.

    :param forgotten: output of :class:`ForgetBackupsOperator` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "plan", "forgotten")

    def __init__(self, *, forgotten: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.forgotten = forgotten

    def work(self, context: Context) -> dict[str, Any]:
        """Remove, once for each run."""
        from fastvlm_ops.core.backup.progress import format_bytes
        from fastvlm_ops.core.backup.pruning import collect_garbage

        if not self.is_to_be_done():
            return {"done": False}
        if not (self.forgotten or {}).get("done"):
            raise PruningSetupError("no backups were forgotten before; clear the task that forgets them too")
        result = collect_garbage(
            self.open(chunks=True),
            load_components(settings.include_dir()),
            run_key=run_key(context),
            progress=self.show,
        )
        self.log.info("Removed: %d objects, %s", result.deleted_objects, format_bytes(result.deleted_bytes))
        if result.locked_objects:
            until = result.locked_until or "a legal hold is lifted"
            self.log.info("%d objects are locked until %s, and stay", result.locked_objects, until)
        return {"done": True, **result.as_dict()}


class RenewLocksOperator(_PruningRoleOperator, LockRenewingOperator):
    """Lock for longer what backups still need, where less than half of its days are left.

    :param plan: output of :class:`PlanPruningOperator`; None when it failed (templated)
    """


def summary(plan: dict[str, Any]) -> str:
    """Return what would be removed, as one sentence.

    :param plan: output of :class:`PlanPruningOperator`
    """
    from fastvlm_ops.core.backup.progress import format_bytes

    collection = plan["collection"]
    if not plan["bytes"]:
        return f"{len(plan['set_ids'])} backups to forget; what that would remove is not known"
    return (
        f"{len(plan['set_ids'])} backups and {len(plan['snapshot_ids'])} snapshots to forget;"
        f" {collection['packs']} packs to remove, {format_bytes(collection['removed_bytes'])} of"
        f" {format_bytes(collection['total_bytes'])}, of which {format_bytes(collection['copied_bytes'])} are"
        " copied before"
    )


def request_text(plan: dict[str, Any]) -> str:
    """Return what a person has to decide on, as Markdown.

    :param plan: output of :class:`PlanPruningOperator`
    """
    lines = [f"**Removed for good:** {summary(plan)}. {plan['kept']} backups stay."]
    if plan["damage"]:
        lines += ["", f"**Despite damage:** {plan['damage']}"]
    if plan["lost"]:
        lines += [
            "",
            "Damaged snapshots that are given up, with what could yet be restored of them:",
            "",
        ]
        lines += [f"- `{snapshot_id}`" for snapshot_id in plan["lost"]]
    if plan["set_ids"]:
        lines += ["", "Backups that would be forgotten, newest first:", ""]
        lines += [f"- `{set_id}`" for set_id in plan["set_ids"][:_LISTED]]
    if len(plan["set_ids"]) > _LISTED:
        lines += ["", f"and {len(plan['set_ids']) - _LISTED} more, on the page Backups, Pruning."]
    return "\n".join(lines)
