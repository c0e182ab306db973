"""Gauges for Prometheus: the newest run of every model, device and compute unit, and what was said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import and_, func, select

from fastvlm_ops.core.coreml.storing import KEY
from fastvlm_ops.core.store.tables.coreml import runs, verdicts

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

METRICS_FILE = "fastvlm_coreml.prom"

_WHERE = ("device", "model", "compute_unit")
#: Name and text of a gauge, the columns that it shows by the value of its own label, and what they are
#: multiplied with to be in Prometheus' base units.
_GAUGES: tuple[tuple[str, str, str | None, dict[str, str], float], ...] = (
    (
        "latency_seconds",
        "Latency of a prediction, median over the sessions.",
        "quantile",
        {"latency_p50_ms": "0.5", "latency_p90_ms": "0.9", "latency_p99_ms": "0.99"},
        1e-3,
    ),
    (
        "load_seconds",
        "Time to load the model, median over the sessions.",
        "kind",
        {"load_cold_ms": "cold", "load_warm_ms": "warm"},
        1e-3,
    ),
    ("peak_memory_bytes", "Peak memory, median over the sessions.", None, {"peak_memory_bytes": ""}, 1),
    ("size_bytes", "Size of the package.", None, {"size_bytes": ""}, 1),
    ("parity_psnr_decibels", "Outputs against the golden ones.", None, {"psnr_db": ""}, 1),
    (
        "placement_cost_share",
        "Part of the model's cost that is planned for a unit.",
        "unit",
        {f"cost_share_{unit}": unit for unit in ("ane", "gpu", "cpu", "unknown")},
        1,
    ),
)


def newest_runs(store: Store) -> list[dict[str, Any]]:
    """Return the newest run of each model, device and compute unit, in order.

    :param store: the operations database
    """
    newest = select(*(runs.c[name] for name in _WHERE), func.max(runs.c.measured_at).label("newest"))
    newest_of = newest.group_by(*(runs.c[name] for name in _WHERE)).subquery()
    same = and_(*(runs.c[name] == newest_of.c[name] for name in _WHERE))
    query = select(runs).join(newest_of, and_(same, runs.c.measured_at == newest_of.c.newest))
    query = query.order_by(*(runs.c[name] for name in _WHERE), runs.c.run_key)
    with store.read() as connection:
        rows = connection.execute(query).mappings()
        # Two runs of one moment: the later key counts.
        return list({tuple(row[name] for name in _WHERE): dict(row) for row in rows}.values())


def write_gauges(store: Store, folder: Path) -> Path | None:
    """Write the gauges of the newest runs.

    :param store: the operations database
    :param folder: what the node exporter's ``--collector.textfile.directory`` names
    :returns: the file; None where nothing was ever measured
    :raises OSError: the folder cannot be written to
    """
    rows = newest_runs(store)
    if not rows:
        return None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CoreMLCollector(rows, _verdicts_of(store, rows)))
    path = folder / METRICS_FILE
    write_to_textfile(str(path), registry)
    return path


def _verdicts_of(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    keys = {tuple(row[name] for name in KEY) for row in rows}
    query = select(verdicts).where(verdicts.c.run_key.in_({row["run_key"] for row in rows}))
    with store.read() as connection:
        found = connection.execute(query.order_by(*verdicts.primary_key.columns)).mappings()
        return [dict(row) for row in found if tuple(row[name] for name in KEY) in keys]


class _CoreMLCollector(Collector):
    """What is unknown has no sample, since 0 would be a value."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._said = said

    def collect(self) -> Iterator[Metric]:
        labels = [*_WHERE, "version", "hardware_class"]
        for name, text, label, columns, scale in _GAUGES:
            names = [*labels, label] if label else labels
            family = GaugeMetricFamily(f"fastvlm_coreml_{name}", text, labels=names)
            for row in self._rows:
                where = [row[column] or "" for column in labels]
                for column, value in columns.items():
                    if row[column] is not None:
                        family.add_metric([*where, value] if label else where, row[column] * scale)
            yield family
        verdict = GaugeMetricFamily(
            "fastvlm_coreml_verdict",
            "1 for what was said of a metric of the newest run.",
            labels=[*_WHERE, "metric", "verdict"],
        )
        for one in self._said:
            verdict.add_metric([*(one[name] for name in _WHERE), one["metric"], one["verdict"]], 1)
        yield verdict
        moment = GaugeMetricFamily(
            "fastvlm_coreml_run_timestamp_seconds",
            "When the newest run began, in seconds since 1970.",
            labels=list(_WHERE),
        )
        for row in self._rows:
            moment.add_metric([row[name] for name in _WHERE], row["measured_at"].timestamp())
        yield moment
