"""backup_deadline: fails when the newest backup of a component is older than components.yaml allows."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from fastvlm_ops.dag_building.defaults import task_defaults
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import CheckBackupAgeOperator

DOC = """
Every 15 minutes, looks in the catalogue of backups whether the newest intact backup of each component is as
new as `newest_backup_max_age_hours` in `include/components.yaml` asks for.

- **check_backup_age** fails when one is older, was never made, or when nothing is known: the catalogue was
  never filled, or the operations database cannot be read. It names each component, its newest backup, its
  age, and what to do; and leaves one message for each in the outbox.

It reads the operations database only; **record_backup** of the backup DAGs keeps that up to date. When a run
fails: `docs/runbooks/backup_deadline.md`.
"""

with DAG(
    dag_id="backup_deadline",
    description="Fails when the newest backup of a component is older than it may be.",
    doc_md=DOC,
    # It looks at what there is at a moment, and covers no interval.
    schedule=CronTriggerTimetable("*/15 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(minutes=5)),
    tags=tags(Tag.BACKUP, Tag.SCHEDULED),
) as dag:
    CheckBackupAgeOperator(task_id="check_backup_age")
