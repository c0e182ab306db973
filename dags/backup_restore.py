"""restore_backup: a published backup set, or parts of it, into a new folder or over what is there."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, TriggerRule, chain

from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.params import dry_run_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    REQUEST_KEY,
    ApproveRestoreOperator,
    ConfirmRestoreOperator,
    PlanRestoreOperator,
    RecordRestoreOperator,
    RestoreBackupOperator,
)

SHORT = timedelta(minutes=15)

DOC = """
Restores a backup set, or parts of it: by default into a new folder below `[fastvlm_ops] restore_dir`. Trigger
it with the form; it is a dry run unless you say otherwise.

1. **plan_restore** finds the backup set and checks the targets.
2. **approve_restore** asks a person, where files would be replaced or the restore is in place: *Required
   Actions* in the UI, with what would be replaced. Without an answer in time it is rejected.
3. **restore_backup**, once for each component. Each file is verified under a temporary name before it gets
   its own; what is replaced is moved aside, so that it can be undone.
   A cluster of PostgreSQL for which the form has a target is recovered to it, into a new or empty folder,
   and started on trial.
4. **confirm_restore** fails unless everything that was asked for was restored, also when it was rejected.
5. **record_backup** brings the catalogue of backups up to date. When it fails, what was restored stays
   restored. **outcome** only keeps the run as red as **confirm_restore**.

Unless in place, it reads no definition file, so it works on a new machine that has the connection
`fastvlm_s3` and nothing else. When a run fails: `docs/runbooks/restore_backup.md`.
"""

PARAMS = {
    "source": Param(
        "fastvlm_s3",
        type="string",
        pattern=r"^[A-Za-z0-9_.-]{1,200}$",
        examples=["fastvlm_s3", "fastvlm_s3_replica"],
        title="Source",
        description_md="The connection to the bucket to restore from: `fastvlm_s3`, or that of **the second"
        " place**, `fastvlm_s3_replica`, where the first is gone.",
        section="What",
    ),
    "backup_id": Param(
        "latest",
        type="string",
        minLength=1,
        title="Backup",
        description_md="`latest` for the newest published backup set with all components;"
        " `latest-configuration` for the newest of the configuration alone; **a time** like"
        " `2026-01-04T12:00:00+00:00` for the newest that was there then; or an id as **publish_backup**"
        " shows it, like `full-20260104T020000Z-1a2b3c4d`.",
        section="What",
    ),
    "components": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Components",
        description_md="One name a line, as in `include/components.yaml`. **Empty: all** in the backup.",
        section="What",
    ),
    "paths": Param(
        [],
        type="array",
        items={"type": "string", "minLength": 1},
        title="Paths",
        description_md="One pattern a line, for paths from the component's folder, as in `regions/eu.yaml`,"
        " `regions` or `*.yaml` (`*` also matches `/`). **Empty: everything** in the component.",
        section="What",
    ),
    "target": Param(
        None,
        type=["null", "string"],
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        title="Target folder",
        description_md="Name of a folder **below `[fastvlm_ops] restore_dir`**, new or empty. Nothing outside"
        " it is touched; putting the files into service is up to you.",
        section="Where",
    ),
    "in_place": Param(
        False,
        type="boolean",
        title="In place",
        description_md="Restore each component **to where it is in service** by `include/components.yaml`,"
        " instead of the target folder. Somebody has to approve it. Stop the service first.",
        section="Where",
    ),
    "recover_time": Param(
        None,
        type=["null", "string"],
        # No date-time: the form's field for those knows no seconds.
        pattern=r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.]\d{1,6})?)?(Z|[+-]\d\d:\d\d)$",
        title="To a time",
        description_md="Recover clusters of PostgreSQL to this **time with its zone**, like"
        " `2026-01-04T12:00:00+00:00`, from the newest base backup before it and WAL. Only one of time, LSN,"
        " restore point and newest. **None of them: the base backup alone**, as it was at its end.",
        section="PostgreSQL",
    ),
    "recover_lsn": Param(
        None,
        type=["null", "string"],
        pattern=r"^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$",
        title="To an LSN",
        description_md="To this place in the write-ahead log, like `16/B374D848`.",
        section="PostgreSQL",
    ),
    "recover_name": Param(
        None,
        type=["null", "string"],
        minLength=1,
        maxLength=63,
        title="To a restore point",
        description_md="To the restore point that `pg_create_restore_point` was given this name for. It must"
        " be after the newest base backup, or choose an older one as *Backup*.",
        section="PostgreSQL",
    ),
    "recover_latest": Param(
        False,
        type="boolean",
        title="To the newest",
        description_md="To the end of the WAL that is stored: **loses the least**.",
        section="PostgreSQL",
    ),
    "recover_inclusive": Param(
        True,
        type="boolean",
        title="Inclusive",
        description_md="Whether what was committed exactly at the time, or begins at the LSN, belongs to it.",
        section="PostgreSQL",
    ),
    "recover_timeline": Param(
        "latest",
        type="string",
        pattern="^(latest|[1-9][0-9]{0,9})$",
        title="Timeline",
        description_md="`latest`, or the number of the timeline to follow: an earlier one for what was"
        " written there after another server had been promoted.",
        section="PostgreSQL",
    ),
    "recover_action": Param(
        "promote",
        type="string",
        enum=["promote", "pause"],
        title="At the target",
        description_md="`promote`: the copy can be written to. `pause`: it waits there, read-only, for"
        " somebody to look.",
        section="PostgreSQL",
    ),
    "trial": Param(
        True,
        type="boolean",
        title="Start on trial",
        description_md="Start the recovered cluster on a socket that nobody else reaches, wait for the"
        " target, check files, tables and indexes, ask the component's `checks`, and stop it.",
        section="PostgreSQL",
    ),
    "overwrite": Param(
        False,
        type="boolean",
        title="Overwrite",
        description_md="**Replace files that are there and differ.** They are moved aside. Files that the"
        " backup does not have stay. Somebody has to approve it. Off: the target must be new or empty.",
        section="Safety",
    ),
    "approval_timeout_minutes": Param(
        240,
        type="number",
        exclusiveMinimum=0,
        maximum=1440,
        title="Wait for approval (minutes)",
        description_md="After this time without an answer, the restore is **rejected**. No other restore can"
        " start meanwhile.",
        section="Safety",
    ),
    "dry_run": dry_run_param("nothing is written"),
}

with DAG(
    dag_id="restore_backup",
    description="Restores a published backup, or parts of it; a dry run by default.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=6)),
    params=PARAMS,
    tags=tags(Tag.RESTORE, Tag.MANUAL, Tag.GUARDED),
) as dag:
    plan = PlanRestoreOperator(
        task_id="plan_restore",
        s3_conn_id=dag.param("source"),
        backup_id=dag.param("backup_id"),
        components=dag.param("components"),
        target=dag.param("target"),
        paths=dag.param("paths"),
        overwrite=dag.param("overwrite"),
        in_place=dag.param("in_place"),
        dry_run=dag.param("dry_run"),
        recovery={
            "time": dag.param("recover_time"),
            "lsn": dag.param("recover_lsn"),
            "name": dag.param("recover_name"),
            "latest": dag.param("recover_latest"),
            "inclusive": dag.param("recover_inclusive"),
            "timeline": dag.param("recover_timeline"),
            "action": dag.param("recover_action"),
            "trial": dag.param("trial"),
        },
        execution_timeout=timedelta(hours=1),
    )
    approve = ApproveRestoreOperator(
        task_id="approve_restore",
        request=plan.output[REQUEST_KEY],
        timeout_minutes=dag.param("approval_timeout_minutes"),
        retry_delay=timedelta(seconds=10),  # somebody may be waiting for the question
        execution_timeout=SHORT,
    )
    restore = RestoreBackupOperator.partial(
        task_id="restore_backup",
        s3_conn_id=dag.param("source"),
        dry_run=dag.param("dry_run"),
        pool=BACKUP_POOL,
        map_index_template="{{ task.component }}",
    ).expand_kwargs(plan.output)
    confirm = ConfirmRestoreOperator(
        task_id="confirm_restore",
        steps=plan.output,
        results=restore.output,
        dry_run=dag.param("dry_run"),
        approval_task_id=approve.task_id,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
    # Straight on, also when nobody has to be asked: approve_restore then succeeds at once.
    record = RecordRestoreOperator(
        task_id="record_backup",
        s3_conn_id=dag.param("source"),
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
    chain(approve, restore, confirm, [record, EmptyOperator(task_id="outcome")])
