"""disaster_recovery_<scenario>: one drill for each file of include/disaster_recovery."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, WeightRule, chain

from fastvlm_ops.dag_building.assets import FULL_BACKUP
from fastvlm_ops.dag_building.defaults import DRILL_POOL, UNDO_POOL
from fastvlm_ops.dag_building.definitions import dag_from_definitions
from fastvlm_ops.dag_building.params import dry_run_param
from fastvlm_ops.dag_building.scenarios import (
    Scenario,
    drill_dag_id,
    drill_defaults,
    load_scenario,
    scenarios_here,
)
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.dag_building.timetables import next_time
from fastvlm_ops.operators.disaster_recovery import (
    ApproveDrillOperator,
    ArmDrillOperator,
    GuardDrillOperator,
    ReportDrillOperator,
    RestoreServiceOperator,
    SimulateFailureOperator,
    UndoFaultOperator,
    ValidateRecoveryOperator,
    VerifyFailoverOperator,
)

SHORT = timedelta(minutes=15)
LONGEST = timedelta(hours=12)

DOC = """
A disaster-recovery drill: `include/disaster_recovery/{file}`.

1. **guard_drill** asks the target what it is, plans what is hit, and refuses unless every guard holds:
   environment, no other drill, window, safety lever, the last healthy instance, the steady state.
2. **approve_drill** asks a person, where the scenario says so or the target is production: *Required
   Actions* in the UI. Without an answer in time, it is rejected.
3. **arm_drill** records what has to be taken back, and touches nothing.
4. **simulate_failure** starts prober and canary, checks every guard again, and breaks it. The fault has an
   owner outside Airflow and a time to live: it ends whatever becomes of this run.
5. **verify_failover**, **restore_service** and **validate_recovery** check and do what the scenario lists.
6. **undo_fault** takes back what is left of the fault, and fails the run if it cannot.
7. **report_drill** measures RTO and RPO, stores the evidence, and fails unless the verdict is **PASS**.

**Triggered by hand, it is a dry run unless told otherwise**; runs of the schedule are none: that the file
schedules them is the decision. To keep all drills from breaking anything, and to end those that run:
`fastvlm-ops drills stop --reason …`. When a run fails: `docs/runbooks/disaster_recovery.md`.
"""


def wire(dag: DAG, scenario: Scenario) -> None:
    """Add the tasks."""
    guard = GuardDrillOperator(
        task_id="guard_drill", scenario=scenario.name, dry_run=dag.param("dry_run"), pool=DRILL_POOL
    )
    approve = ApproveDrillOperator(
        task_id="approve_drill",
        guarded=guard.output,
        timeout_minutes="{{ ti.xcom_pull(task_ids='guard_drill')['approval_timeout_minutes'] }}",
    )
    arm = ArmDrillOperator(task_id="arm_drill", pool=DRILL_POOL).as_setup()
    simulate = SimulateFailureOperator(task_id="simulate_failure", pool=DRILL_POOL)
    steps = scenario.steps
    parts = [
        operator(task_id=operator.step, pool=DRILL_POOL, execution_timeout=longest(listed))
        for operator, listed in (
            (VerifyFailoverOperator, steps.verify_failover),
            (RestoreServiceOperator, steps.restore_service),
            (ValidateRecoveryOperator, steps.validate_recovery),
        )
    ]
    undo = UndoFaultOperator(
        task_id="undo_fault",
        pool=UNDO_POOL,
        priority_weight=1000,  # before anything else that waits
        weight_rule=WeightRule.ABSOLUTE,
        retries=5,
    ).as_teardown(setups=arm, on_failure_fail_dagrun=True)
    # A teardown too: of a run that a person marks as failed, Airflow skips all other tasks, and it is green.
    report = ReportDrillOperator(
        task_id="report_drill", approval_task_id=approve.task_id, pool=UNDO_POOL
    ).as_teardown(on_failure_fail_dagrun=True)
    chain(guard, approve, arm, simulate, *parts, undo, report)


def longest(parts: Any) -> timedelta:
    """Return how long a step may take: its parts, one after the other, and what surrounds them."""
    return min(SHORT + timedelta(seconds=sum(part.within_seconds for part in parts)), LONGEST)


def schedule(scenario: Scenario | None) -> Any:
    """Return what starts a run: a time, a full backup, either, or nothing but a person."""
    if scenario is None:
        return None
    timetable = next_time(scenario.schedule) if scenario.schedule else None
    if not scenario.on_full_backup:
        return timetable
    return AssetOrTimeSchedule(timetable=timetable, assets=[FULL_BACKUP]) if timetable else [FULL_BACKUP]


def drill(file: Path) -> DAG:
    """Build the DAG of one scenario."""
    return dag_from_definitions(
        lambda _: load_scenario(file),
        wire,
        dag_id=drill_dag_id(file),
        description=f"Disaster-recovery drill {file.stem}: breaks, restores, proves, takes back.",
        doc_md=DOC.format(file=file.name),
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        allowed_run_types=["scheduled", "asset_triggered", "manual"],
        # No dagrun_timeout: Airflow would skip the teardown as well.
        default_args=drill_defaults(SHORT),
        params={
            "dry_run": dry_run_param("nothing is broken and nothing restored, when triggered by hand"),
        },
        tags=tags(Tag.DISASTER_RECOVERY, Tag.GUARDED, Tag.MANUAL),
    )


for scenario_file in scenarios_here():
    globals()[f"drill_{scenario_file.name}"] = drill(scenario_file)
