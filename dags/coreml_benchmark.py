"""coreml_benchmark: whether a Core ML model got worse, on every device of include/coreml.yaml."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, Param, TriggerRule, chain

from fastvlm_ops.dag_building.assets import ACCEPTED_MODEL, ACCEPTED_MODELS
from fastvlm_ops.dag_building.defaults import device_pool, task_defaults
from fastvlm_ops.dag_building.definitions import CoreMLDefinitions, dag_from_definitions, load_coreml
from fastvlm_ops.dag_building.tags import Tag, tags
from fastvlm_ops.dag_building.timetables import next_time
from fastvlm_ops.operators.coreml import (
    PROMOTE_ASK,
    PROMOTE_GREEN,
    PROMOTE_NONE,
    ApprovePromotionOperator,
    BenchmarkModelOperator,
    CompareWithBaselineOperator,
    DiscoverModelsOperator,
    InspectModelOperator,
    PlanBenchmarksOperator,
    PromoteBaselineOperator,
    RegressionGateOperator,
    ReportBenchmarksOperator,
)
from fastvlm_ops.sensors.coreml import watched_packages

#: Of all models on one device, each of whose sessions has a time-out of its own.
LONGEST = timedelta(hours=12)

DOC = """
Measures the newest package of every Core ML model on every device of `include/coreml.yaml`, each night and
whenever there is a new package, and fails when a model got slower, fatter, wrong, or runs somewhere else.

1. **discover_models** finds the newest packages.
2. **inspect_model**, once for each, looks into it without running it: size, weights, operations, compression.
3. **plan_…** and **benchmark_…**, for each device: every model with each of its compute units, session by
   session, one model at a time. Trouble of a device is a result, not an error; others go on.
4. **compare_with_baseline** judges every metric against the runs that were accepted before.
5. **approve_promotion** asks a person about what is not green, if the form says so: *Required Actions*.
6. **promote_baseline** puts what is green, or was approved, into the baseline. A model that is accepted on
   every device gives an event of the asset `fastvlm/coreml/accepted_model`: release from that.
7. **report_benchmarks** writes the gauges.
8. **regression_gate** fails with each model, device and metric that got worse, by how much, and how sure that
   is. A device that could not be had fails it too, unless `missing_devices` is `warn`.

A benchmark is of a moment and covers no interval, so a past run cannot be backfilled. A retried task, or a
cleared run, measures nothing twice. When a run fails: `docs/runbooks/coreml_benchmark.md`.
"""

PARAMS = {
    "models": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Models",
        description_md="One name a line, as in `include/coreml.yaml`. **Empty: all**.",
        section="What",
    ),
    "devices": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Devices",
        description_md="One name a line, as in `include/coreml.yaml`. **Empty: all**. Where one is left out,"
        " no model counts as accepted.",
        section="What",
    ),
    "sessions": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=200,
        title="Sessions",
        description_md="Launches of each model. **Empty: `sessions.count` of `include/coreml.yaml`**.",
        section="What",
    ),
    "promote": Param(
        PROMOTE_GREEN,
        type="string",
        enum=[PROMOTE_GREEN, PROMOTE_ASK, PROMOTE_NONE],
        title="Promote",
        description_md="What later runs are compared with. `green`: what got no worse. `ask`: also **what a"
        " person approves**, as a new version that is slower on purpose. `none`: nothing.",
        section="Baseline",
    ),
    "approval_timeout_minutes": Param(
        240,
        type="number",
        exclusiveMinimum=0,
        maximum=1440,
        title="Wait for approval (minutes)",
        description_md="After this time without an answer, what is not green is **not promoted**.",
        section="Baseline",
    ),
}


def wire(dag: DAG, definitions: CoreMLDefinitions) -> None:
    """Add the tasks."""
    discover = DiscoverModelsOperator(task_id="discover_models", models=dag.param("models"))
    inspect = InspectModelOperator.partial(
        task_id="inspect_model", map_index_template="{{ task.package['model'] }}"
    ).expand(package=discover.output)
    plans: dict[str, Any] = {}
    measured = []
    for device in definitions.devices:
        # What a queue leads to is a machine that has the device; planning needs none.
        place = {"queue": device.queue, "executor": device.executor}
        plan = PlanBenchmarksOperator(
            task_id=f"plan_{device.name}",
            device=device.name,
            models=inspect.output,
            devices=dag.param("devices"),
            trigger_rule=TriggerRule.ALL_DONE,
        )
        measure = BenchmarkModelOperator.partial(
            task_id=f"benchmark_{device.name}",
            device=device.name,
            sessions=dag.param("sessions"),
            pool=device_pool(device.name),
            execution_timeout=LONGEST,
            map_index_template="{{ task.planned['model'] }} {{ task.planned['compute_unit'] }}",
            **{name: value for name, value in place.items() if value is not None},
        ).expand(planned=plan.output)
        inspect >> plan >> measure
        plans[device.name] = plan.output
        measured.append(measure)
    compare = CompareWithBaselineOperator(
        task_id="compare_with_baseline", plans=plans, trigger_rule=TriggerRule.ALL_DONE
    )
    approve = ApprovePromotionOperator(
        task_id="approve_promotion",
        compared=compare.output,
        promote=dag.param("promote"),
        timeout_minutes=dag.param("approval_timeout_minutes"),
        retry_delay=timedelta(seconds=10),  # somebody may be waiting for the question
    )
    promote = PromoteBaselineOperator(
        task_id="promote_baseline",
        compared=compare.output,
        decision=approve.output,
        promote=dag.param("promote"),
        asset={"name": ACCEPTED_MODEL.name, "uri": ACCEPTED_MODEL.uri},
        outlets=[ACCEPTED_MODELS],
    )
    report = ReportBenchmarksOperator(
        task_id="report_benchmarks",
        compared=compare.output,
        promoted=promote.output,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    gate = RegressionGateOperator(
        task_id="regression_gate",
        discovered=discover.output,
        inspected=inspect.output,
        compared=compare.output,
        promoted=promote.output,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    chain(measured, compare, approve, promote, report, gate)


def schedule(definitions: CoreMLDefinitions | None) -> AssetOrTimeSchedule:
    """Return what starts a run: the night, and a new package."""
    return AssetOrTimeSchedule(
        timetable=next_time("0 1 * * *"),
        assets=[watched_packages(watched=definitions is not None)],
    )


benchmark: DAG = dag_from_definitions(
    load_coreml,
    wire,
    dag_id="coreml_benchmark",
    description="Measures every Core ML model on every device, and fails when one got worse.",
    doc_md=DOC,
    schedule=schedule,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "asset_triggered", "manual"],
    default_args=task_defaults(execution_timeout=timedelta(minutes=30)),
    params=PARAMS,
    tags=tags(Tag.COREML, Tag.SCHEDULED, Tag.EVENT),
)
