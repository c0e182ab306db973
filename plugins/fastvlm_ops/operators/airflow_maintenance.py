"""Cleans Airflow's own database: plans, cleans, verifies, and gives the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import AirflowDatabaseComponent, ConfigError, load_components
from fastvlm_ops.hooks.airflow_db import AirflowDatabaseHook
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, OperationsDatabaseHook
from fastvlm_ops.operators.backup.catalogue import overdue_text
from fastvlm_ops.operators.shared import EvidenceOperator, as_of

if TYPE_CHECKING:
    from airflow.sdk import Context
    from sqlalchemy import URL

    from fastvlm_ops.core.airflow_maintenance import RowCounts

COUNT_SECONDS = 900.0
CLEAN_SECONDS = 3600.0


class CleaningRefusedError(Exception):
    """Nothing is cleaned, for what would be deleted is not known to be backed up."""

    retryable = False


class CleaningIncompleteError(Exception):
    """Cleaning did not happen, left something undone, or took too much."""

    retryable = False


class AirflowDatabaseOperator(EvidenceOperator):
    """Base of operators that use Airflow's own database through Airflow's commands.

    :param airflow_db_conn_id: connection to it (templated)
    """

    template_fields: Sequence[str] = ("airflow_db_conn_id",)

    def __init__(
        self, *, airflow_db_conn_id: str = AirflowDatabaseHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.airflow_db_conn_id = airflow_db_conn_id

    def url(self) -> URL:
        """Return its address.

        :raises OperationsDatabaseError: the connection cannot be used
        """
        return AirflowDatabaseHook(self.airflow_db_conn_id).url()

    def count(self, plan: Mapping[str, Any]) -> RowCounts:
        """Count the rows that a plan is about.

        :param plan: with ``cutoff`` and ``tables``
        """
        from fastvlm_ops.core.airflow_maintenance import count_rows

        cutoff = datetime.fromisoformat(plan["cutoff"])
        return count_rows(self.url(), cutoff, plan["tables"], timeout_seconds=COUNT_SECONDS)


class PlanAirflowCleaningOperator(AirflowDatabaseOperator):
    """Count what would be deleted, by table. Changes nothing.

    :param keep_days: what is older than so many days is deleted; at least 7 (templated)
    :param tables: names of tables; empty for all (templated)
    :param dry_run: whether a run that a person started only counts; one of the schedule cleans (templated)
    :param without_backup: whether to clean where no component backs the database up (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = (
        "airflow_db_conn_id",
        "keep_days",
        "tables",
        "dry_run",
        "without_backup",
        "operations_db_conn_id",
    )

    def __init__(
        self,
        *,
        keep_days: int = 90,
        tables: list[str] | None = None,
        dry_run: bool = True,
        without_backup: bool = False,
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keep_days = keep_days
        self.tables = tables
        self.dry_run = dry_run
        self.without_backup = without_backup
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return the cut-off and the counts; say why cleaning would be refused."""
        from fastvlm_ops.core.airflow_maintenance import SHORTEST_KEEP_DAYS

        keep_days = int(self.keep_days)
        if keep_days < SHORTEST_KEEP_DAYS:
            raise CleaningRefusedError(f"keep_days is {keep_days}; it must be at least {SHORTEST_KEEP_DAYS}")
        plan: dict[str, Any] = {
            # The same for each attempt, so that all tasks of the run are about the same rows.
            "cutoff": (as_of(context) - timedelta(days=keep_days)).isoformat(),
            "keep_days": keep_days,
            "tables": list(self.tables or ()),
            "dry_run": bool(self.dry_run) and context["dag_run"].run_type != "scheduled",
            "without_backup": bool(self.without_backup),
        }
        counts = self.count(plan)
        self.log.info("Older than %s, by table:\n%s", plan["cutoff"], _table(counts))
        refusal = backup_refusal(
            self.airflow_db_conn_id, self.operations_db_conn_id, without_backup=plan["without_backup"]
        )
        if refusal:
            self.log.warning("Cleaning %s refused: %s", "would be" if plan["dry_run"] else "is", refusal)
        return {**plan, "old": counts.old, "young": counts.young, "refusal": refusal}


class CleanAirflowDatabaseOperator(AirflowDatabaseOperator):
    """Delete what is old, unless the plan is a dry run or the database has no new enough backup.

    :param plan: output of :class:`PlanAirflowCleaningOperator` (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = ("airflow_db_conn_id", "plan", "operations_db_conn_id")

    def __init__(
        self,
        *,
        plan: Any,
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return whether anything may have been deleted."""
        from fastvlm_ops.core.airflow_maintenance import clean

        if self.plan["dry_run"]:
            self.log.info("A dry run: nothing is deleted")
            return {"cleaned": False}
        url = self.url()
        # Now, and not only as planned: this attempt may be hours after the plan.
        refusal = backup_refusal(
            self.airflow_db_conn_id, self.operations_db_conn_id, without_backup=self.plan["without_backup"]
        )
        if refusal:
            raise CleaningRefusedError(refusal)
        cutoff = datetime.fromisoformat(self.plan["cutoff"])
        clean(url, cutoff, self.plan["tables"], timeout_seconds=CLEAN_SECONDS)
        return {"cleaned": True}


class VerifyAirflowCleaningOperator(AirflowDatabaseOperator):
    """Count again: nothing old is left, and nothing young is gone.

    :param plan: output of :class:`PlanAirflowCleaningOperator` (templated)
    :param cleaning: output of :class:`CleanAirflowDatabaseOperator` (templated)
    """

    template_fields: Sequence[str] = ("airflow_db_conn_id", "plan", "cleaning")

    def __init__(self, *, plan: Any, cleaning: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.cleaning = cleaning

    def work(self, context: Context) -> dict[str, Any]:
        """Return the counts; fail with what is wrong with them."""
        from fastvlm_ops.core.airflow_maintenance import RowCounts, shortfalls

        if not self.cleaning["cleaned"]:
            self.log.info("Nothing was cleaned, so that there is nothing to verify")
            return {"verified": False}
        after = self.count(self.plan)
        self.log.info("Left, by table:\n%s", _table(after))
        found = shortfalls(RowCounts(self.plan["old"], self.plan["young"]), after)
        if found:
            context["ti"].xcom_push(key="counts", value={"old": after.old, "young": after.young})
            raise CleaningIncompleteError("\n".join(["Airflow's database is not as it should be", *found]))
        return {"verified": True, "old": after.old, "young": after.young}


class ConfirmAirflowCleaningOperator(EvidenceOperator):
    """The verdict: fails unless everything that was asked for was done and verified.

    Belongs last with ``trigger_rule="all_done"``.

    :param plan: output of :class:`PlanAirflowCleaningOperator`; None when it failed (templated)
    :param cleaning: output of :class:`CleanAirflowDatabaseOperator`; None when it failed (templated)
    :param verification: output of :class:`VerifyAirflowCleaningOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = ("plan", "cleaning", "verification")

    def __init__(self, *, plan: Any, cleaning: Any, verification: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.cleaning = cleaning
        self.verification = verification

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh all three."""
        results = {"plan": self.plan, "clean": self.cleaning, "verify": self.verification}
        if missing := [name for name, result in results.items() if not result]:
            raise CleaningIncompleteError(f"not done: {', '.join(missing)}; see the first of these tasks")
        rows = sum(self.plan["old"].values())
        if self.plan["dry_run"]:
            self.log.info("A dry run: %d rows would be deleted", rows)
            return {"dry_run": True, "rows": rows, "refusal": self.plan["refusal"]}
        if not self.verification["verified"]:
            raise CleaningIncompleteError("what was cleaned was not verified; see the task verify")
        self.log.info("Deleted %d rows older than %s", rows, self.plan["cutoff"])
        return {"dry_run": False, "rows": rows, "refusal": None}


def backup_refusal(
    airflow_db_conn_id: str, operations_db_conn_id: str, *, without_backup: bool
) -> str | None:
    """Return why cleaning is refused; None where what it deletes is backed up as new as it must be.

    :param airflow_db_conn_id: connection to the database that would be cleaned
    :param operations_db_conn_id: connection of the operations database, which has the catalogue of backups
    :param without_backup: whether a person has agreed to clean what no component backs up
    """
    from sqlalchemy.exc import SQLAlchemyError

    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.store.errors import StoreError

    try:
        definitions = load_components(settings.include_dir())
        objectives = {
            component.name: definitions.objectives[component.name]
            for component in definitions.components
            if isinstance(component, AirflowDatabaseComponent) and component.connection == airflow_db_conn_id
        }
        if not objectives:
            return None if without_backup else _no_component(airflow_db_conn_id, definitions.file)
        with OperationsDatabaseHook(operations_db_conn_id).open_store() as store:
            catalogue = Catalogue(store)
            refreshed_at = catalogue.refreshed_at()
            states = [state for state in catalogue.components(objectives) if state.component in objectives]
    except (
        ConfigError,
        OperationsDatabaseError,
        SQLAlchemyError,
        StoreError,
        settings.SettingError,
    ) as error:
        return f"it is not known whether Airflow's database is backed up: {error}"
    if refreshed_at is None:
        return (
            "the catalogue of backups was never filled, so that no backup of Airflow's database is known of;"
            " trigger backup_incremental, and see its task record_backup"
        )
    overdue = [state for state in states if state.overdue is not False]
    return overdue_text(overdue, refreshed_at) if overdue else None


def _no_component(conn_id: str, file: Any) -> str:
    return (
        f"{file} has no component of kind airflow_database with the connection {conn_id}, so that what is"
        " deleted could not be restored. Add one and run backup_incremental; or trigger this DAG by hand with"
        " Without a backup turned on"
    )


def _table(counts: RowCounts) -> str:
    lines = [f"{table:28} {old:>10} {counts.young[table]:>10}" for table, old in sorted(counts.old.items())]
    return "\n".join([f"{'table':28} {'old':>10} {'young':>10}", *lines])
