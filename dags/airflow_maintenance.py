"""airflow_maintenance: deletes what is old from Airflow's own database, by Airflow's own command."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule

from fastvlm_ops.dag_building.defaults import MAINTENANCE_POOL, task_defaults
from fastvlm_ops.dag_building.params import dry_run_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.dag_building.timetables import next_time
from fastvlm_ops.operators.airflow_maintenance import (
    CleanAirflowDatabaseOperator,
    ConfirmAirflowCleaningOperator,
    PlanAirflowCleaningOperator,
    VerifyAirflowCleaningOperator,
)

DOC = """
Every run, task, XCom and log entry is a row of Airflow's own database, for ever. This deletes those that are
older than `keep_days`, by `airflow db clean`, and archives nothing: **what is deleted is in a backup only**.

- **plan** counts by table what is old and what is not, and says whether cleaning would be refused.
- **clean** deletes. It is refused unless the newest backup of the component of kind `airflow_database` is as
  new as `include/components.yaml` asks for.
- **verify** counts again: nothing old is left, and no newer run or log entry is gone.
- **verdict** fails unless all of it was done.

**The runs of the schedule really delete.** Triggered by hand, it is a dry run unless told otherwise. It needs
the connection `fastvlm_airflow_db`. When a run fails: `docs/runbooks/airflow_maintenance.md`.
"""

PARAMS = {
    "keep_days": Param(
        90,
        type="integer",
        minimum=7,
        maximum=3660,
        title="Keep (days)",
        description_md="What is **older than so many days** is deleted; at least 7. The newest run of each"
        " DAG stays, however old it is.",
        section="What",
    ),
    "tables": Param(
        [],
        type="array",
        items={"type": "string", "pattern": "^[a-z_]+$"},
        title="Tables",
        description_md="One name a line, as in `dag_run` or `log`. **Empty: all** that Airflow can clean."
        " What depends on a table is cleaned with it.",
        section="What",
    ),
    "without_backup": Param(
        False,
        type="boolean",
        title="Without a backup",
        description_md="**Clean though no component of kind `airflow_database` is defined**, so that what is"
        " deleted is gone. Where there is one, it has to be backed up all the same.",
        section="Safety",
    ),
    "dry_run": dry_run_param("nothing is deleted, when the DAG is triggered by hand. Scheduled runs delete"),
}

with DAG(
    dag_id="airflow_maintenance",
    description="Deletes what is old from Airflow's own database; a dry run when triggered by hand.",
    doc_md=DOC,
    # It looks at what there is at a moment, and covers no interval; unpaused, it deletes nothing for a time
    # that has gone by.
    schedule=next_time("0 6 * * 0"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=1)),
    params=PARAMS,
    tags=tags(Tag.MAINTENANCE, Tag.SCHEDULED, Tag.GUARDED),
) as dag:
    plan = PlanAirflowCleaningOperator(
        task_id="plan",
        keep_days=dag.param("keep_days"),
        tables=dag.param("tables"),
        dry_run=dag.param("dry_run"),
        without_backup=dag.param("without_backup"),
    )
    clean = CleanAirflowDatabaseOperator(
        task_id="clean",
        plan=plan.output,
        pool=MAINTENANCE_POOL,
        execution_timeout=timedelta(hours=2),  # past the time-out of the command itself
    )
    verify = VerifyAirflowCleaningOperator(task_id="verify", plan=plan.output, cleaning=clean.output)
    verdict = ConfirmAirflowCleaningOperator(
        task_id="verdict",
        plan=plan.output,
        cleaning=clean.output,
        verification=verify.output,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=timedelta(minutes=15),
    )
