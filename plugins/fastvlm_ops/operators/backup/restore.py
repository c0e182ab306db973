"""Restores backups: asks before anything is replaced, restores, and gives the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.approving import AskPersonOperator, rejection
from fastvlm_ops.operators.backup.plan_restore import RestoreStep, check_unused, restore_step
from fastvlm_ops.operators.backup.shared import RepositoryOperator
from fastvlm_ops.operators.shared import EvidenceOperator, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository


class ApproveRestoreOperator(AskPersonOperator):
    """Ask a person before a restore replaces anything.

    Must stand directly before the tasks that restore, and them only: those are skipped on rejection.

    :param request: XCom ``request`` of :class:`PlanRestoreOperator` (templated)
    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("request", "timeout_minutes")
    question = "Replace files by a restore?"
    skips_on_rejection = True

    def __init__(self, *, request: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.request = request

    def is_needed(self) -> bool:
        """Return whether anything would be replaced."""
        return bool(self.request["needed"])

    def describe(self) -> str:
        """Return what would be replaced."""
        return request_text(self.request)


class RestoreBackupOperator(RepositoryOperator):
    """Restore one component.

    :param component: its name, for messages (templated)
    :param snapshot_id: the snapshot (templated)
    :param target: folder to restore into (templated)
    :param dry_run: only say what would be written (templated)
    :param paths: patterns of what to restore; empty for all (templated)
    :param overwrite: whether what differs in the target is replaced; else it must be absent or empty
        (templated)
    :param keep_replaced: folder for what is replaced (templated)
    :param in_use: paths that are there only while a service uses the target: it is not touched then
        (templated)
    :param set_id: the backup set it is restored from, for the log of the repository (templated)
    :param in_place: whether the target is where the component is in service, for that log (templated)
    :param recovery: where a cluster of PostgreSQL is recovered to; None to restore a backup (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "component",
        "snapshot_id",
        "target",
        "dry_run",
        "paths",
        "overwrite",
        "keep_replaced",
        "in_use",
        "set_id",
        "in_place",
        "recovery",
    )

    def __init__(
        self,
        *,
        component: str,
        snapshot_id: str,
        target: str,
        dry_run: bool = True,
        paths: list[str] | None = None,
        overwrite: bool = False,
        keep_replaced: str | None = None,
        in_use: list[str] | None = None,
        set_id: str = "",
        in_place: bool = False,
        recovery: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.component = component
        self.snapshot_id = snapshot_id
        self.target = target
        self.dry_run = dry_run
        self.paths = paths
        self.overwrite = overwrite
        self.keep_replaced = keep_replaced
        self.in_use = in_use
        self.set_id = set_id
        self.in_place = in_place
        self.recovery = recovery

    def work(self, context: Context) -> dict[str, Any]:
        """Restore and verify, or say what would be restored."""
        step = RestoreStep(
            self.component,
            self.snapshot_id,
            self.target,
            list(self.paths or []),
            self.overwrite,
            self.keep_replaced,
            list(self.in_use or []),
            self.set_id,
            self.in_place,
            self.recovery,
        )
        check_unused(step.in_use)
        repository = self.hook.open_repository(chunks=True)
        result = restore_step(repository, step, dry_run=self.dry_run, progress=self.show)
        if not self.dry_run:
            self._note(repository, result, run_key(context))
        if result["replaced_in"]:
            self.log.info(
                "%s files in %s were replaced. As they were, they stand in %s: moved back, they undo it",
                result["replaced_files"],
                self.target,
                result["replaced_in"],
            )
        return result

    def _note(self, repository: Repository, result: dict[str, Any], key: str) -> None:
        if self.s3_conn_id != BackupRepositoryHook.default_conn_name:
            self.log.info("%s has the log of the first place, and gets no entry of its own", self.s3_conn_id)
            return
        from fastvlm_ops.core.backup.journal import record_restored

        self.note(
            f"{self.component} was restored",
            lambda: record_restored(
                repository,
                self.snapshot_id,
                set_id=self.set_id,
                run_key=key,
                where="in place" if self.in_place else "new folder",
                files=result["files"],
                size_bytes=result["size_bytes"],
                duration_seconds=result["duration_seconds"],
            ),
        )

    def subject(self) -> dict[str, Any]:
        """Name the component and where it was going."""
        return {"component": self.component, "target": self.target}


class RestoreIncompleteError(Exception):
    """Not everything that was asked for was restored."""

    retryable = False


class ConfirmRestoreOperator(EvidenceOperator):
    """The verdict of a restore: fails unless every step that was planned has a result.

    Belongs last with ``trigger_rule="all_done"``: Airflow calls a run green when its last task is skipped.
    It must not stand directly behind the approval, whose rejection would skip it too.

    :param steps: output of :class:`PlanRestoreOperator` (templated)
    :param results: output of the mapped :class:`RestoreBackupOperator` (templated)
    :param dry_run: whether nothing was to be written (templated)
    :param approval_task_id: id of the task of :class:`ApproveRestoreOperator` (templated)
    """

    template_fields: Sequence[str] = ("steps", "results", "dry_run", "approval_task_id")

    def __init__(
        self,
        *,
        steps: Any,
        results: Any,
        dry_run: bool = True,
        approval_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.steps = steps
        self.results = results
        self.dry_run = dry_run
        self.approval_task_id = approval_task_id

    def work(self, context: Context) -> dict[str, Any]:
        """Compare what was planned with what has a result."""
        if not self.steps:
            raise RestoreIncompleteError("nothing was restored, since nothing could be planned")
        results = {result["component"]: result for result in self.results or () if result}
        if missing := [step["component"] for step in self.steps if step["component"] not in results]:
            why = self._rejection(context) or "see the tasks of these"
            raise RestoreIncompleteError(f"not restored: {', '.join(missing)}; {why}")
        done = "Dry run, nothing was written. Would restore" if self.dry_run else "Restored and verified"
        self.log.info("%s %s", done, ", ".join(results))
        recovered = self._recovered(results)
        replaced = {name: result["replaced_in"] for name, result in results.items() if result["replaced_in"]}
        for name, folder in replaced.items():
            self.log.info("What the restore of %s has replaced stands in %s", name, folder)
        verdict = {"dry_run": self.dry_run, "components": list(results), "replaced_in": replaced}
        return {**verdict, "recovered": recovered} if recovered else verdict

    def _recovered(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return what became of the clusters that were recovered, by component.

        :raises RestoreIncompleteError: one that was to be started on trial was not
        """
        recovered = {}
        for step in self.steps:
            name, recovery = step["component"], step.get("recovery")
            if recovery is None:
                continue
            trial = results[name]["trial"]
            if recovery["trial"] and trial is None and not self.dry_run:
                raise RestoreIncompleteError(f"{name} was recovered, but not started on trial")
            recovered[name] = {"target": recovery["plan"]["target"], "trial": trial}
            self.log.info("%s: %s", name, recovery_text(recovered[name]))
        return recovered

    def _rejection(self, context: Context) -> str | None:
        return None if self.approval_task_id is None else rejection(context, self.approval_task_id)


def recovery_text(recovered: dict[str, Any]) -> str:
    """Return where a cluster was recovered to and what its trial has shown, for people.

    :param recovered: of one component, as :class:`ConfirmRestoreOperator` returns it
    """
    trial = recovered["trial"]
    if trial is None:
        return f"to {recovered['target']}, not started on trial"
    where = trial["stopped"] or "at the end of the WAL"
    unchecked = f"; NOT checked: {'; '.join(trial['unchecked'])}" if trial["unchecked"] else ""
    return (
        f"to {recovered['target']}, in {trial['recovery_seconds']:.0f} s: {where}, last transaction"
        f" {trial['reached_time']}, now on timeline {trial['timeline']}{unchecked}"
    )


def request_text(request: dict[str, Any]) -> str:
    """Return what a person has to decide on, as Markdown.

    :param request: XCom ``request`` of :class:`PlanRestoreOperator`
    """
    from fastvlm_ops.core.backup.progress import format_bytes

    lines = [
        f"Backup `{request['backup']}` would be restored over what is there. **Replaced** files are moved"
        " aside, so that it can be undone; files that the backup does not have stay.",
        "",
        "| component | into | files | size | equal already | **replaced** |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {step['component']} | `{step['target']}` | {step['files']} | {format_bytes(step['size_bytes'])} |"
        f" {step['kept_files']} | **{step['replaced_files']}** |"
        for step in request["steps"]
    ]
    return "\n".join(lines)
