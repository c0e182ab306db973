"""backup_wal: proves every few minutes to which moments PostgreSQL components can be recovered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule

from fastvlm_ops.dag_building.defaults import task_defaults
from fastvlm_ops.dag_building.definitions import (
    Components,
    ReportDefinitionErrorOperator,
    dag_from_definitions,
    load_components,
)
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.backup import RecordBackupOperator, WatchWalOperator

DOC = """
Watches the write-ahead log of each component of `include/components.yaml` that is of kind `postgresql` and
names a `slot`. The process `fastvlm-ops receive-wal` brings the log into the bucket; this DAG proves that
nothing of it is missing.

**watch_wal**, once a component, asks the server to finish a segment that has waited longer than
`switch_wal_after_seconds` if a transaction came after the last one stored, lists the bucket, and follows
every base backup's segments to the newest one. It records to which moments the component can be recovered,
and fails when a segment is missing, the bucket is further behind than `wal_max_lag_seconds`, nobody receives,
or the replication slot has lost WAL or is about to. **record_backup** writes the metrics. **outcome** only
keeps the run as red as **watch_wal**.

Where no component has a slot, the DAG has no schedule. When a run fails: `docs/runbooks/backup_wal.md`.
"""

NOTHING = (
    "No component of include/components.yaml is of kind postgresql and names a slot, so that there is no"
    " write-ahead log to watch. Add `slot: fastvlm_ops` to one, start `fastvlm-ops receive-wal`, and see"
    " docs/postgresql.md"
)


def received(components: Components) -> list[str]:
    """Return the names of the components whose write-ahead log is received."""
    return [
        component.name
        for component in components.components
        if component.kind == "postgresql" and component.slot is not None
    ]


def wire(_: DAG, components: Components) -> None:
    """Add the tasks."""
    names = received(components)
    if not names:  # to expand over none would be green, and prove nothing
        ReportDefinitionErrorOperator(task_id="nothing_to_watch", message=NOTHING)
        return
    watch = WatchWalOperator.partial(task_id="watch_wal").expand(component=names)
    record = RecordBackupOperator(task_id="record_backup", trigger_rule=TriggerRule.ALL_DONE)
    watch >> [record, EmptyOperator(task_id="outcome")]


def schedule(components: Components | None) -> Any:
    """Return when it runs: never by itself where there is nothing to watch, which is no failure."""
    if components is not None and not received(components):
        return None
    # It looks at what there is at a moment, and covers no interval.
    return CronTriggerTimetable("*/5 * * * *", timezone="UTC")


dag: DAG = dag_from_definitions(
    load_components,
    wire,
    dag_id="backup_wal",
    description="Proves to which moments PostgreSQL can be recovered: no WAL missing, none late.",
    doc_md=DOC,
    schedule=schedule,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(minutes=15), retries=1),
    tags=tags(Tag.BACKUP, Tag.SCHEDULED),
)
