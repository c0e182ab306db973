"""backup_maintenance: verifies the backups, removes those that the policy does not keep, locks the others."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, TriggerRule, chain

from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.params import dry_run_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    ApprovePruningOperator,
    CollectGarbageOperator,
    ConfirmMaintenanceOperator,
    ForgetBackupsOperator,
    PlanPruningOperator,
    RecordBackupOperator,
    RenewLocksOperator,
    VerifyRepositoryOperator,
)

SHORT = timedelta(minutes=15)

DOC = """
Looks after the backups in the bucket: verifies them, removes what `include/components.yaml` does not keep,
and locks for longer what stays.

1. **verify_repository** checks the log, every manifest, that every chunk of every backup is in a pack that
   is there, the checksum S3 keeps of every pack, and reads one share of all packs in full: another one each
   week, so that every byte is read once in as many weeks as there are shares.
2. **plan_pruning** says which backups `retention` keeps and why, and what would be removed with the others,
   as a table in its log and on the page *Operations, Backups, Pruning*. It is refused where damage is known,
   and where more would go than `pruning.max_share`.
3. **approve_pruning** asks a person, where one has started the run and turned *Dry run* off: *Required
   Actions* in the UI. Without an answer in time it is rejected.
4. **forget_backups** takes the backups off the list, and **collect_garbage** removes what only they needed.
   Backups may run meanwhile.
5. **renew_locks**, where `object_lock` is configured, locks every object that is still needed anew when less
   than half of its days are left: in every run, whatever came of the tasks before.
6. **confirm_maintenance** fails when damage was found, and names the files and backups that are hit and the
   nearest intact backup; when what was to be removed was not; and when locks were not renewed.
7. **record_backup** brings the catalogue of backups and its metrics up to date. **outcome** only keeps the
   run as red as **confirm_maintenance**.

**The runs of the schedule remove something only where `pruning.enabled` is true** in `components.yaml`; that
the file says so is the approval, and nobody is asked again. Triggered by hand, it is a dry run unless told
otherwise. When a run fails: `docs/runbooks/backup_maintenance.md`.
"""

PARAMS = {
    "level": Param(
        "share",
        type="string",
        enum=["log", "listing", "head", "share", "full"],
        title="Level",
        description_md="`log`: log and manifests. `listing`: also that every pack is there. `head`: also the"
        " checksum that S3 keeps of each. `share`: also **one share of the packs, read in full**. `full`: all"
        " of them. After `log` alone, nothing is removed.",
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
    "despite_damage": Param(
        False,
        type="boolean",
        title="Despite damage",
        description_md="**Remove what is not kept though damage is known**, because it cannot be mended. The"
        " question to the person who approves it names the damage.",
        section="Safety",
    ),
    "lost_snapshots": Param(
        [],
        type="array",
        items={"type": "string", "minLength": 1},
        title="Lost snapshots",
        description_md="Ids of **damaged snapshots to give up though the policy keeps them**, one per line,"
        " with the backups that hold them: while a kept one cannot be read whole, nothing can be removed."
        " Needs *Despite damage*. Run **backup_full** first: the newest of a component is never given up.",
        section="Safety",
    ),
    "approval_timeout_minutes": Param(
        240,
        type="number",
        exclusiveMinimum=0,
        maximum=1440,
        title="Wait for approval (minutes)",
        description_md="After this time without an answer, the removal is **rejected**. No other run can"
        " start meanwhile.",
        section="Safety",
    ),
    "dry_run": dry_run_param(
        "nothing is removed, when the DAG is triggered by hand. Scheduled runs do as `pruning.enabled` in"
        " `components.yaml` says"
    ),
}

with DAG(
    dag_id="backup_maintenance",
    description="Verifies the backups, removes what is not kept (a dry run by default), renews locks.",
    doc_md=DOC,
    # It looks at what there is at a moment, and covers no interval.
    schedule=CronTriggerTimetable("0 5 * * 1", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=12)),
    params=PARAMS,
    tags=tags(Tag.BACKUP, Tag.MAINTENANCE, Tag.SCHEDULED, Tag.GUARDED),
) as dag:
    verify = VerifyRepositoryOperator(
        task_id="verify_repository",
        level=dag.param("level"),
        shares=dag.param("shares"),
        pool=BACKUP_POOL,
    )
    plan = PlanPruningOperator(
        task_id="plan_pruning",
        verification=verify.output,
        dry_run=dag.param("dry_run"),
        despite_damage=dag.param("despite_damage"),
        lost_snapshots=dag.param("lost_snapshots"),
        pool=BACKUP_POOL,
        trigger_rule=TriggerRule.ALL_DONE,  # a plan that is refused is shown too
        execution_timeout=timedelta(hours=3),
    )
    approve = ApprovePruningOperator(
        task_id="approve_pruning",
        plan=plan.output,
        timeout_minutes=dag.param("approval_timeout_minutes"),
        retry_delay=timedelta(seconds=10),  # somebody may be waiting for the question
        execution_timeout=SHORT,
    )
    forget = ForgetBackupsOperator(
        task_id="forget_backups", plan=plan.output, pool=BACKUP_POOL, execution_timeout=SHORT
    )
    collect = CollectGarbageOperator(
        task_id="collect_garbage",
        plan=plan.output,
        forgotten=forget.output,
        pool=BACKUP_POOL,
        execution_timeout=timedelta(hours=6),
    )
    renew = RenewLocksOperator(
        task_id="renew_locks",
        plan=plan.output,
        pool=BACKUP_POOL,
        trigger_rule=TriggerRule.ALL_DONE,  # locks run out whether or not anything was removed
        execution_timeout=timedelta(hours=6),
    )
    confirm = ConfirmMaintenanceOperator(
        task_id="confirm_maintenance",
        verification=verify.output,
        plan=plan.output,
        renewed=renew.output,
        forgotten=forget.output,
        collected=collect.output,
        approval_task_id=approve.task_id,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
    record = RecordBackupOperator(
        task_id="record_backup", trigger_rule=TriggerRule.ALL_DONE, execution_timeout=SHORT
    )
    chain(approve, forget, collect, renew, confirm, [record, EmptyOperator(task_id="outcome")])
