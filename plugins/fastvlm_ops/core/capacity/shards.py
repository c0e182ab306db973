"""Forecasts the services of one shard, and says what each of their resources needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.calibration import Calibration
from fastvlm_ops.core.capacity.collecting import HOUR, History, load_history
from fastvlm_ops.core.capacity.forecasting import SeriesForecast, forecast_many
from fastvlm_ops.core.capacity.levels import LEVELS, column
from fastvlm_ops.core.capacity.objects import CapacityObjects, run_folder
from fastvlm_ops.core.capacity.partitions import (
    HOURLY_LEVELS,
    decode,
    encode,
    join,
    table_of,
    texts,
)
from fastvlm_ops.core.capacity.required import Required, required_capacity
from fastvlm_ops.core.config.capacity import RESOURCES, Capacity, Resource

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
_DAY = 24
_CLEAR = "clear the task forecast_capacity of this run"
KINDS = ("series", "daily", "hourly", "daily_history")


@dataclass(frozen=True)
class _Series:
    """One resource of one service, with what was found out about it."""

    service: str
    resource: Resource
    replicas: int | None
    capacity: float | None
    forecast: SeriesForecast
    required: Required

    @property
    def has_numbers(self) -> bool:
        return bool(np.isfinite(self.forecast.mean).all())


def forecast_shard(
    objects: CapacityObjects,
    definitions: Capacity,
    *,
    run_key: str,
    shard: int,
    as_of: datetime,
    horizon_days: int,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Forecast one shard and lay the result down for who publishes it.

    :param objects: where its history is, and the result goes
    :param definitions: ``capacity.yaml``
    :param run_key: of the run
    :param shard: its number
    :param as_of: full hour, in UTC: the first that is forecast
    :param horizon_days: that are forecast
    :param calibration: of the bounds; None for none
    :returns: small JSON: where it is, and how many series there are of each status
    :raises ArtefactDamagedError: its history is not there
    """
    history = load_history(objects, run_key, shard, as_of=as_of, definitions=definitions)
    tables = forecast_history(history, definitions, horizon_days=horizon_days, calibration=calibration)
    for kind in KINDS:
        objects.put(_part_name(run_key, shard, kind), encode(kind, tables[kind]))
    statuses = Counter(tables["series"]["status"].to_pylist())
    return {
        "uri": objects.uri(run_folder(run_key)),
        "shard": shard,
        "series": tables["series"].num_rows,
        "statuses": dict(sorted(statuses.items())),
    }


def load_parts(objects: CapacityObjects, run_key: str, shards: Sequence[int], kind: str) -> pa.Table:
    """Return what all shards of a run have laid down.

    :param objects: where it is
    :param run_key: of the run
    :param shards: their numbers
    :param kind: of the table, one of ``KINDS``
    :raises ArtefactDamagedError: that of a shard is not there
    """
    found = (objects.get(_part_name(run_key, shard, kind), remedy=_CLEAR) for shard in shards)
    return join(kind, [decode(kind, data) for data in found])


def forecast_history(
    history: History,
    definitions: Capacity,
    *,
    horizon_days: int,
    calibration: Calibration | None = None,
) -> dict[str, pa.Table]:
    """Forecast all series of a history.

    :param history: of some services
    :param definitions: ``capacity.yaml``
    :param horizon_days: that are forecast
    :param calibration: of the bounds; None for none
    :returns: a table of each of ``KINDS``
    """
    rows = np.concatenate([history.average[resource] for resource in RESOURCES])
    forecasts = forecast_many(rows, horizon_days * _DAY, calibration=calibration)
    count = len(history.services)
    series = []
    for number, service in enumerate(history.services):
        for place, resource in enumerate(RESOURCES):
            found = forecasts[place * count + number]
            capacity = service.capacity[resource]
            need = required_capacity(
                history.average[resource][number],
                found,
                resource,
                chance_of_shortfall=definitions.chance_of_shortfall,
                capacity=capacity,
                as_of=history.as_of,
                price_per_unit_month=getattr(definitions.prices, resource),
            )
            series.append(_Series(service.name, resource, service.replicas, capacity, found, need))
    return {
        "series": _series_table(series),
        "daily": _daily_table(series, history.as_of, horizon_days),
        "hourly": _hourly_table(series, history.as_of, horizon_days * _DAY),
        "daily_history": _history_table(history),
    }


def _series_table(series: Sequence[_Series]) -> pa.Table:
    columns: dict[str, Any] = {
        "service": [one.service for one in series],
        "metric": [one.resource for one in series],
        "status": [one.forecast.status for one in series],
        "reason": [one.forecast.reason for one in series],
        "model": [one.forecast.model for one in series],
        "notes": ["; ".join(one.forecast.notes) for one in series],
        "replicas": [one.replicas for one in series],
        "capacity": _numbers(one.capacity for one in series),
        "exhaustion_date": [
            None if one.required.exhaustion_date is None else one.required.exhaustion_date.isoformat()
            for one in series
        ],
        "trend_per_day": _numbers(one.forecast.trend_per_day if one.has_numbers else None for one in series),
        "history_days": _numbers(one.forecast.history_days for one in series),
    }
    for name in (
        "current_usage",
        "forecasted_peak",
        "required_seed",
        "required_risk",
        "exhaustion_probability",
        "monthly_cost",
    ):
        columns[name] = _numbers(getattr(one.required, name) for one in series)
    for number, level in enumerate(LEVELS):
        columns[f"peak_{column(level)}"] = _numbers(one.forecast.peak[number] for one in series)
        columns[f"max_{column(level)}"] = _numbers(one.forecast.maximum[number] for one in series)
    return table_of("series", columns)


def _daily_table(series: Sequence[_Series], as_of: datetime, days: int) -> pa.Table:
    """By day: the mean of its hours, and its highest hour by the mean and at each level."""
    known = [one for one in series if one.has_numbers]
    starts = _times(as_of, days, timedelta(days=1))
    mean = _stacked((one.forecast.mean for one in known), days)
    columns: dict[str, Any] = _names(known, days)
    columns |= {
        "as_of": np.repeat(_times(as_of, 1, HOUR), len(known) * days),
        "day": np.tile(starts, len(known)),
        "mean": mean.mean(axis=2).ravel(),
        "max": mean.max(axis=2, initial=-np.inf).ravel(),
    }
    for level in HOURLY_LEVELS:
        values = _stacked((one.forecast.quantiles[LEVELS.index(level)] for one in known), days)
        columns[column(level)] = values.max(axis=2, initial=-np.inf).ravel()
    return table_of("daily", columns)


def _hourly_table(series: Sequence[_Series], as_of: datetime, hours: int) -> pa.Table:
    known = [one for one in series if one.has_numbers]
    columns: dict[str, Any] = _names(known, hours)
    columns["hour"] = np.tile(_times(as_of, hours, HOUR), len(known))
    columns["mean"] = _flat(one.forecast.mean for one in known)
    for level in HOURLY_LEVELS:
        columns[column(level)] = _flat(one.forecast.quantiles[LEVELS.index(level)] for one in known)
    return table_of("hourly", columns)


def _history_table(history: History) -> pa.Table:
    """By day before the as-of hour; days without data are left out."""
    days = history.hours // _DAY
    starts = _times(history.as_of - timedelta(days=days), days, timedelta(days=1))
    columns: dict[str, list[Any]] = {name: [] for name in ("service", "metric", "day", "mean", "p95", "max")}
    for resource in RESOURCES:
        average = history.average[resource][:, -days * _DAY :].reshape(-1, days, _DAY)
        peak = history.peak[resource][:, -days * _DAY :].reshape(-1, days, _DAY)
        known = np.isfinite(average).any(axis=2)
        row, day = np.nonzero(known)
        columns["service"] += [history.services[int(number)].name for number in row]
        columns["metric"] += [resource] * len(row)
        columns["day"].append(starts[day])
        values = np.sort(average[known], axis=1)  # NaN comes last
        counts = np.isfinite(values).sum(axis=1)
        columns["mean"].append(np.nansum(values, axis=1) / counts)
        # The value that 95 % of the hours do not exceed.
        columns["p95"].append(values[np.arange(len(values)), np.ceil(0.95 * counts).astype(int) - 1])
        highest = np.where(np.isfinite(peak[known]), peak[known], -np.inf).max(axis=1, initial=-np.inf)
        columns["max"].append(np.maximum(highest, values[np.arange(len(values)), counts - 1]))
    joined: dict[str, Any] = {name: columns[name] for name in ("service", "metric")}
    joined |= {name: np.concatenate(columns[name]) for name in ("day", "mean", "p95", "max")}
    return table_of("daily_history", joined)


def _names(series: Sequence[_Series], times: int) -> dict[str, Any]:
    places = np.repeat(np.arange(len(series)), times)
    return {
        "service": texts([one.service for one in series], places),
        "metric": texts([one.resource for one in series], places),
    }


def _times(start: datetime, count: int, step: timedelta) -> NDArray[np.datetime64]:
    first = int(start.timestamp() * 1000)
    return np.asarray(first + np.arange(count) * (step // timedelta(milliseconds=1)), dtype="datetime64[ms]")


def _numbers(values: Iterator[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _flat(values: Iterator[Floats]) -> Floats:
    found = list(values)
    return np.concatenate(found) if found else np.empty(0)


def _stacked(values: Iterator[Floats], days: int) -> Floats:
    """Series by days by hours."""
    return _flat(values).reshape(-1, days, _DAY)


def _part_name(run_key: str, shard: int, kind: str) -> str:
    return f"{run_folder(run_key)}{kind}-{shard:04d}.parquet"
