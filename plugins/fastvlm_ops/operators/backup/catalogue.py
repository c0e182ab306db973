"""Keeps the catalogue of backups and its metrics up to date, and fails when a backup is overdue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.operators.backup.shared import RepositoryOperator
from fastvlm_ops.operators.shared import EvidenceOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.catalogue import Catalogue, CatalogueSummary, ComponentState
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.store import Store

OVERDUE_TOPIC = "backup_overdue"


class BackupOverdueError(Exception):
    """A component has no backup as new as it must be, or nothing is known about it."""

    retryable = False


class RecordBackupOperator(RepositoryOperator):
    """Bring the catalogue up to date with the bucket, then write the metrics.

    Belongs behind the verdict of a DAG with ``trigger_rule="all_done"``, and beside another leaf that fails
    when the verdict does: the state of a run is that of its leaves, and this task says nothing of the backup.

    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id")

    def __init__(
        self, *, operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return what changed, and where the metrics are."""
        from fastvlm_ops.core.backup.catalogue import Catalogue, refresh_catalogue

        repository = self.hook.open_repository()
        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            summary = refresh_catalogue(store, repository)
            self._tell(summary)
            self._measure(store, repository)
            metrics = self._write_metrics(Catalogue(store))
        return {**asdict(summary), "warnings": list(summary.warnings), "metrics": metrics}

    def _measure(self, store: Store, repository: Repository) -> None:
        """Record what lies in the bucket, once a day, by a listing of it."""
        from fastvlm_ops.core.backup.costs import is_measured, measure_storage, record_stored

        if not is_measured(store, repository.repository_id, repository.storage.now()):
            record_stored(store, repository.repository_id, measure_storage(repository.storage))

    def _tell(self, summary: CatalogueSummary) -> None:
        for warning in summary.warnings:
            self.log.warning(warning)
        if summary.replaced_repository_id:
            self.log.warning(
                "The catalogue was of repository %s; it is made anew of %s",
                summary.replaced_repository_id,
                summary.repository_id,
            )
        self.log.info(
            "Catalogue: %d sets (%d new, %d removed), %d snapshots",
            summary.sets,
            summary.new_sets,
            summary.removed_sets,
            summary.snapshots,
        )

    def _write_metrics(self, catalogue: Catalogue) -> str | None:
        folder = settings.metrics_dir()
        if folder is None:
            self.log.info("No metrics are written: [fastvlm_ops] metrics_dir is not set")
            return None
        from fastvlm_ops.core.backup.metrics import write_metrics

        return str(write_metrics(catalogue, self._objectives(), folder))

    def _objectives(self) -> dict[str, timedelta]:
        """Return none where there is no usable definition file, as on a new machine that only restores."""
        try:
            return load_components(settings.include_dir()).objectives
        except (ConfigError, settings.SettingError) as error:
            self.log.warning("Metrics without fastvlm_backup_age_objective_seconds: %s", error)
            return {}


class CheckBackupAgeOperator(EvidenceOperator):
    """Fail when the newest backup of a component is older than ``components.yaml`` allows, or is unknown.

    Each overdue component gets a message in the outbox: one for each newest backup, however often it fails.

    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = ("operations_db_conn_id",)

    def __init__(
        self, *, operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.operations_db_conn_id = operations_db_conn_id
        self._overdue: list[str] = []

    def work(self, context: Context) -> dict[str, Any]:
        """Return the ages, in hours."""
        from fastvlm_ops.core.backup.catalogue import Catalogue

        objectives = load_components(settings.include_dir()).objectives
        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            catalogue = Catalogue(store)
            refreshed_at = catalogue.refreshed_at()
            if refreshed_at is None:
                raise BackupOverdueError(
                    "the catalogue of backups was never filled, so that no backup is known of; trigger"
                    " backup_incremental, and see its task record_backup"
                )
            states = [state for state in catalogue.components(objectives) if state.component in objectives]
            overdue = [state for state in states if state.overdue is not False]
            self._overdue = [state.component for state in overdue]
            self._announce(store, overdue, refreshed_at)
        for state in states:
            self.log.info(age_text(state))
        if overdue:
            raise BackupOverdueError(overdue_text(overdue, refreshed_at))
        return {"ages_hours": {state.component: _hours(state.age) for state in states}}

    def subject(self) -> dict[str, Any]:
        """Name the overdue components."""
        return {"overdue": self._overdue}

    def _announce(self, store: Store, overdue: Sequence[ComponentState], refreshed_at: datetime) -> None:
        from fastvlm_ops.core.store.outbox import enqueue

        with store.write() as connection:
            for state in overdue:
                newest = state.newest.snapshot_id if state.newest else "none"
                enqueue(
                    connection,
                    topic=OVERDUE_TOPIC,
                    dedup_key=f"{OVERDUE_TOPIC}/{state.component}/{newest}",
                    payload={
                        "component": state.component,
                        "newest": newest,
                        "text": overdue_text([state], refreshed_at),
                    },
                )


def age_text(state: ComponentState) -> str:
    """Return how old the newest backup of a component is, beside how old it may be.

    :param state: of the component
    """
    limit = "no objective" if state.objective is None else f"at most {_hours(state.objective)} h"
    if state.newest is None or state.age is None or state.backed_up_at is None:
        return f"{state.component}: no intact backup is published ({limit})"
    return (
        f"{state.component}: {_hours(state.age)} h old ({limit}): {state.newest.snapshot_id} of"
        f" {state.backed_up_at:%Y-%m-%d %H:%M} UTC"
    )


def overdue_text(overdue: Sequence[ComponentState], refreshed_at: datetime) -> str:
    """Return what is overdue and what to do.

    :param overdue: the components
    :param refreshed_at: when the catalogue last saw the bucket
    """
    lines = [f"backup overdue: {', '.join(state.component for state in overdue)}"]
    lines += [age_text(state) for state in overdue]
    lines.append(
        "See the last run of backup_incremental, mend what failed, and trigger it. If it did publish, see its"
        f" task record_backup: the catalogue last saw the bucket at {refreshed_at:%Y-%m-%d %H:%M} UTC"
    )
    return "\n".join(lines)


def _hours(age: timedelta | None) -> float | None:
    return None if age is None else round(age.total_seconds() / 3600, 1)
