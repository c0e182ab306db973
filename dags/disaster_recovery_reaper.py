"""disaster_recovery_reaper: takes back faults of drills whose time to live is over."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from fastvlm_ops.dag_building.defaults import UNDO_POOL
from fastvlm_ops.dag_building.scenarios import drill_defaults
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.disaster_recovery import ReapFaultsOperator

DOC = """
The second line behind `fastvlm-ops reap-faults`, which is to run on every worker that drills run on.

- **reap_faults** takes back every fault of this worker whose time to live is over and that is still there,
  and fails when a fault of any worker is there longer than it may be. It reads no scenario: what a fault
  is, and how it is taken back, stands in the file that was written before it was injected. Drills whose
  runs ended without a report get the verdict ABORTED.

When a run fails, a fault may still be there: `docs/runbooks/disaster_recovery_reaper.md`.
"""

with DAG(
    dag_id="disaster_recovery_reaper",
    description="Takes back faults of drills whose time to live is over.",
    doc_md=DOC,
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=drill_defaults(timedelta(minutes=5)),
    tags=tags(Tag.DISASTER_RECOVERY, Tag.MAINTENANCE, Tag.SCHEDULED),
) as dag:
    ReapFaultsOperator(task_id="reap_faults", pool=UNDO_POOL, priority_weight=1000)
