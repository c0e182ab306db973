"""capacity_forecast: what every service will need, and what to do about it."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TriggerRule, chain

from fastvlm_ops.dag_building.assets import CAPACITY_FORECAST
from fastvlm_ops.dag_building.defaults import task_defaults
from fastvlm_ops.dag_building.params import as_of_param, dry_run_param
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.operators.capacity import (
    HISTORY_KEY,
    ApproveScaleDownOperator,
    CollectMetricHistoryOperator,
    ConfirmForecastOperator,
    ForecastCapacityOperator,
    PublishForecastOperator,
    RecommendScalingOperator,
    ReportCapacityOperator,
)

DOC = """
Forecasts CPU, memory and request rate of every service that Prometheus knows, says what capacity that needs,
and recommends how many replicas each should have, by `include/capacity.yaml`. Nothing is scaled by it.

1. **collect_history** reads the hours before the as-of hour, all services at once, before it writes anything.
2. **forecast_capacity**, once for each shard of some 300 series, forecasts and works out what is needed.
3. **publish_forecast** puts the partition of that hour in place in one step, then its rows in the operations
   database. Until then, those of an earlier run stand.
4. **recommend_scaling** says what to do, with reasons.
5. **approve_scale_down** asks a person before a scale-down counts as approved: *Required Actions* in the UI.
   Without an answer in time it is rejected. In a dry run nobody is asked, and everything stays planned.
6. **report_capacity** writes the report and, for the newest hour, the gauges.
7. **confirm_forecast** fails unless everything was published and every series could be forecast.

The as-of hour is the form's, else the end of the run's interval; nothing from after it is read, so that
`airflow backfill create --dag-id capacity_forecast` gives what would have been forecast then. A re-run gives
the same bytes. When a run fails: `docs/runbooks/capacity_forecast.md`.
"""

PARAMS = {
    "as_of": as_of_param(),
    "horizon_days": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=366,
        title="Horizon (days)",
        description_md="How many days to forecast. **Empty: `horizon_days` of `include/capacity.yaml`**.",
        section="What",
    ),
    "approval_timeout_minutes": Param(
        240,
        type="number",
        exclusiveMinimum=0,
        maximum=1440,
        title="Wait for approval (minutes)",
        description_md="After this time without an answer, a scale-down is **rejected**.",
        section="Safety",
    ),
    "dry_run": dry_run_param("recommendations stay planned, nobody is asked, and none counts as approved"),
}

with DAG(
    dag_id="capacity_forecast",
    description="Forecasts what capacity every service needs, and recommends how many replicas to run.",
    doc_md=DOC,
    # A run is about the day that ends with its interval. At midnight, since `backfill create --to-date D`
    # means midnight of D, and would lose a later hour.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    allowed_run_types=["scheduled", "manual", "backfill"],
    default_args=task_defaults(execution_timeout=timedelta(minutes=30)),
    params=PARAMS,
    tags=tags(Tag.CAPACITY, Tag.SCHEDULED, Tag.GUARDED),
) as dag:
    collect = CollectMetricHistoryOperator(task_id="collect_history", horizon_days=dag.param("horizon_days"))
    forecast = ForecastCapacityOperator.partial(
        task_id="forecast_capacity",
        history=collect.output[HISTORY_KEY],
        map_index_template="shard {{ task.shard }}",
    ).expand(shard=collect.output)
    publish = PublishForecastOperator(task_id="publish_forecast", history=collect.output[HISTORY_KEY])
    recommend = RecommendScalingOperator(task_id="recommend_scaling", published=publish.output)
    approve = ApproveScaleDownOperator(
        task_id="approve_scale_down",
        recommended=recommend.output,
        dry_run=dag.param("dry_run"),
        timeout_minutes=dag.param("approval_timeout_minutes"),
        retry_delay=timedelta(seconds=10),  # somebody may be waiting for the question
    )
    report = ReportCapacityOperator(
        task_id="report_capacity",
        published=publish.output,
        decision=approve.output,
        dry_run=dag.param("dry_run"),
        outlets=[CAPACITY_FORECAST],
    )
    confirm = ConfirmForecastOperator(
        task_id="confirm_forecast",
        published=publish.output,
        report=report.output,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    chain(collect, forecast, publish, recommend, approve, report, confirm)
