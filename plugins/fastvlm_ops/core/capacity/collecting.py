"""Reads the history of all services, and lays it down for the tasks that forecast."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.objects import CapacityObjects, run_folder
from fastvlm_ops.core.capacity.partitions import decode, encode, numbers, table_of, texts, words
from fastvlm_ops.core.config.capacity import RESOURCES, Capacity, Resource

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
HOUR = timedelta(hours=1)
_CLEAR = "clear the task collect_history of this run"


class MetricSource(Protocol):
    """Where history comes from: Prometheus, through its hook."""

    def hourly(
        self, query: str, start: datetime, end: datetime, *, label: str = "service"
    ) -> pd.DataFrame: ...


@dataclass(frozen=True)
class Service:
    """What is known of a service at the as-of hour.

    :param name: of the service
    :param replicas: that run; None where it is not known
    :param capacity: that there is, by resource; None where it is not known
    """

    name: str
    replicas: int | None
    capacity: Mapping[Resource, float | None]


@dataclass(frozen=True)
class History:
    """The hours before an as-of hour, of all series.

    :param as_of: the end of the last hour, in UTC
    :param services: in the order of their names
    :param average: by resource: services by hours, NaN where there is no data
    :param peak: likewise
    """

    as_of: datetime
    services: Sequence[Service]
    average: Mapping[Resource, Floats]
    peak: Mapping[Resource, Floats]
    warnings: Sequence[str] = field(default=())

    @property
    def hours(self) -> int:
        """How many there are."""
        return int(self.average[RESOURCES[0]].shape[1])


def shard_of(service: str, shards: int) -> int:
    """Return the shard of a service, the same on every machine and in every run with so many shards.

    :param service: its name
    :param shards: how many there are
    """
    digest = hashlib.blake2b(service.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def shard_count(services: int, definitions: Capacity) -> int:
    """Return how many shards so many services make; at least one.

    :param services: how many there are
    :param definitions: ``capacity.yaml``
    """
    return max(1, math.ceil(services * len(RESOURCES) / definitions.series_per_shard))


def read_history(source: MetricSource, definitions: Capacity, as_of: datetime) -> History:
    """Read the history of all services that have any, and what there is of each resource.

    :param source: of the metrics
    :param definitions: ``capacity.yaml``
    :param as_of: full hour, in UTC; nothing from after it is read
    :raises Exception: the source's own, before anything is written
    """
    start = as_of - timedelta(days=definitions.history_days)
    averages, peaks, capacities = {}, {}, {}
    for name, metric in definitions.metrics.items():
        averages[name] = source.hourly(metric.average, start, as_of)
        peaks[name] = averages[name] if metric.peak is None else source.hourly(metric.peak, start, as_of)
        capacities[name] = (
            _newest(source, metric.capacity, as_of) if isinstance(metric.capacity, str) else metric.capacity
        )
    query = definitions.replicas.query
    replicas = {} if query is None else _newest(source, query, as_of)
    names = sorted({str(name) for frame in averages.values() for name in frame.columns})
    services = [
        Service(
            name,
            _whole(replicas.get(name)),
            {resource: _capacity(capacities[resource], name) for resource in RESOURCES},
        )
        for name in names
    ]
    hours = round((as_of - start) / HOUR)
    return History(
        as_of,
        services,
        {resource: matrix_of(averages[resource], names, start, hours) for resource in RESOURCES},
        {resource: matrix_of(peaks[resource], names, start, hours) for resource in RESOURCES},
    )


def store_history(
    objects: CapacityObjects, history: History, run_key: str, definitions: Capacity
) -> dict[str, Any]:
    """Lay a history down for the tasks that forecast, one object a shard.

    :param objects: where to
    :param history: of all services
    :param run_key: of the run
    :param definitions: ``capacity.yaml``
    :returns: small JSON: where it is, the shards, how many series and services
    """
    folder, count = run_folder(run_key), shard_count(len(history.services), definitions)
    for shard in range(count):
        chosen = [n for n, one in enumerate(history.services) if shard_of(one.name, count) == shard]
        facts = [_facts(history.services[n]) for n in chosen]
        objects.put(
            _services_name(folder, shard), json.dumps(facts).encode(), content_type="application/json"
        )
        objects.put(_history_name(folder, shard), encode("history", _table(history, chosen)))
    with_data = sum(int(np.isfinite(history.average[resource]).any(axis=1).sum()) for resource in RESOURCES)
    return {
        "uri": objects.uri(folder),
        "as_of": history.as_of.isoformat(),
        "shards": list(range(count)),
        "services": len(history.services),
        "series": len(history.services) * len(RESOURCES),
        "series_with_data": with_data,
    }


def load_history(
    objects: CapacityObjects, run_key: str, shard: int, *, as_of: datetime, definitions: Capacity
) -> History:
    """Return the history of one shard's services.

    :param objects: where it is
    :param run_key: of the run
    :param shard: its number
    :param as_of: as it was read for
    :param definitions: ``capacity.yaml``
    :raises ArtefactDamagedError: it is not there
    """
    folder = run_folder(run_key)
    facts = json.loads(objects.get(_services_name(folder, shard), remedy=_CLEAR))
    services = [Service(one["name"], one["replicas"], one["capacity"]) for one in facts]
    table = decode("history", objects.get(_history_name(folder, shard), remedy=_CLEAR))
    hours = definitions.history_days * 24
    start = int((as_of - timedelta(hours=hours)).timestamp() * 1000)
    rows = {one.name: number for number, one in enumerate(services)}
    shape = (len(services), hours)
    average = {resource: np.full(shape, np.nan) for resource in RESOURCES}
    peak = {resource: np.full(shape, np.nan) for resource in RESOURCES}
    if table.num_rows:
        names, places = words(table, "service")
        row = np.array([rows[name] for name in names])[places]
        column = (numbers(table, "hour") - start) // 3_600_000
        metrics, metric = words(table, "metric")
        for resource in RESOURCES:
            of = metric == (metrics.index(resource) if resource in metrics else -1)
            average[resource][row[of], column[of]] = numbers(table, "average")[of]
            peak[resource][row[of], column[of]] = numbers(table, "peak")[of]
    return History(as_of, services, average, peak)


def _facts(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "replicas": service.replicas,
        "capacity": {resource: service.capacity[resource] for resource in RESOURCES},
    }


def _services_name(folder: str, shard: int) -> str:
    return f"{folder}services-{shard:04d}.json"


def _history_name(folder: str, shard: int) -> str:
    return f"{folder}history-{shard:04d}.parquet"


def _table(history: History, chosen: Sequence[int]) -> Any:
    """One row for each hour of which something is known."""
    end = int(history.as_of.timestamp() * 1000)
    hours = end - 3_600_000 * np.arange(history.hours, 0, -1)
    columns: dict[str, list[Any]] = {name: [] for name in ("hour", "average", "peak")}
    counts = []
    for number in chosen:
        for resource in RESOURCES:
            average, peak = history.average[resource][number], history.peak[resource][number]
            known = np.isfinite(average) | np.isfinite(peak)
            counts.append(int(known.sum()))
            columns["hour"].append(hours[known])
            columns["average"].append(average[known])
            columns["peak"].append(peak[known])
    for name in ("hour", "average", "peak"):
        columns[name] = np.concatenate(columns[name]) if columns[name] else np.empty(0)  # type: ignore[assignment]
    columns["hour"] = np.asarray(columns["hour"], dtype="datetime64[ms]")  # type: ignore[assignment]
    series = np.repeat(np.arange(len(counts)), counts)
    names = [history.services[number].name for number in chosen]
    found = {
        "service": texts(names, series // len(RESOURCES)),
        "metric": texts(RESOURCES, series % len(RESOURCES)),
    }
    return table_of("history", {**found, **columns})


def matrix_of(frame: pd.DataFrame, names: Sequence[str], start: datetime, hours: int) -> Floats:
    """Return services by hours. What is not a number is no data; of an hour given twice, the last counts.

    :param frame: hours by services
    :param names: of the services, in the order of the rows
    :param start: of the first hour, in UTC
    :param hours: how many
    """
    import pandas as pd

    matrix = np.full((len(names), hours), np.nan)
    if frame.empty:
        return matrix
    index = pd.DatetimeIndex(frame.index)
    index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    places = np.asarray((index - pd.Timestamp(start)) // pd.Timedelta(hours=1), dtype=np.int64)
    inside = (places >= 0) & (places < hours)
    for number, name in enumerate(names):
        if name in frame.columns:
            values = np.asarray(frame[name], dtype=np.float64)
            matrix[number, places[inside]] = values[inside]
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def _newest(source: MetricSource, query: str, as_of: datetime) -> dict[str, float]:
    """The values of the last hour, by service: a sample of the as-of moment itself would be one too late."""
    frame = source.hourly(query, as_of - HOUR, as_of)
    return {str(name): float(frame[name].iloc[-1]) for name in frame.columns}


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)


def _capacity(found: Mapping[str, float] | float | None, name: str) -> float | None:
    value = found.get(name) if isinstance(found, Mapping) else found
    return None if value is None or not math.isfinite(value) or value <= 0 else float(value)
