"""backup_configuration: the watched component of include/components.yaml, within a minute of a change."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule

from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.definitions import Components, dag_from_definitions, load_watched_components
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import BackUpChangesOperator, RecordBackupOperator
from fastvlm_ops.sensors.backup import watched_component

DOC = """
Backs up the component that has `watch: true` in `include/components.yaml`, within a minute of a change.

The triggerer looks at its names, sizes and times every few seconds, and starts a run once it has stood still
for two: one run for a burst of edits. Nothing is lost while the triggerer is down, and nothing runs when
nothing changed.

**back_up_changes** compares the component with what was last published of it. If it is the same it says
`unchanged` and sends nothing; otherwise it publishes a backup set of kind `configuration`, which holds this
component only. **restore_backup** finds the newest as `latest-configuration`; `latest` stays the newest set
with all components. **record_backup** brings the catalogue of backups and its metrics up to date, and
**outcome** only keeps the run as red as **back_up_changes**.

Triggered by hand it does the same. When a run fails: `docs/runbooks/backup_configuration.md`.
"""


def wire(_: DAG, components: Components) -> None:
    """Add the tasks."""
    back_up = BackUpChangesOperator(task_id="back_up_changes", component=components.watched, pool=BACKUP_POOL)
    record = RecordBackupOperator(
        task_id="record_backup",
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=timedelta(minutes=15),
    )
    back_up >> [record, EmptyOperator(task_id="outcome")]


def schedule(components: Components | None) -> list[Any]:
    """Return what starts a run."""
    return [watched_component(components.watched if components else None)]


dag: DAG = dag_from_definitions(
    load_watched_components,
    wire,
    dag_id="backup_configuration",
    description="Backs the configuration up within a minute of a change.",
    doc_md=DOC,
    schedule=schedule,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["asset_triggered", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=1)),
    tags=tags(Tag.BACKUP, Tag.EVENT),
)
