"""restore_backup: a published backup set, or parts of it, into a new folder."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule

from fastvlm_ops.dag_building.defaults import task_defaults
from fastvlm_ops.dag_building.params import dry_run_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    ConfirmRestoreOperator,
    PlanRestoreOperator,
    RestoreBackupOperator,
)

SHORT = timedelta(minutes=15)

DOC = """
Restores a backup set into a new folder below `[fastvlm_ops] restore_dir`. Trigger it with the form; it is a
dry run unless you say otherwise.

1. **plan_restore** finds the backup set and checks the target.
2. **restore_backup**, once for each component, restores into `<target>/<component>`. Each file is verified
   under a temporary name before it gets its own.
3. **confirm_restore** fails unless everything that was asked for was restored.

It reads no definition file, so it works on a new machine that has the connection `fastvlm_s3` and nothing
else. When a run fails: `docs/runbooks/restore_backup.md`.
"""

PARAMS = {
    "backup_id": Param(
        "latest",
        type="string",
        minLength=1,
        title="Backup",
        description_md="`latest` for the newest published backup set, or its id as **publish_backup** shows"
        " it, like `full-20260104T020000Z-1a2b3c4d`.",
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
    "target": Param(
        type="string",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        title="Target folder",
        description_md="Name of a folder **below `[fastvlm_ops] restore_dir`**, new or empty. Nothing outside"
        " it is touched; putting the files into service is up to you.",
        section="Where",
    ),
    "dry_run": dry_run_param("nothing is written"),
}

with DAG(
    dag_id="restore_backup",
    description="Restores a published backup into a new folder; a dry run by default.",
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
        backup_id=dag.param("backup_id"),
        components=dag.param("components"),
        target=dag.param("target"),
        execution_timeout=SHORT,
    )
    restore = RestoreBackupOperator.partial(
        task_id="restore_backup",
        dry_run=dag.param("dry_run"),
        map_index_template="{{ task.component }}",
    ).expand_kwargs(plan.output)
    ConfirmRestoreOperator(
        task_id="confirm_restore",
        steps=plan.output,
        results=restore.output,
        dry_run=dag.param("dry_run"),
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
    )
