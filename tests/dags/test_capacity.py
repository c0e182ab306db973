"""The capacity DAGs, run to their end against a real Prometheus and a real S3 server."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import Partition, find_partition
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import capacity as tables
from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.links.capacity import PAGES
from tests.capacity_kit import (
    HISTORY_DAYS,
    HORIZON_DAYS,
    HORIZONS,
    LONELY,
    Metrics,
    connect,
    samples_changed_from,
    serve,
)

DAG = "capacity_forecast"
FRESH = {"model-delivery", "telemetry-gateway", "vlm-api", "vlm-text"}


@pytest.fixture
def objects(s3_client: Any, bucket: str) -> CapacityObjects:
    return CapacityObjects(s3_client, bucket=bucket, prefix="kit")


@pytest.fixture
def database(tmp_path: Path) -> Callable[[Any], list[dict[str, Any]]]:
    """A function that returns all rows of a table, in order, less who wrote them."""

    def read(table: Any) -> list[dict[str, Any]]:
        if not (tmp_path / "operations.db").exists():
            return []
        with open_store(f"sqlite:///{tmp_path / 'operations.db'}") as store, store.read() as connection:
            found = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            return [{key: value for key, value in row.items() if key != "run_key"} for row in found]

    return read


def partition_of(objects: CapacityObjects, as_of: datetime) -> Partition:
    partition = find_partition(objects, as_of)
    assert partition is not None
    return partition


def bytes_of(objects: CapacityObjects, as_of: datetime) -> dict[str, bytes]:
    """All objects of a partition."""
    return {name: objects.get(name, remedy="") for name in partition_of(objects, as_of).names.values()}


def names_in(objects: CapacityObjects) -> list[str]:
    return [name for name, _ in objects.names("")]


def at(moment: datetime) -> dict[str, str]:
    return {"as_of": moment.isoformat()}


def test_every_service_gets_what_is_known_of_it(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, database: Any
) -> None:
    run = run_dag(DAG, run_after=metrics.end, logical_date=metrics.end)  # an interval that ends there
    assert run.state == "success"
    assert len(run.tasks["forecast_capacity"]) > 1
    (published,) = run.returned("publish_forecast")
    assert published["as_of"] == metrics.end.isoformat()
    for task in ("publish_forecast", "recommend_scaling", "report_capacity", "confirm_forecast"):
        (link,) = run.xcoms[task]["_link_CapacityPageLink"]  # what Airflow's UI makes a button of
        assert link.endswith(f"{PAGES}?as_of={metrics.end:%Y-%m-%dT%HZ}")
    rows = {(row["service"], row["metric"]): row for row in database(tables.forecasts)}
    assert {row["as_of"] for row in rows.values()} == {metrics.end}
    for service in FRESH:
        for metric in ("cpu", "memory", "requests"):
            row = rows[service, metric]
            assert row["status"] == "ok", row
            assert 0 < row["forecasted_peak"] < row["required_seed"]
            assert row["required_risk"] > 0
            assert row["capacity"] > 0
    assert rows["vlm-video", "cpu"]["status"] == "short"
    assert rows["vlm-legacy", "cpu"]["status"] == "stale"
    assert rows[LONELY, "cpu"]["status"] == "ok"
    assert rows[LONELY, "memory"]["status"] == "no_data"
    assert rows[LONELY, "memory"]["required_risk"] is None
    assert rows[LONELY, "cpu"]["forecasted_peak"] == 12.5

    advice = {row["service"]: row for row in database(tables.recommendations)}
    assert advice["vlm-legacy"]["action"] == "stale"
    assert advice[LONELY]["action"] == "insufficient_data"
    assert advice["vlm-video"]["action"] != "scale_down"
    assert {row["applied_state"] for row in advice.values()} == {"planned"}
    assert all(row["reason"] for row in advice.values())

    partition = partition_of(objects, metrics.end)
    hourly = partition.table("hourly", service="vlm-api", metric="requests").to_pandas()
    assert len(hourly) == HORIZON_DAYS * 24
    assert hourly["hour"].iloc[0] == metrics.end
    assert (hourly["q0.95"] >= hourly["q0.5"]).all()
    assert not [name for name in names_in(objects) if name.startswith("runs/")]


def test_the_report_has_the_kits_shape_and_the_gauges_are_of_the_newest_hour(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "textfiles"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__METRICS_DIR", str(folder))
    assert run_dag(DAG, at(metrics.as_of(1))).state == "success"
    text = (folder / "fastvlm_capacity.prom").read_text()
    assert 'fastvlm_capacity_required{resource="cpu",rule="risk",service="vlm-api"}' in text
    (moment,) = re.findall(r"^fastvlm_capacity_forecast_timestamp_seconds (\S+)$", text, re.M)
    assert float(moment) == metrics.as_of(1).timestamp()
    assert 'resource="memory",rule="risk",service="lonely"' not in text
    assert run_dag(DAG, at(metrics.as_of(2))).state == "success"
    assert (folder / "fastvlm_capacity.prom").read_text() == text

    (name,) = [name for name in names_in(objects) if name.endswith(f"{metrics.as_of(1):%d}T00Z/report.json")]
    report = json.loads(objects.get(name, remedy=""))
    assert len(report["include_hash"]) == 64
    service = report["services"]["vlm-api"]
    assert service["forecast_period_days"] == HORIZON_DAYS
    assert set(service["cpu_requirements"]) == {"current_usage", "forecasted_peak", "recommended_capacity"}
    assert service["scaling_recommendations"][0]["service"] == "vlm-api"


def test_a_rerun_and_runs_in_another_order_give_the_same(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, database: Any, tmp_path: Path
) -> None:
    hours = [metrics.as_of(days) for days in (4, 3, 2, 1)]
    for hour in hours:
        assert run_dag(DAG, at(hour)).state == "success"
    contents = {hour: bytes_of(objects, hour) for hour in hours}
    rows, advice = database(tables.forecasts), database(tables.recommendations)
    names = [name for name in names_in(objects) if not name.startswith("runs/")]

    shuffled = hours[:]
    random.Random(1).shuffle(shuffled)
    assert shuffled != hours
    (tmp_path / "operations.db").unlink()
    for hour in [*shuffled, hours[0]]:
        assert run_dag(DAG, at(hour)).state == "success"
    assert {hour: bytes_of(objects, hour) for hour in hours} == contents
    assert database(tables.forecasts) == rows
    assert database(tables.recommendations) == advice
    assert names_in(objects) == names


def test_nothing_from_after_the_hour_is_read(
    run_dag: Any,
    metrics: Metrics,
    objects: CapacityObjects,
    database: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour = metrics.as_of(2) + timedelta(hours=5)
    assert run_dag(DAG, {"as_of": (hour + timedelta(minutes=40)).isoformat()}).state == "success"
    before, rows, advice = (
        bytes_of(objects, hour),
        database(tables.forecasts),
        database(tables.recommendations),
    )
    changed = tmp_path / "changed.txt"
    changed.write_text(samples_changed_from(metrics.file.read_text(), hour))
    with serve(changed, tmp_path / "changed") as server:
        connect(monkeypatch, server.url)
        later = PrometheusHook().hourly("fastvlm_replicas", hour, hour + timedelta(hours=1))
        assert later.iloc[0]["vlm-api"] > 1000
        assert run_dag(DAG, at(hour)).state == "success"
    assert bytes_of(objects, hour) == before
    assert database(tables.forecasts) == rows
    assert database(tables.recommendations) == advice


def test_with_prometheus_down_nothing_is_written(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_dag(DAG, at(metrics.end)).state == "success"
    before, names, rows = bytes_of(objects, metrics.end), names_in(objects), database(tables.forecasts)
    connect(monkeypatch, "http://127.0.0.1:1", retries=0)
    run = run_dag(DAG, at(metrics.end))
    assert run.state == "failed"
    assert run.tasks["collect_history"] == ["failed"]
    (evidence,) = run.failures("collect_history")
    assert evidence["error"] == "PrometheusUnavailableError"
    (verdict,) = run.failures("confirm_forecast")
    assert "no forecast was published" in verdict["message"]
    assert (bytes_of(objects, metrics.end), names_in(objects)) == (before, names)
    assert database(tables.forecasts) == rows


def test_a_failure_before_the_end_leaves_the_old_partition(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_dag(DAG, at(metrics.end)).state == "success"
    before, rows = bytes_of(objects, metrics.end), database(tables.forecasts)
    put = CapacityObjects.put

    def refuse(self: CapacityObjects, name: str, data: bytes, **arguments: Any) -> str:
        if name.endswith("part.parquet"):
            raise OSError("the worker's disk is full")
        return put(self, name, data, **arguments)

    monkeypatch.setattr(CapacityObjects, "put", refuse)
    run = run_dag(DAG, {**at(metrics.end), "horizon_days": 2})
    assert run.state == "failed"
    assert run.tasks["publish_forecast"] == ["failed"]
    assert bytes_of(objects, metrics.end) == before
    assert database(tables.forecasts) == rows
    monkeypatch.undo()


def test_no_service_at_all_is_published_and_told(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects
) -> None:
    long_ago = metrics.end - timedelta(days=90)
    run = run_dag(DAG, at(long_ago))
    assert run.tasks["forecast_capacity"] == ["success"]
    assert run.tasks["report_capacity"] == ["success"]
    assert run.state == "failed"
    assert "no query of capacity.yaml gave a series" in run.failures("confirm_forecast")[0]["message"]
    assert partition_of(objects, long_ago).table("series").num_rows == 0


@pytest.mark.parametrize(
    ("conf", "said"),
    [({"as_of": "2999-01-01T00:00:00+00:00"}, "still to come"), ({"horizon_days": 0}, None)],
)
def test_what_cannot_be_done_is_refused(run_dag: Any, metrics: Metrics, conf: Any, said: str | None) -> None:
    if said is None:
        with pytest.raises(Exception, match="horizon_days"):
            run_dag(DAG, conf)
        return
    run = run_dag(DAG, conf)
    assert run.state == "failed"
    assert said in run.failures("collect_history")[0]["message"]


def test_what_adds_is_approved_unless_it_is_a_dry_run(run_dag: Any, metrics: Metrics, database: Any) -> None:
    assert run_dag(DAG, {**at(metrics.end), "dry_run": False}).state == "success"
    rows = database(tables.recommendations)
    assert {row["applied_state"] for row in rows if row["action"] == "scale_up"} <= {"approved"}
    assert {row["applied_state"] for row in rows if row["action"] != "scale_up"} == {"planned"}


def test_scores_are_those_of_an_offline_computation(
    run_dag: Any, metrics: Metrics, objects: CapacityObjects, database: Any
) -> None:
    hours = [metrics.as_of(days) for days in (5, 3, 1)]
    for hour in hours:
        assert run_dag(DAG, at(hour)).state == "success"
    run = run_dag("capacity_accuracy", at(metrics.end))
    assert run.state == "success"
    scores = database(tables.scores)
    due = {(hours[0], 2), (hours[0], 4), (hours[1], 2)}  # the others have hours that are still to come
    assert {(row["as_of"], row["horizon_days"]) for row in scores} == due
    assert set(HORIZONS) == {2, 4}

    as_of = hours[0]
    start, end = as_of - timedelta(days=HISTORY_DAYS), as_of + timedelta(days=4)
    query = "avg by (service) (avg_over_time(fastvlm_cpu_usage_percent[1h]))"
    real = PrometheusHook().hourly(query, start, end)["vlm-api"].to_numpy()
    past, came = real[: HISTORY_DAYS * 24], real[HISTORY_DAYS * 24 :]
    forecast = partition_of(objects, as_of).table("hourly", service="vlm-api", metric="cpu").to_pandas()
    scale = np.mean(np.abs(past[168:] - past[:-168]))
    (row,) = [
        row
        for row in scores
        if (row["as_of"], row["service"], row["metric"], row["horizon_days"]) == (as_of, "vlm-api", "cpu", 4)
    ]
    mean, upper = forecast["mean"].to_numpy(float), forecast["q0.95"].to_numpy(float)
    loss = np.where(came >= upper, 0.95 * (came - upper), 0.05 * (upper - came))
    assert row["hours_scored"] == 96
    assert row["mase"] == pytest.approx(np.mean(np.abs(came - mean)) / scale, rel=1e-9)
    assert row["pinball95"] == pytest.approx(np.mean(loss) / scale, rel=1e-9)
    assert row["coverage95"] == pytest.approx(np.mean(came <= upper))
    assert math.isfinite(row["waste"])

    again = run_dag("capacity_accuracy", at(metrics.end))
    assert again.returned("score_forecasts")[0]["scored"] == 0
    assert database(tables.scores) == scores
    (result,) = run.returned("score_forecasts")
    assert {(one["metric"], one["horizon_days"]) for one in result["accuracy"]} == {
        (metric, days) for metric in ("cpu", "memory", "requests") for days in HORIZONS
    }
