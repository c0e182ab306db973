"""Plans a restore: which snapshots go where, what is in the way, and what has to be approved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import Components, FilesComponent, load_components
from fastvlm_ops.operators.backup.recovery import (
    RecoveryForm,
    is_cluster,
    plan_steps,
    recover_step,
    recovery_arguments,
    set_of,
)
from fastvlm_ops.operators.backup.shared import RepositoryOperator, backup_set_id
from fastvlm_ops.operators.shared import as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.postgresql.recovery import RecoveryPlan
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet

LATEST = "latest"

#: XCom of what an approval is about.
REQUEST_KEY = "request"


@dataclass(frozen=True)
class RestoreStep:
    """What restores one component; the arguments of :class:`RestoreBackupOperator`.

    :param in_use: paths that are there only while a service uses the target
    :param recovery: where a cluster of PostgreSQL is recovered to, see
        :func:`~fastvlm_ops.operators.backup.recovery.recovery_arguments`; None where a backup is restored
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
    recovery: dict[str, Any] | None = None


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
    :param recovery: fields of :class:`~fastvlm_ops.operators.backup.recovery.RecoveryForm`; without a target
        clusters of PostgreSQL are restored as their base backup has them (templated)
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
        "recovery",
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
        recovery: dict[str, Any] | None = None,
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
        self.recovery = recovery

    def work(self, context: Context) -> list[dict[str, Any]]:
        """Return the arguments of each step."""
        from fastvlm_ops.core.backup.sets import select_set

        repository = self.hook.open_repository(chunks=True)
        targets = self._targets()
        backup = select_set(repository, self.backup_id)
        names = self._wanted(backup)
        tag = backup_set_id("replaced", as_of(context), run_key(context))
        snapshots = {member.component: member.snapshot_id for member in backup.snapshots}
        form = RecoveryForm(**self.recovery or {})
        plans = plan_steps(
            repository,
            {name: snapshots[name] for name in names},
            form,
            chosen=self.backup_id != LATEST,
            paths=self.paths or [],
        )
        steps = [
            self._recovery_step(targets, plans[name], form, set_of(repository, plans[name].snapshot_id))
            if name in plans
            else targets.step(name, snapshots[name], paths=self.paths or [], tag=tag, set_id=backup.set_id)
            for name in names
        ]
        _refuse_mixing(repository, steps)
        request = self._request(repository, backup, steps)
        context["ti"].xcom_push(key="backup", value=backup.as_dict())
        context["ti"].xcom_push(key=REQUEST_KEY, value=request)
        self.log.info(
            "Backup %s: %s", backup.set_id, ", ".join(f"{s.component} to {s.target}" for s in steps)
        )
        return [asdict(step) for step in steps]

    def _recovery_step(
        self, targets: _Targets, plan: RecoveryPlan, form: RecoveryForm, set_id: str
    ) -> RestoreStep:
        """The step that recovers a cluster: into a new or an empty folder, whatever is allowed others."""
        new = replace(targets, overwrite=False)
        step = new.step(plan.component, plan.snapshot_id, paths=[], tag="", set_id=set_id)
        return replace(step, recovery=recovery_arguments(plan, form))

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
            result = restore_step(repository, step, dry_run=True)
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
        """Return the target, and what is beside a database while it is used.

        :raises RestoreTargetError: in place, and it has no place that a restore could write to
        """
        from fastvlm_ops.core.backup.errors import RestoreTargetError

        if self.definitions is None:
            assert self.root is not None  # noqa: S101 - one of the two is set
            return self.root / component, []
        kind = self.definitions.component(component).kind
        if kind == "postgresql":
            raise RestoreTargetError(
                f"{component} is a cluster of PostgreSQL, which is not restored in place: a server would be"
                " in its way, or what it left. Restore it into a target folder, and put that into service as"
                " docs/runbooks/restore_backup.md says; or leave it out of Components"
            )
        if kind in ("airflow_database", "airflow_objects"):
            raise RestoreTargetError(
                f"{component} is of kind {kind}, which is not restored in place: the Airflow that would do it"
                " uses it. Restore it into a target folder, and load it from there as"
                " docs/runbooks/airflow_maintenance.md says; or leave it out of Components"
            )
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


def _refuse_mixing(repository: Repository, steps: Sequence[RestoreStep]) -> None:
    """:raises RestoreTargetError: a cluster would be restored over another one, whose files would stay"""
    from fastvlm_ops.core.backup.errors import RestoreTargetError

    for step in steps:
        if step.overwrite and is_cluster(repository, step.snapshot_id):
            raise RestoreTargetError(
                f"{step.target} is not empty, and {step.component} is a cluster of PostgreSQL, which is"
                " restored into a new or an empty folder only: choose a new folder name"
            )


def restore_step(
    repository: Repository, step: RestoreStep, *, dry_run: bool, progress: Any = None
) -> dict[str, Any]:
    from fastvlm_ops.core.backup.restore import restore_snapshot

    if step.recovery is not None:
        return recover_step(
            repository,
            step.component,
            step.snapshot_id,
            Path(step.target),
            step.recovery,
            dry_run=dry_run,
            progress=progress,
        )
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
