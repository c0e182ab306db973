"""backup_maintenance: verifies the backups in the bucket, and plans which of them would be kept."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, TriggerRule

from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    ConfirmMaintenanceOperator,
    PlanRetentionOperator,
    RecordBackupOperator,
    VerifyRepositoryOperator,
)

DOC = """
Looks after the backups in the bucket. Nothing is deleted; that it was verified is added to the log there.

- **verify_repository** checks the log, every manifest, that every chunk of every backup is in a pack that is
  there, the checksum S3 keeps of every pack, and reads one share of all packs in full: another one each week,
  so that every byte is read once in as many weeks as there are shares.
- **plan_retention** says which backups the policy in `include/components.yaml` (`retention`) would keep and
  why, as a table in its log.
- **confirm_maintenance** fails when damage was found, and names the files and backups that are hit.
- **record_backup** brings the catalogue of backups and its metrics up to date. **outcome** only keeps the run
  as red as **confirm_maintenance**.

Triggered by hand, the form takes another level: `full` reads everything. When a run fails:
`docs/runbooks/backup_maintenance.md`.
"""

PARAMS = {
    "level": Param(
        "share",
        type="string",
        enum=["log", "listing", "head", "share", "full"],
        title="Level",
        description_md="`log`: log and manifests. `listing`: also that every pack is there. `head`: also the"
        " checksum that S3 keeps of each. `share`: also **one share of the packs, read in full**. `full`: all"
        " of them.",
        section="Verification",
    ),
    "shares": Param(
        8,
        type="integer",
        minimum=1,
        maximum=520,
        title="Shares",
        description_md="Into how many shares the level `share` divides the packs. The run of a week reads"
        " that week's share, so **every byte is read once in this many weeks**.",
        section="Verification",
    ),
}

with DAG(
    dag_id="backup_maintenance",
    description="Verifies the backups in the bucket, and plans which of them would be kept. Deletes nothing.",
    doc_md=DOC,
    # It looks at what there is at a moment, and covers no interval.
    schedule=CronTriggerTimetable("0 5 * * 1", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=12)),
    params=PARAMS,
    tags=tags(Tag.BACKUP, Tag.MAINTENANCE, Tag.SCHEDULED),
) as dag:
    verify = VerifyRepositoryOperator(
        task_id="verify_repository",
        level=dag.param("level"),
        shares=dag.param("shares"),
        pool=BACKUP_POOL,
    )
    plan = PlanRetentionOperator(task_id="plan_retention", execution_timeout=timedelta(minutes=15))
    confirm = ConfirmMaintenanceOperator(
        task_id="confirm_maintenance",
        verification=verify.output,
        retention=plan.output,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=timedelta(minutes=15),
    )
    record = RecordBackupOperator(
        task_id="record_backup",
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=timedelta(minutes=15),
    )
    confirm >> [record, EmptyOperator(task_id="outcome")]
