"""What is told of an as-of hour: the kit's own JSON, and gauges for Prometheus."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from fastvlm_ops.core.capacity.advice import needs_of, read_recommendations
from fastvlm_ops.core.capacity.objects import CapacityObjects, partition_folder
from fastvlm_ops.core.capacity.required import requirements
from fastvlm_ops.core.capacity.rules import Recommendation
from fastvlm_ops.core.store.tables.capacity import forecasts

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

METRICS_FILE = "fastvlm_capacity.prom"

_OF_SERIES = {
    "required": "Capacity that the forecast needs, in the unit of the resource.",
    "available": "Capacity that there is, in the unit of the resource.",
    "forecasted_peak": "Peak of the forecast, in the unit of the resource.",
    "exhaustion_probability": "Chance of reaching the capacity within the horizon.",
}


def store_report(
    objects: CapacityObjects, store: Store, *, as_of: datetime, include_hash: str
) -> dict[str, Any]:
    """Write the report of an as-of hour, in place of an earlier one.

    :param objects: where it goes: ``report.json``, beside the partition
    :param store: the operations database
    :param as_of: full hour, in UTC
    :param include_hash: of the definition files
    :returns: small JSON: where it is, and how many services there are of each action
    """
    rows, advice = read_hour(store, as_of)
    report = report_of(rows, advice, as_of=as_of, include_hash=include_hash)
    data = json.dumps(report, indent=1, sort_keys=True, allow_nan=False).encode()
    name = f"{partition_folder(as_of)}report.json"
    uri = objects.put(name, data, content_type="application/json")
    actions = dict(sorted(Counter(one.action for one in advice).items()))
    return {"uri": uri, "as_of": as_of.isoformat(), "services": len(report["services"]), "actions": actions}


def read_hour(store: Store, as_of: datetime) -> tuple[list[dict[str, Any]], list[Recommendation]]:
    """Return the forecast rows and recommendations of an as-of hour.

    :param store: the operations database
    :param as_of: full hour
    """
    query = select(forecasts).where(forecasts.c.as_of == as_of)
    with store.read() as connection:
        rows = connection.execute(query.order_by(forecasts.c.service, forecasts.c.metric)).mappings()
        return [dict(row) for row in rows], read_recommendations(connection, as_of)


def report_of(
    rows: Sequence[Mapping[str, Any]],
    advice: Sequence[Recommendation],
    *,
    as_of: datetime,
    include_hash: str,
) -> dict[str, Any]:
    """Return the report: for each service the kit's own shape of a forecast, and what more is known.

    :param rows: of ``capacity_forecast``
    :param advice: of the same hour
    :param as_of: full hour, in UTC
    :param include_hash: of the definition files
    """
    said: dict[str, list[Recommendation]] = defaultdict(list)
    for one in advice:
        said[one.service].append(one)
    details: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        details[row["service"]][row["metric"]] = _detail(row)
    services = {}
    for service, needs in sorted(needs_of(rows).items()):
        days = next(row["horizon_days"] for row in rows if row["service"] == service)
        found: Any = needs
        shape = requirements(found, horizon_days=days, recommendations=tuple(said[service]))
        services[service] = {**shape, "details": details[service]}
    return {"as_of": as_of.isoformat(), "include_hash": include_hash, "services": services}


def _detail(row: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "status",
        "reason",
        "model",
        "required_seed",
        "required_risk",
        "capacity",
        "exhaustion_probability",
        "monthly_cost",
        "trend_per_day",
        "history_days",
    )
    day = row["exhaustion_date"]
    return {
        **{name: row[name] for name in names},
        "exhaustion_date": None if day is None else day.isoformat(),
    }


def newest_hour(store: Store) -> datetime | None:
    """Return the newest as-of hour that there are forecasts of.

    :param store: the operations database
    """
    with store.read() as connection:
        newest: datetime | None = connection.execute(select(func.max(forecasts.c.as_of))).scalar_one()
    return newest


class _CapacityCollector(Collector):
    """One as-of hour. What is unknown has no sample, since 0 would be a value."""

    def __init__(
        self, as_of: datetime, rows: Sequence[Mapping[str, Any]], advice: Sequence[Recommendation]
    ) -> None:
        self._as_of = as_of
        self._rows = rows
        self._advice = advice

    def collect(self) -> Iterator[Metric]:
        labels = {"required": ["service", "resource", "rule"]}
        families = {
            name: GaugeMetricFamily(
                f"fastvlm_capacity_{name}", text, labels=labels.get(name, ["service", "resource"])
            )
            for name, text in _OF_SERIES.items()
        }
        for row in self._rows:
            where = [row["service"], row["metric"]]
            for rule in ("seed", "risk"):
                _add(families["required"], [*where, rule], row[f"required_{rule}"])
            _add(families["available"], where, row["capacity"])
            _add(families["forecasted_peak"], where, row["forecasted_peak"])
            _add(families["exhaustion_probability"], where, row["exhaustion_probability"])
        yield from families.values()
        wanted = GaugeMetricFamily(
            "fastvlm_capacity_replicas_wanted",
            "Replicas that a service should have; those it has, until a change is approved.",
            labels=["service"],
        )
        for one in self._advice:
            approved = one.applied_state == "approved"
            _add(wanted, [one.service], one.replicas_wanted if approved else one.replicas_now)
        yield wanted
        moment = GaugeMetricFamily(
            "fastvlm_capacity_forecast_timestamp_seconds",
            "What hour the newest forecast is of, in seconds since 1970.",
        )
        moment.add_metric([], self._as_of.timestamp())
        yield moment


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def write_gauges(store: Store, folder: Path) -> Path | None:
    """Write the gauges of the newest as-of hour: a backfill of old ones changes nothing.

    :param store: the operations database
    :param folder: what the node exporter's ``--collector.textfile.directory`` names
    :returns: the file; None where there is no forecast yet
    :raises OSError: the folder cannot be written to
    """
    as_of = newest_hour(store)
    if as_of is None:
        return None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CapacityCollector(as_of, *read_hour(store, as_of)))
    path = folder / METRICS_FILE
    write_to_textfile(str(path), registry)
    return path
