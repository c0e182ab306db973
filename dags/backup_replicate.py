"""backup_replicate: what was backed up, into a second bucket, verified there."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule, chain

from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    ConfirmReplicationOperator,
    PrepareReplicationOperator,
    RecordReplicationOperator,
    RenewReplicaLocksOperator,
    ReplicateBackupOperator,
    VerifyReplicaOperator,
)

SHORT = timedelta(minutes=15)

DOC = """
Copies the backups to a second place: the bucket behind the connection that `replica` in
`include/components.yaml` names (`fastvlm_s3_replica` unless it says otherwise), of the type `fastvlm_s3`.
Where there is no such connection, the run fails and says so: leave this DAG paused then.

- **prepare_replication** checks both places: the second bucket is empty, or holds this repository and no
  other, and is not the first one under another name.
- **replicate_backup** copies object by object what is missing: packs, then what lists them, the log last,
  so that the second place is a repository at every moment. Each object is authenticated on its way. What is
  damaged is named and not copied, and the rest goes on. Killed at any request, the next run goes on.
- **verify_replica** opens the second place by its own connection, checks that all that the backups need is
  there with its checksum, and reads one share of the packs in full, another one each day.
- **renew_replica_locks**, where `object_lock` is configured, locks what the second place holds anew when less
  than half of its days are left, whatever came of the tasks before.
- **confirm_replication** fails unless everything was copied and found intact, and its locks were renewed.
- **record_backup** records how far the second place is, for the metrics and the page of costs. **outcome**
  only keeps the run as red as **confirm_replication**.

To restore from the second place, choose it as *Source* in the form of **restore_backup**. When a run fails:
`docs/runbooks/backup_replicate.md`.
"""

with DAG(
    dag_id="backup_replicate",
    description="Copies the backups to a second bucket, and verifies them there.",
    doc_md=DOC,
    # What is there at a moment is copied: it covers no interval. Behind the incremental backup of 03:00.
    schedule=CronTriggerTimetable("30 5 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=12)),
    tags=tags(Tag.BACKUP, Tag.SCHEDULED),
) as dag:
    prepare = PrepareReplicationOperator(task_id="prepare_replication", execution_timeout=SHORT)
    copy = ReplicateBackupOperator(task_id="replicate_backup", pool=BACKUP_POOL)
    verify = VerifyReplicaOperator(task_id="verify_replica", pool=BACKUP_POOL)
    renew = RenewReplicaLocksOperator(
        task_id="renew_replica_locks",
        pool=BACKUP_POOL,
        trigger_rule=TriggerRule.ALL_DONE,  # locks run out whether or not anything was copied
    )
    confirm = ConfirmReplicationOperator(
        task_id="confirm_replication",
        replication=copy.output,
        verification=verify.output,
        renewed=renew.output,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
    record = RecordReplicationOperator(
        task_id="record_backup",
        replication=copy.output,
        verification=verify.output,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
    outcome = EmptyOperator(task_id="outcome")
    chain(prepare, copy, verify, renew, confirm, [record, outcome])
    chain([copy, verify], outcome)  # as record, which reads what they found
