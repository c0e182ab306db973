"""backup_full and backup_incremental: every component of include/components.yaml to S3, then published."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Literal

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule, chain

from fastvlm_ops.dag_building.assets import FULL_BACKUP
from fastvlm_ops.dag_building.defaults import BACKUP_POOL, task_defaults
from fastvlm_ops.dag_building.definitions import Components, dag_from_definitions, load_components
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import (
    CreateBackupOperator,
    PrepareRepositoryOperator,
    PublishBackupOperator,
    RecordBackupOperator,
    VerifyBackupOperator,
)

Kind = Literal["full", "incremental"]

SHORT = timedelta(minutes=15)

DOC = """
{summary}

- **prepare_repository** checks that every component can be read and that the bucket behind the connection
  `fastvlm_s3` can be used, before anything is sent. The first run creates the repository.
- **create_backup**, once for each component, takes its snapshot. Nothing is visible before it is complete.
{verify}- **publish_backup** ties the snapshots together into a backup set. If one is missing{unverified},
  it fails, and the last published set stays the latest.
- **record_backup** brings the catalogue of backups and its metrics up to date, whatever happened. When it
  fails, the backup is published all the same. **outcome** only keeps the run as red as **publish_backup**.

A backup is a picture of now, so a past run cannot be backfilled. Retries and cleared runs change nothing
twice. To restore, trigger **restore_backup**. When a run fails: `docs/runbooks/{dag_id}.md`.
"""

VERIFY = """- **verify_backup** checks that every pack these snapshots refer to is there with its checksum,
  and restores one random file of each component on trial.
"""


def wire(kind: Kind, _: DAG, components: Components) -> None:
    """Add the tasks."""
    prepare = PrepareRepositoryOperator(
        task_id="prepare_repository", components=components.names, execution_timeout=SHORT
    )
    create = CreateBackupOperator.partial(
        task_id="create_backup",
        kind=kind,
        pool=BACKUP_POOL,
        map_index_template="{{ task.component }}",
    ).expand(component=components.names)
    publish_arguments: dict[str, Any] = {}
    steps = [prepare, create]
    if kind == "full":
        verify = VerifyBackupOperator(
            task_id="verify_backup",
            components=components.names,
            pool=BACKUP_POOL,
            trigger_rule=TriggerRule.ALL_DONE,
            execution_timeout=timedelta(hours=2),
        )
        steps.append(verify)
        publish_arguments = {
            "must_be_verified": True,
            "verification": verify.output,
            "outlets": [FULL_BACKUP],
        }
    publish = PublishBackupOperator(
        task_id="publish_backup",
        components=components.names,
        kind=kind,
        trigger_rule=TriggerRule.ALL_DONE,
        execution_timeout=SHORT,
        **publish_arguments,
    )
    record = RecordBackupOperator(
        task_id="record_backup", trigger_rule=TriggerRule.ALL_DONE, execution_timeout=SHORT
    )
    chain(*steps, publish, [record, EmptyOperator(task_id="outcome")])


def backup_dag(kind: Kind, cron: str, summary: str, execution_timeout: timedelta) -> DAG:
    """Build the DAG of one kind of backup.

    :param kind: ``full`` or ``incremental``
    :param cron: when, in UTC
    :param summary: what this kind does, for people
    :param execution_timeout: of one component
    """

    return dag_from_definitions(
        load_components,
        partial(wire, kind),
        dag_id=f"backup_{kind}",
        description=summary,
        doc_md=DOC.format(
            summary=summary,
            dag_id=f"backup_{kind}",
            verify=VERIFY if kind == "full" else "",
            unverified=" or not verified" if kind == "full" else "",
        ),
        # A backup happens at a moment and covers no interval.
        schedule=CronTriggerTimetable(cron, timezone="UTC"),
        catchup=False,
        max_active_runs=1,
        allowed_run_types=["scheduled", "manual"],
        default_args=task_defaults(execution_timeout=execution_timeout),
        tags=tags(Tag.BACKUP, Tag.SCHEDULED),
    )


backup_full = backup_dag(
    "full",
    cron="0 2 * * 0",
    summary="Backs every component up in full: rereads everything, verifies what it refers to, publishes.",
    execution_timeout=timedelta(hours=6),
)
backup_incremental = backup_dag(
    "incremental",
    cron="0 3 * * *",
    summary="Backs up what changed in any component since the last backup, and publishes.",
    execution_timeout=timedelta(hours=3),
)
