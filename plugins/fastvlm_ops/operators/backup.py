"""Backs the kit up, and restores it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import Components, FilesComponent, include_hash, load_components
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from fastvlm_ops.core.backup.create import Kind
    from fastvlm_ops.core.backup.progress import Progress
    from fastvlm_ops.core.backup.sources import Source


class RepositoryOperator(EvidenceOperator):
    """Base of operators that work on the backup repository.

    :param s3_conn_id: connection of type ``fastvlm_s3`` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id",)

    def __init__(self, *, s3_conn_id: str = BackupRepositoryHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.s3_conn_id = s3_conn_id

    @property
    def hook(self) -> BackupRepositoryHook:
        """The hook to the repository."""
        return BackupRepositoryHook(self.s3_conn_id)

    @property
    def show(self) -> Callable[[Progress], None]:
        """What the engine calls every few seconds."""
        return lambda progress: self.log.info(progress.line())


class PrepareRepositoryOperator(RepositoryOperator):
    """Check everything a backup needs before anything is sent; create the repository where there is none.

    :param components: names of the components that will be backed up (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "components")

    def __init__(self, *, components: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = components

    def work(self, context: Context) -> dict[str, Any]:
        """Check sources, bucket, credentials, conditional writes and passphrase."""
        include_dir = settings.include_dir()
        self._check_sources(load_components(include_dir))
        hook = self.hook
        storage = hook.check_storage()
        repository = hook.initialise_repository()
        self.log.info("Repository %s is ready for %s", storage, ", ".join(self.components))
        return {
            "repository_id": repository.repository_id,
            "components": list(self.components),
            "include_hash": include_hash(include_dir),
        }

    def _check_sources(self, definitions: Components) -> None:
        """Check all of them and name all that fail, so that a person mends them in one go."""
        from fastvlm_ops.core.backup.errors import SourceError

        problems = []
        for name in self.components:
            try:
                _source_of(definitions, name).check()
            except SourceError as error:
                position = definitions.names.index(name)
                problems.append(f"{definitions.file}: components[{position}].path ({name}): {error}")
        if problems:
            raise SourceError("\n".join(problems))


class CreateBackupOperator(RepositoryOperator):
    """Take the snapshot of one component.

    :param component: its name in ``include/components.yaml`` (templated)
    :param kind: ``full`` reads everything again and checks every pack it refers to; ``incremental`` skips
        files that did not change since the last snapshot (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "component", "kind")

    def __init__(self, *, component: str, kind: Kind, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.component = component
        self.kind = kind

    def work(self, context: Context) -> dict[str, Any]:
        """Create the snapshot, or return the one that an earlier attempt of this run created."""
        from fastvlm_ops.core.backup.create import create_snapshot

        include_dir = settings.include_dir()
        result = create_snapshot(
            self.hook.open_repository(),
            _source_of(load_components(include_dir), self.component),
            component=self.component,
            kind=self.kind,
            run_key=run_key(context),
            include_hash=(fingerprint := include_hash(include_dir)),
            progress=self.show,
        )
        return {**result.as_dict(), "include_hash": fingerprint}

    def subject(self) -> dict[str, Any]:
        """Name the component."""
        return {"component": self.component}


class PublishBackupOperator(RepositoryOperator):
    """Tie the run's snapshots together into a backup set, or fail and name the components that lack one.

    Belongs behind all :class:`CreateBackupOperator` tasks with ``trigger_rule="all_done"``, so that it is
    this task that fails the run.

    :param components: names of the components that the set must have (templated)
    :param kind: ``full`` or ``incremental`` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "components", "kind")

    def __init__(self, *, components: list[str], kind: Kind, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = components
        self.kind = kind

    def work(self, context: Context) -> dict[str, Any]:
        """Publish the set, or return the one that an earlier attempt of this run published."""
        from fastvlm_ops.core.backup.sets import publish_set

        moment, key = as_of(context), run_key(context)
        backup = publish_set(
            self.hook.open_repository(),
            set_id=backup_set_id(self.kind, moment, key),
            kind=self.kind,
            run_key=key,
            components=list(self.components),
            timestamp=moment,
        )
        self.log.info("Published backup %s of %s", backup.set_id, ", ".join(self.components))
        return backup.as_dict()

    def subject(self) -> dict[str, Any]:
        """Say that there is no set."""
        return {"published": False, "components": list(self.components)}


class PlanRestoreOperator(RepositoryOperator):
    """Resolve a backup set and check the target; what is to be restored goes to XCom, one item a component.

    Map :class:`RestoreBackupOperator` over this task's output with ``expand_kwargs``.

    :param backup_id: id of a backup set, or ``latest`` (templated)
    :param target: name of a folder below ``[fastvlm_ops] restore_dir``, absent or empty (templated)
    :param components: names of the components to restore; empty for all (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "backup_id", "target", "components")

    def __init__(
        self, *, backup_id: str, target: str, components: list[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.target = target
        self.components = components

    def work(self, context: Context) -> list[dict[str, str]]:
        """Return component, snapshot and target folder of each step."""
        from fastvlm_ops.core.backup.errors import BackupNotFoundError
        from fastvlm_ops.core.backup.sets import select_set

        target = restore_target(settings.restore_dir(), self.target)
        backup = select_set(self.hook.open_repository(), self.backup_id)
        snapshots = {member.component: member.snapshot_id for member in backup.snapshots}
        wanted = list(dict.fromkeys(self.components or snapshots))
        if unknown := [name for name in wanted if name not in snapshots]:
            raise BackupNotFoundError(
                f"backup {backup.set_id} has no component {', '.join(unknown)}; it has {', '.join(snapshots)}"
            )
        context["ti"].xcom_push(key="backup", value=backup.as_dict())
        self.log.info("Backup %s: %s, to %s", backup.set_id, ", ".join(wanted), target)
        return [
            {"component": name, "snapshot_id": snapshots[name], "target": str(target / name)}
            for name in wanted
        ]


class RestoreBackupOperator(RepositoryOperator):
    """Restore one component.

    :param component: its name, for messages (templated)
    :param snapshot_id: the snapshot (templated)
    :param target: folder to restore into, absent or empty (templated)
    :param dry_run: only say what would be written (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "component", "snapshot_id", "target", "dry_run")

    def __init__(
        self, *, component: str, snapshot_id: str, target: str, dry_run: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.component = component
        self.snapshot_id = snapshot_id
        self.target = target
        self.dry_run = dry_run

    def work(self, context: Context) -> dict[str, Any]:
        """Restore and verify, or say what would be restored."""
        from fastvlm_ops.core.backup.restore import restore_snapshot

        result = restore_snapshot(
            self.hook.open_repository(),
            self.snapshot_id,
            Path(self.target),
            dry_run=self.dry_run,
            progress=self.show,
        )
        return result.as_dict()

    def subject(self) -> dict[str, Any]:
        """Name the component and where it was going."""
        return {"component": self.component, "target": self.target}


class RestoreIncompleteError(Exception):
    """Not everything that was asked for was restored."""

    retryable = False


class ConfirmRestoreOperator(EvidenceOperator):
    """The verdict of a restore: fails unless every step that was planned has a result.

    Belongs last with ``trigger_rule="all_done"``: Airflow calls a run green when its last task is skipped.

    :param steps: output of :class:`PlanRestoreOperator` (templated)
    :param results: output of the mapped :class:`RestoreBackupOperator` (templated)
    :param dry_run: whether nothing was to be written (templated)
    """

    template_fields: Sequence[str] = ("steps", "results", "dry_run")

    def __init__(self, *, steps: Any, results: Any, dry_run: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = steps
        self.results = results
        self.dry_run = dry_run

    def work(self, context: Context) -> dict[str, Any]:
        """Compare what was planned with what has a result."""
        if not self.steps:
            raise RestoreIncompleteError("nothing was restored, since nothing could be planned")
        results = {result["component"]: result for result in self.results if result}
        if missing := [step["component"] for step in self.steps if step["component"] not in results]:
            raise RestoreIncompleteError(f"not restored: {', '.join(missing)}; see the tasks of these")
        done = "Dry run, nothing was written. Would restore" if self.dry_run else "Restored and verified"
        self.log.info("%s %s", done, ", ".join(results))
        return {"dry_run": self.dry_run, "components": list(results)}


def backup_set_id(kind: str, moment: datetime, key: str) -> str:
    """Return the id of a run's backup set, the same for each attempt, as in full-20260104T020000Z-1a2b3c4d.

    :param kind: ``full`` or ``incremental``
    :param moment: what the run is about
    :param key: the run's key; its digest tells apart runs that are about the same moment
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{kind}-{moment:%Y%m%dT%H%M%SZ}-{digest}"


def restore_target(restore_dir: Path, name: str) -> Path:
    """Return the folder that a restore may write to.

    :param restore_dir: the only folder below which restores write
    :param name: of a folder directly below it
    :raises RestoreTargetError: the name leads elsewhere, or the folder is there and not empty
    """
    from fastvlm_ops.core.backup.errors import RestoreTargetError

    root = restore_dir.resolve()
    target = (root / name).resolve()
    if not name or target == root or root not in target.parents:
        raise RestoreTargetError(f"target {name!r} is not a folder below {restore_dir}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RestoreTargetError(f"{target} is not empty; choose a new folder name")
    return target


def _source_of(definitions: Components, name: str) -> Source:
    """Return what the engine reads a component from.

    :param definitions: ``components.yaml``
    :param name: of the component
    :raises DefinitionError: there is no such component, or its path cannot be resolved
    """
    from fastvlm_ops.core.backup.sources import FolderSource, SQLiteSource

    component = definitions.component(name)
    path = definitions.path_of(name, settings.kit_dir())
    if isinstance(component, FilesComponent):
        return FolderSource(path, exclude=component.exclude)
    return SQLiteSource(path, scratch_dir=settings.scratch_dir())
