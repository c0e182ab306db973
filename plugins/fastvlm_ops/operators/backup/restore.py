"""Restores backups: plans, asks before anything is replaced, restores, and gives the verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from fastvlm_ops import settings
from fastvlm_ops.core.config import Components, FilesComponent, load_components
from fastvlm_ops.operators.backup.shared import RepositoryOperator, backup_set_id
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet

#: XCom of what an approval is about, and of how it was decided.
REQUEST_KEY = "request"
DECISION_KEY = "decision"


@dataclass(frozen=True)
class RestoreStep:
    """What restores one component; the arguments of :class:`RestoreBackupOperator`.

    :param in_use: paths that are there only while a service uses the target
    """

    component: str
    snapshot_id: str
    target: str
    paths: list[str]
    overwrite: bool
    keep_replaced: str | None
    in_use: list[str]
    set_id: str
    in_place: bool


class PlanRestoreOperator(RepositoryOperator):
    """Resolve a backup set and check the targets; what is to be restored goes to XCom, one item a component.

    Map :class:`RestoreBackupOperator` over this task's output with ``expand_kwargs``, and give its XCom
    ``request`` to :class:`ApproveRestoreOperator`.

    :param backup_id: id of a backup set, ``latest``, ``latest-configuration``, or a time in ISO 8601
        (templated)
    :param target: name of a folder below ``[fastvlm_ops] restore_dir``; not needed in place (templated)
    :param components: names of the components to restore; empty for all (templated)
    :param paths: patterns of what to restore of each component; empty for all (templated)
    :param overwrite: whether files that are there may be replaced (templated)
    :param in_place: whether to restore to where ``components.yaml`` says, instead of ``target`` (templated)
    :param dry_run: whether nothing will be written, so that nobody has to be asked (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "backup_id",
        "target",
        "components",
        "paths",
        "overwrite",
        "in_place",
        "dry_run",
    )

    def __init__(
        self,
        *,
        backup_id: str,
        target: str | None = None,
        components: list[str] | None = None,
        paths: list[str] | None = None,
        overwrite: bool = False,
        in_place: bool = False,
        dry_run: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.target = target
        self.components = components
        self.paths = paths
        self.overwrite = overwrite
        self.in_place = in_place
        self.dry_run = dry_run

    def work(self, context: Context) -> list[dict[str, Any]]:
        """Return the arguments of each step."""
        from fastvlm_ops.core.backup.sets import select_set

        repository = self.hook.open_repository()
        targets = self._targets()
        backup = select_set(repository, self.backup_id)
        names = self._wanted(backup)
        tag = backup_set_id("replaced", as_of(context), run_key(context))
        snapshots = {member.component: member.snapshot_id for member in backup.snapshots}
        steps = [
            targets.step(name, snapshots[name], paths=self.paths or [], tag=tag, set_id=backup.set_id)
            for name in names
        ]
        request = self._request(repository, backup, steps)
        context["ti"].xcom_push(key="backup", value=backup.as_dict())
        context["ti"].xcom_push(key=REQUEST_KEY, value=request)
        self.log.info(
            "Backup %s: %s", backup.set_id, ", ".join(f"{s.component} to {s.target}" for s in steps)
        )
        return [asdict(step) for step in steps]

    def _wanted(self, backup: BackupSet) -> list[str]:
        from fastvlm_ops.core.backup.errors import BackupNotFoundError

        there_are = [member.component for member in backup.snapshots]
        wanted = list(dict.fromkeys(self.components or there_are))
        if unknown := [name for name in wanted if name not in there_are]:
            raise BackupNotFoundError(
                f"backup {backup.set_id} has no component {', '.join(unknown)}; it has {', '.join(there_are)}"
            )
        return wanted

    def _targets(self) -> _Targets:
        """:raises RestoreTargetError: the form contradicts itself, or the target cannot be used."""
        from fastvlm_ops.core.backup.errors import RestoreTargetError

        if self.in_place:
            if self.target:
                raise RestoreTargetError(
                    f"In place restores to where components.yaml says; leave the target {self.target!r} empty"
                )
            return _Targets(None, load_components(settings.include_dir()), self.overwrite)
        if not self.target:
            raise RestoreTargetError(
                "the target is empty; name a folder below [fastvlm_ops] restore_dir, or turn In place on"
            )
        root = restore_target(settings.restore_dir(), self.target, overwrite=self.overwrite)
        return _Targets(root, None, self.overwrite)

    def _request(self, repository: Repository, backup: BackupSet, steps: list[RestoreStep]) -> dict[str, Any]:
        """Return what a person has to agree to; with the counts of a dry run where somebody is asked."""
        needed = not self.dry_run and (self.in_place or any(step.overwrite for step in steps))
        found = []
        for step in steps if needed else []:
            result = _restore(repository, step, dry_run=True)
            counts = {key: result[key] for key in ("files", "size_bytes", "kept_files", "replaced_files")}
            found.append({"component": step.component, "target": step.target, **counts})
        return {"needed": needed, "backup": backup.set_id, "steps": found}


@dataclass(frozen=True)
class _Targets:
    """Where components go: below a folder, or to where their definitions say.

    :param root: folder below restore_dir; None in place
    :param definitions: ``components.yaml``; None below a folder
    """

    root: Path | None
    definitions: Components | None
    overwrite: bool

    def step(
        self, component: str, snapshot_id: str, *, paths: list[str], tag: str, set_id: str
    ) -> RestoreStep:
        """:raises RestoreTargetError: it is not empty and may not be overwritten, or is in use."""
        from fastvlm_ops.core.backup.errors import RestoreTargetError

        target, in_use = self._place(component)
        is_empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
        if not is_empty and not self.overwrite:
            raise RestoreTargetError(
                f"{target} is not empty; turn Overwrite on to replace what differs in it"
            )
        kept = None if is_empty else os.fspath(self._keep_replaced(component, target, tag))
        step = RestoreStep(
            component,
            snapshot_id,
            os.fspath(target),
            paths,
            not is_empty,
            kept,
            [os.fspath(p) for p in in_use],
            set_id,
            in_place=self.definitions is not None,
        )
        check_unused(step.in_use)
        return step

    def _place(self, component: str) -> tuple[Path, list[Path]]:
        """Return the target, and what is beside a database while it is used."""
        if self.definitions is None:
            assert self.root is not None  # noqa: S101 - one of the two is set
            return self.root / component, []
        path = self.definitions.path_of(component, settings.kit_dir()).resolve()
        if isinstance(self.definitions.component(component), FilesComponent):
            return path, []
        in_use = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
        return path.parent, in_use

    def _keep_replaced(self, component: str, target: Path, tag: str) -> Path:
        """Return the folder for what is replaced: on the target's file system, so that moving is one step."""
        if self.root is not None:
            return self.root.parent / tag / component
        if target.stat().st_dev == target.parent.stat().st_dev:
            return target.parent / f".{tag}" / component
        return target / f".{tag}" / component  # a file system of its own


class ApproveRestoreOperator(ApprovalOperator):
    """Ask a person before a restore replaces anything; without an answer in time, it is rejected.

    Must stand directly before the tasks that restore, and them only: those are skipped on rejection.

    :param request: XCom ``request`` of :class:`PlanRestoreOperator` (templated)
    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("request", "timeout_minutes")

    def __init__(self, *, request: Any, timeout_minutes: Any, **kwargs: Any) -> None:
        super().__init__(
            subject="Replace files by a restore?",
            defaults=self.REJECT,
            response_timeout=timedelta(hours=4),
            **kwargs,
        )
        self.request = request
        self.timeout_minutes = timeout_minutes

    def execute(self, context: Context) -> Any:
        """Ask, unless nothing would be replaced."""
        if not self.request["needed"]:
            self.log.info("Nothing would be replaced, or it is a dry run: nobody has to be asked")
            return {"needed": False}
        self.response_timeout = timedelta(minutes=float(self.timeout_minutes))
        self.body = request_text(self.request)
        self.log.info(self.body)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer; a rejection skips what follows."""
        approved = event.get("chosen_options") == [self.APPROVE]
        user = event.get("responded_by_user") or {}
        decision = {"needed": True, "approved": approved, "timed_out": bool(event.get("timedout"))}
        decision["by"] = user.get("name")
        # Before the parent class raises what skips the restore: the verdict has to know.
        context["ti"].xcom_push(key=DECISION_KEY, value=decision)
        self.log.info(decision_text(decision))
        super().execute_complete(context, event)
        return decision


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
        )
        check_unused(step.in_use)
        repository = self.hook.open_repository()
        result = _restore(repository, step, dry_run=self.dry_run, progress=self.show)
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
        replaced = {name: result["replaced_in"] for name, result in results.items() if result["replaced_in"]}
        for name, folder in replaced.items():
            self.log.info("What the restore of %s has replaced stands in %s", name, folder)
        return {"dry_run": self.dry_run, "components": list(results), "replaced_in": replaced}

    def _rejection(self, context: Context) -> str | None:
        """Return why a person, or nobody, has kept it from being restored."""
        if self.approval_task_id is None:
            return None
        decision = context["ti"].xcom_pull(task_ids=self.approval_task_id, key=DECISION_KEY)
        return None if not decision or decision["approved"] else decision_text(decision)


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


def decision_text(decision: dict[str, Any]) -> str:
    """Return how it was decided, for people.

    :param decision: XCom ``decision`` of :class:`ApproveRestoreOperator`
    """
    if decision["timed_out"]:
        return "nobody answered in time, which rejects it: nothing was touched"
    who = decision["by"] or "somebody"
    return f"approved by {who}" if decision["approved"] else f"rejected by {who}: nothing was touched"


def restore_target(restore_dir: Path, name: str, *, overwrite: bool = False) -> Path:
    """Return the folder that a restore may write to.

    :param restore_dir: the only folder below which restores write, but for those in place
    :param name: of a folder directly below it
    :param overwrite: whether it may hold something
    :raises RestoreTargetError: the name leads elsewhere, or the folder is there and not empty
    """
    from fastvlm_ops.core.backup.errors import RestoreTargetError

    root = restore_dir.resolve()
    target = (root / name).resolve()
    if not name or target == root or root not in target.parents:
        raise RestoreTargetError(f"target {name!r} is not a folder below {restore_dir}")
    if target.exists() and not target.is_dir():
        raise RestoreTargetError(f"{target} is not a folder")
    if not overwrite and target.exists() and any(target.iterdir()):
        raise RestoreTargetError(f"{target} is not empty; choose a new folder name, or turn Overwrite on")
    return target


def check_unused(paths: Sequence[str]) -> None:
    """Check that no service uses what a restore would replace.

    :param paths: of what is there only then
    :raises RestoreTargetError: one of them is there
    """
    from fastvlm_ops.core.backup.errors import RestoreTargetError

    for path in paths:
        if os.path.lexists(path):
            raise RestoreTargetError(
                f"{path} exists, so the database is in use or was not closed: under it, a restored database"
                " would be damaged. Stop the service, which removes it, and restore again"
            )


def _restore(
    repository: Repository, step: RestoreStep, *, dry_run: bool, progress: Any = None
) -> dict[str, Any]:
    from fastvlm_ops.core.backup.restore import restore_snapshot

    result = restore_snapshot(
        repository,
        step.snapshot_id,
        Path(step.target),
        dry_run=dry_run,
        progress=progress,
        paths=step.paths,
        overwrite=step.overwrite,
        keep_replaced=Path(step.keep_replaced) if step.keep_replaced else None,
    )
    return result.as_dict()
