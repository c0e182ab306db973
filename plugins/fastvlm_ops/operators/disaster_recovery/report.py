"""Gives a drill its verdict, stores the evidence, and fails unless it passed; takes back what was left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.approving import rejection
from fastvlm_ops.operators.disaster_recovery.shared import DrillOperator
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.disaster_recovery.drills import Drill
    from fastvlm_ops.core.store import Store


class DrillNotPassedError(Exception):
    """The verdict of a drill is not PASS."""

    retryable = False


class FaultLeftError(Exception):
    """A fault is there longer than it may be, and could not be taken back."""

    retryable = True


class ReportDrillOperator(DrillOperator):
    """Measure, judge, store the evidence, and fail unless the drill passed, or was a dry run.

    Belongs behind all other tasks with ``trigger_rule="all_done"``: what did not run is not passed.

    :param approval_task_id: of the task that asks a person (templated)
    """

    template_fields: Sequence[str] = (*DrillOperator.template_fields, "approval_task_id")

    def __init__(self, *, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approval_task_id = approval_task_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return verdict, reason and figures."""
        from fastvlm_ops.core.disaster_recovery.drills import read_drill
        from fastvlm_ops.core.disaster_recovery.leasing import give_lease_back

        with self.open_store() as store:
            drill = read_drill(store, run_key(context))
            if drill is None:
                raise DrillNotPassedError(
                    "guard_drill made no plan, so that nothing was broken: see its log for the reason"
                )
            try:
                done = self._conclude(context, store, drill, rejection(context, self.approval_task_id))
            finally:
                give_lease_back(store, drill.plan.run_key)
        self.log.info("%s: %s", done["verdict"], done["reason"])
        if done["verdict"] != "PASS" and not drill.plan.dry_run:
            raise DrillNotPassedError(f"{done['verdict']}: {done['reason']}")
        if drill.plan.dry_run and drill.steps["guard"].result.status != "passed":
            raise DrillNotPassedError(f"REFUSED: {drill.steps['guard'].result.summary}")
        return done

    def _conclude(self, context: Context, store: Store, drill: Drill, rejected: str | None) -> dict[str, Any]:
        from fastvlm_ops.core.disaster_recovery.concluding import conclude, store_evidence
        from fastvlm_ops.core.store.artefacts import ArtefactStore

        conclusion = conclude(store, drill, settings.drill_dir(), as_of=as_of(context), rejected=rejected)
        hook = BackupRepositoryHook(self.s3_conn_id)
        place = hook.settings
        artefacts = ArtefactStore(store, hook.get_client(), bucket=place.bucket, prefix=place.prefix)
        self._write_metrics(store)
        files = store_evidence(store, drill.plan, conclusion, artefacts)
        return {
            "verdict": conclusion.verdict,
            "reason": conclusion.reason,
            **conclusion.figures,
            "evidence": files,
        }

    def _write_metrics(self, store: Store) -> None:
        """Write metrics, where a folder is set. That they cannot be written says nothing of the drill."""
        folder = settings.metrics_dir()
        if folder is None:
            return
        from fastvlm_ops.core.disaster_recovery.metrics import write_metrics
        from fastvlm_ops.core.disaster_recovery.reporting.overdue import allowed_ages

        try:
            write_metrics(store, allowed_ages(settings.include_dir(), datetime.now(UTC)), folder)
        except (OSError, settings.SettingError) as error:
            self.log.error("No metrics were written to %s: %s", folder, error)


class ReapFaultsOperator(EvidenceOperator):
    """Take back the faults of this machine whose time to live is over, as the reaper does that always runs;
    and fail when a fault of any machine is there longer than it may be. Reads no scenario.

    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields = ("operations_db_conn_id",)

    def __init__(
        self, *, operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return what was taken back, and what is overdue."""
        from fastvlm_ops.core.disaster_recovery.closing import close_abandoned
        from fastvlm_ops.core.disaster_recovery.fault_rows import overdue, sync_entries
        from fastvlm_ops.core.disaster_recovery.reaper import reap

        drill_dir = settings.drill_dir()
        results = reap(drill_dir)  # first, and whether or not there is a database
        for result in results:
            self.log.info("%s", result)
        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            sync_entries(store, drill_dir)
            late = overdue(store)
            closed = close_abandoned(store)
        for key in closed:
            self.log.warning("%s ended without its report: ABORTED", key)
        if late:
            raise FaultLeftError(
                f"faults are there longer than they may be: {'; '.join(str(one) for one in late)}. Take them"
                " back by hand: docs/runbooks/disaster_recovery_reaper.md"
            )
        return {"taken_back": len(results), "closed": closed}
