"""Backs the kit up: prepares, takes snapshots, verifies them, and publishes them as a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from fastvlm_ops import settings
from fastvlm_ops.core.config import Components, include_hash, load_components
from fastvlm_ops.hooks.components import source_named
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError
from fastvlm_ops.operators.backup.shared import RepositoryOperator, backup_set_id
from fastvlm_ops.operators.shared import as_of, record_signature, run_key
from fastvlm_ops.triggers.backup import WATCHED_ASSET

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.create import Kind, SnapshotResult
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet
    from fastvlm_ops.core.backup.sources import Source

CONFIGURATION = "configuration"


class UnverifiedBackupError(Exception):
    """A backup is damaged, or was not verified, and is not published."""

    retryable = False


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
                source_named(definitions, name).check()
            except (SourceError, OperationsDatabaseError) as error:
                position = definitions.names.index(name)
                key = "path" if hasattr(definitions.component(name), "path") else "connection"
                problems.append(f"{definitions.file}: components[{position}].{key} ({name}): {error}")
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
            self.hook.open_repository(chunks=True),
            source_named(load_components(include_dir), self.component),
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


class VerifyBackupOperator(RepositoryOperator):
    """Verify the snapshots of this run before they are published; fail when they are damaged.

    Each pack that they need is there with the checksum it must have, and of each snapshot one file, chosen
    at random, is restored into ``[fastvlm_ops] scratch_dir`` and compared by hash.

    :param components: names of the components that were backed up (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "components")

    def __init__(self, *, components: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = components

    def work(self, context: Context) -> dict[str, Any]:
        """Verify; what is found goes to XCom whatever it is."""
        from fastvlm_ops.core.backup.journal import record_verified
        from fastvlm_ops.core.backup.verify import verify_set_members

        repository = self.hook.open_repository()
        snapshot_ids = snapshots_of_run(repository, self.components, run_key(context))
        if not snapshot_ids:
            raise UnverifiedBackupError("no component has a snapshot in this run; there is nothing to verify")
        result = verify_set_members(
            repository, snapshot_ids, scratch_dir=settings.scratch_dir(), progress=self.show
        )
        self.note(
            "The snapshots were verified",
            lambda: record_verified(repository, result, snapshot_ids, run_key=run_key(context)),
        )
        found = {"verified_snapshots": snapshot_ids, **result.as_dict()}
        if not result.ok:
            context["ti"].xcom_push(key="verification", value=found)
            raise UnverifiedBackupError(result.text())
        self.log.info(result.text())
        return found


class PublishBackupOperator(RepositoryOperator):
    """Tie the run's snapshots together into a backup set, or fail and name the components that lack one.

    Belongs last with ``trigger_rule="all_done"``, so that it is this task that fails the run.

    :param components: names of the components that the set must have (templated)
    :param kind: ``full`` or ``incremental`` (templated)
    :param must_be_verified: whether only snapshots that were verified are published (templated)
    :param verification: output of :class:`VerifyBackupOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "components",
        "kind",
        "must_be_verified",
        "verification",
    )

    def __init__(
        self,
        *,
        components: list[str],
        kind: Kind,
        must_be_verified: bool = False,
        verification: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.components = components
        self.kind = kind
        self.must_be_verified = must_be_verified
        self.verification = verification

    def work(self, context: Context) -> dict[str, Any]:
        """Publish the set, or return the one that an earlier attempt of this run published."""
        from fastvlm_ops.core.backup.sets import publish_set

        moment, key = as_of(context), run_key(context)
        repository = self.hook.open_repository()
        if self.must_be_verified:
            self._check_verification(repository, key)
        backup = publish_set(
            repository,
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

    def _check_verification(self, repository: Repository, key: str) -> None:
        found = snapshots_of_run(repository, self.components, key)
        if len(found) < len(self.components):
            return  # the set is incomplete, which matters more and is said where it is published
        verified = (self.verification or {}).get("verified_snapshots", [])
        if unverified := sorted(set(found) - set(verified)):
            raise UnverifiedBackupError(
                f"not verified: {', '.join(unverified)}; nothing is published, and the last published set"
                " stays the latest. See the task that verifies"
            )


class BackUpChangesOperator(RepositoryOperator):
    """Back up and publish one component by itself, unless it is what was last published of it.

    A set of kind ``configuration`` holds this component only, and is never the ``latest`` for a restore;
    ``latest-configuration`` names the newest.

    :param component: its name in ``include/components.yaml`` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "component")

    def __init__(self, *, component: str, **kwargs: Any) -> None:
        # Gives access to what is kept about the asset. A reference, since only the schedule has its watcher.
        super().__init__(inlets=[Asset.ref(name=WATCHED_ASSET)], **kwargs)
        self.component = component

    def work(self, context: Context) -> dict[str, Any]:
        """Compare, then create and publish; say ``unchanged`` or ``published`` in ``outcome``."""
        from fastvlm_ops.core.backup.compare import quick_signature

        include_dir = settings.include_dir()
        source = source_named(load_components(include_dir), self.component)
        fingerprint = include_hash(include_dir)
        signature = quick_signature(source)  # before anything is read: a later change shows in the next one
        repository = self.hook.initialise_repository()
        equal = self._equal(repository, source)
        outcome = {"component": self.component, "include_hash": fingerprint}
        if equal is not None and equal.run_key != run_key(context):
            self.log.info("%s is unchanged since backup %s; nothing to do", self.component, equal.set_id)
            record_signature(context, WATCHED_ASSET, signature)
            return {"outcome": "unchanged", "set_id": equal.set_id, **outcome}
        snapshot, backup = self._back_up(context, repository, source, fingerprint)
        self.log.info("Published backup %s of %s", backup.set_id, self.component)
        if equal is not None or not snapshot.reused:  # else it may be older than what there is now
            record_signature(context, WATCHED_ASSET, signature)
        return {"outcome": "published", **backup.as_dict(), **outcome}

    def subject(self) -> dict[str, Any]:
        """Name the component."""
        return {"component": self.component}

    def _equal(self, repository: Repository, source: Source) -> BackupSet | None:
        from fastvlm_ops.core.backup.compare import published_equal
        from fastvlm_ops.core.backup.errors import CorruptionError

        try:
            return published_equal(repository, source, self.component)
        except CorruptionError as error:
            self.log.warning("The last backup of %s is damaged, making a new one: %s", self.component, error)
            return None

    def _back_up(
        self, context: Context, repository: Repository, source: Source, fingerprint: str
    ) -> tuple[SnapshotResult, BackupSet]:
        from fastvlm_ops.core.backup.create import create_snapshot
        from fastvlm_ops.core.backup.sets import publish_set

        moment, key = as_of(context), run_key(context)
        snapshot = create_snapshot(
            repository,
            source,
            component=self.component,
            kind="incremental",
            run_key=key,
            include_hash=fingerprint,
            progress=self.show,
        )
        backup = publish_set(
            repository,
            set_id=backup_set_id(CONFIGURATION, moment, key),
            kind=CONFIGURATION,
            run_key=key,
            components=[self.component],
            timestamp=moment,
        )
        return snapshot, backup


def snapshots_of_run(repository: Repository, components: Sequence[str], key: str) -> list[str]:
    """Return the ids of the snapshots that a run made, in the order of the components.

    :param repository: where they are
    :param components: their names
    :param key: the run's key
    """
    state = repository.refresh()
    found = (state.snapshot_of_run(component, key) for component in components)
    return [record["snapshot_id"] for record in found if record is not None]
