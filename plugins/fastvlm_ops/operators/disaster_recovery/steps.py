"""Arms a drill's fault, breaks, watches the failover, restores and validates."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from fastvlm_ops import settings
from fastvlm_ops.operators.disaster_recovery.guard import check_all
from fastvlm_ops.operators.disaster_recovery.shared import (
    LEASE_MARGIN,
    DrillOperator,
    DrillStepOperator,
    check_host,
)
from fastvlm_ops.operators.shared import run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.disaster_recovery.guards import GuardResult
    from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult
    from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings


class ArmDrillOperator(DrillOperator):
    """Record what has to be taken back, as a file and as a row, and touch nothing.

    Belongs into a DAG as the setup of :class:`UndoFaultOperator`: Airflow runs no teardown whose setup has
    failed, and so nothing may be broken here.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Return the id of the fault, and the file of its entry."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import arm_fault
        from fastvlm_ops.core.disaster_recovery.drills import read_plan
        from fastvlm_ops.core.disaster_recovery.leasing import keep_lease

        with self.open_store() as store:
            plan = read_plan(store, run_key(context))
            if plan.dry_run or plan.fault is None:
                self.log.info(
                    "There is nothing to take back: %s", "a dry run" if plan.dry_run else "no fault"
                )
                return {"fault_id": None, "file": None}
            check_host(plan)
            keep_lease(store, plan.run_key, LEASE_MARGIN)
            file = arm_fault(plan, self.around(context, store, plan))
        self.log.info("armed: %s", file)
        return {"fault_id": plan.fault_id, "file": str(file)}


class SimulateFailureOperator(DrillStepOperator):
    """Start the observer, wait for the steady state, check every guard again, and break it.

    An ordinary task and no setup, so that the teardown runs whatever becomes of it. What it breaks is owned
    by a process of its own, which takes it back when its time to live is over.
    """

    step = "simulate_failure"

    def lasts(self, plan: DrillPlan) -> timedelta:
        """Return how long a steady state and the fault may take."""
        return timedelta(seconds=120 + plan.time_to_live_seconds)

    def carry_out(self, plan: DrillPlan, at: Surroundings) -> StepResult:
        """Break it."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import break_it
        from fastvlm_ops.core.disaster_recovery.drills import record_fault_at

        result, entry = break_it(plan, at, guards=lambda: self._guards(plan, at))
        if entry is not None and entry.fault_at is not None:
            record_fault_at(at.store, plan.run_key, datetime.fromisoformat(entry.fault_at))
        return result

    def would_do(self, plan: DrillPlan) -> list[str]:
        """Return what would be broken, and how it would be taken back."""
        from fastvlm_ops.core.disaster_recovery.faults import describe

        return describe(plan.fault) if plan.fault else ["nothing is broken"]

    def _guards(self, plan: DrillPlan, at: Surroundings) -> list[GuardResult]:
        from fastvlm_ops.core.disaster_recovery.guards import same_target
        from fastvlm_ops.core.disaster_recovery.planning import planned_target, scenario_of

        scenario = scenario_of(plan)
        view = at.control.view() if at.control else None
        results = check_all(at.store, scenario, plan.run_key, view, planned_target(plan, view))
        return [*results, same_target(plan, view)]


class _PartsOperator(DrillStepOperator):
    """Base of operators that run the parts of a step, as the scenario lists them."""

    #: Whether the parts behind one that did not pass are run as well.
    goes_on: ClassVar[bool]

    def carry_out(self, plan: DrillPlan, at: Surroundings) -> StepResult:
        """Run the parts."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import run_parts

        return run_parts(self.step, plan, at, go_on=self.goes_on)

    def would_do(self, plan: DrillPlan) -> list[str]:
        """Return the parts."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import parts_in_words

        return parts_in_words(plan, self.step)


class VerifyFailoverOperator(_PartsOperator):
    """Check what has to happen by itself: the fault shows, and users are served all the same."""

    step = "verify_failover"
    goes_on = True


class RestoreServiceOperator(_PartsOperator):
    """Do what recovers the service; the first action that does not work ends it."""

    step = "restore_service"
    goes_on = False


class ValidateRecoveryOperator(_PartsOperator):
    """Check what has to be true afterwards, with evidence: data row by row, files hash by hash."""

    step = "validate_recovery"
    goes_on = True


class UndoFaultOperator(DrillStepOperator):
    """Take the fault back, whatever became of the drill. Fails the run if it cannot.

    Belongs into a DAG as the teardown of :class:`ArmDrillOperator`, with ``on_failure_fail_dagrun=True``.
    Needs no plan and no database to take the fault back: the run's key names the file of its entry.
    """

    step = "undo_fault"
    needs_lease = False  # what was broken is taken back in any case

    def work(self, context: Context) -> dict[str, Any]:
        """Return what became of the fault."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import release_of_run
        from fastvlm_ops.core.disaster_recovery.leasing import give_lease_back

        released = release_of_run(run_key(context), settings.drill_dir())
        self.log.info(released or "no fault of this run was armed here")
        found = super().work(context)
        # Here and not only in the report, which does not run where a person has marked the run as failed.
        with self.open_store() as store:
            give_lease_back(store, run_key(context))
        return found

    def carry_out(self, plan: DrillPlan, at: Surroundings) -> StepResult:
        """See that nothing is left, and that the service is as before."""
        from fastvlm_ops.core.disaster_recovery.carrying_out import take_back

        return take_back(plan, at)

    def would_do(self, plan: DrillPlan) -> list[str]:
        """Return how the fault would be taken back."""
        return ["release the fault, see that nothing of it is left, stop the observer"] if plan.fault else []
