"""capacity_accuracy: how right past capacity forecasts were, and an alarm when they have become worse."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from fastvlm_ops.dag_building.defaults import task_defaults
from fastvlm_ops.dag_building.params import as_of_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.capacity import CheckForecastDriftOperator, ScoreForecastOperator

DOC = """
Keeps score of **capacity_forecast**: lays every past forecast whose hours have come beside what really
happened, and judges the last ones.

- **score_forecasts** scores each forecast once for each of `accuracy.horizons_days` in
  `include/capacity.yaml`: mean absolute scaled error (1 is last week repeated), pinball loss and coverage of
  the 95 % bound, whether `required_risk` fell short, and how much of it was waste. Hours without data are not
  scored. However many forecasts are due, Prometheus is asked once for each metric. Then the hours of scored
  forecasts that are older than `keep_hourly_days` are removed; their days, figures and reports stay.
- **check_drift** logs the table of all metrics, and fails when the last forecasts of a series were worse than
  `accuracy` allows. It names each, why, and leaves one message for each in the outbox.

When a run fails: `docs/runbooks/capacity_accuracy.md`.
"""

PARAMS = {
    "as_of": as_of_param(),
    "again": Param(
        False,
        type="boolean",
        title="Score again",
        description_md="Score forecasts **that have scores already** too, as after samples were backfilled;"
        " those of the last `keep_hourly_days`.",
        section="What",
    ),
}

with DAG(
    dag_id="capacity_accuracy",
    description="Scores past capacity forecasts, and fails when the last ones were worse than allowed.",
    doc_md=DOC,
    # It scores whatever is due at a moment, and covers no interval.
    schedule=CronTriggerTimetable("0 1 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(hours=1)),
    params=PARAMS,
    tags=tags(Tag.CAPACITY, Tag.SCHEDULED),
) as dag:
    score = ScoreForecastOperator(task_id="score_forecasts", again=dag.param("again"))
    score >> CheckForecastDriftOperator(task_id="check_drift")
