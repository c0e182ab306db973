"""Metrics of the drills, from their rows, as a text file for Prometheus's node exporter.

Those of the faults are written by the reaper, on the worker where they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fastvlm_ops.core.store import Store

METRICS_FILE = "fastvlm_drills.prom"

_FIGURES = {
    "rto_seconds": "RTO of the newest drill.",
    "rto_objective_seconds": "Objective of the RTO of the newest drill.",
    "rpo_seconds": "RPO of the newest drill.",
    "rpo_objective_seconds": "Objective of the RPO of the newest drill.",
    "detection_seconds": "From the fault to the first request that was known to have failed.",
    "lost_writes": "Acknowledged writes that the newest drill has lost.",
}


class _DrillCollector(Collector):
    """Reads the rows once. What is unknown has no sample, since 0 would be a value."""

    def __init__(self, store: Store, ages: Mapping[str, timedelta]) -> None:
        self._store = store
        self._ages = ages

    def collect(self) -> Iterator[Metric]:
        newest, passed = self._read()
        yield _family(
            "last_timestamp_seconds",
            "When the newest drill with a verdict was planned, in seconds since 1970.",
            {scenario: row["planned_at"].timestamp() for scenario, row in newest.items()},
        )
        yield _family(
            "last_passed_timestamp_seconds",
            "When the newest drill that passed was planned, in seconds since 1970.",
            {scenario: row["planned_at"].timestamp() for scenario, row in passed.items()},
        )
        verdicts = GaugeMetricFamily(
            "fastvlm_drill_verdict", "1 for the verdict of the newest drill.", labels=["scenario", "verdict"]
        )
        for scenario, row in newest.items():
            verdicts.add_metric([scenario, row["verdict"]], 1)
        yield verdicts
        for name, text in _FIGURES.items():
            yield _family(name, text, {scenario: row[name] for scenario, row in newest.items()})
        yield _family(
            "allowed_age_seconds",
            "How old the newest drill may be, by the schedule of the scenario.",
            {scenario: age.total_seconds() for scenario, age in self._ages.items()},
        )
        written = GaugeMetricFamily(
            "fastvlm_drill_written_timestamp_seconds", "When this file was written, in seconds since 1970."
        )
        written.add_metric([], time.time())
        yield written

    def _read(self) -> tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]]]:
        """The newest drill of each scenario that was no dry run, and the newest that passed."""
        with self._store.read() as connection:
            return _newest(connection), _newest(connection, "PASS")


def _newest(connection: Connection, verdict: str = "") -> dict[str, Mapping[str, Any]]:
    from sqlalchemy import and_, func, select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    said = drills.c.verdict == verdict if verdict else drills.c.verdict.is_not(None)
    real = and_(said, drills.c.dry_run.is_(False))
    last = (
        select(drills.c.scenario, func.max(drills.c.planned_at).label("planned_at"))
        .where(real)
        .group_by(drills.c.scenario)
        .subquery()
    )
    columns = [drills.c[name] for name in ("scenario", "planned_at", "verdict", *_FIGURES)]
    same = and_(drills.c.scenario == last.c.scenario, drills.c.planned_at == last.c.planned_at)
    rows = connection.execute(select(*columns).join(last, same).where(real).order_by(drills.c.run_key))
    return {row["scenario"]: dict(row) for row in rows.mappings()}


def _family(name: str, text: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(f"fastvlm_drill_{name}", text, labels=["scenario"])
    for scenario, value in sorted(values.items()):
        if value is not None:
            family.add_metric([scenario], value)
    return family


def write_metrics(store: Store, ages: Mapping[str, timedelta], folder: Path) -> Path:
    """Write all metrics, under a temporary name that then gets the right one: a reader sees no half file.

    :param store: the operations database
    :param ages: how old the newest drill may be, by scenario; of ``reporting.overdue``
    :param folder: what the node exporter's ``--collector.textfile.directory`` names
    :returns: the file
    :raises OSError: the folder cannot be written to.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_DrillCollector(store, ages))
    path = folder / METRICS_FILE
    write_to_textfile(str(path), registry)
    return path
