"""Scores the forecasts whose hours have come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from fastvlm_ops.core.capacity.collecting import HOUR, MetricSource, matrix_of
from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import find_partition
from fastvlm_ops.core.capacity.scoring import Score, score, seasonal_scale
from fastvlm_ops.core.config.capacity import RESOURCES, Capacity, Resource
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.capacity import forecasts, scores
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    import pandas as pd

    from fastvlm_ops.core.store import Store

Floats = NDArray[np.float64]
_KEY = ("as_of", "service", "metric", "horizon_days")
#: Statuses of forecasts that can be scored.
USABLE = ("ok", "short", "stale")
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Due:
    """A forecast whose hours have come.

    :param as_of: its hour
    :param horizon_days: over which it is scored
    """

    as_of: datetime
    horizon_days: int


@dataclass(frozen=True)
class Actual:
    """What really happened, and before: series by hours.

    :param start: of the first hour, in UTC
    :param names: of the services, in order
    :param values: by resource: services by hours, NaN where there is no data
    """

    start: datetime
    names: Sequence[str]
    values: Mapping[Resource, Floats]

    def between(self, service: str, resource: Resource, start: datetime, end: datetime) -> Floats:
        """Return the hours of a series; NaN throughout where there is no such series."""
        hours = round((end - start) / HOUR)
        if service not in self.names:
            return np.full(hours, np.nan)
        first = round((start - self.start) / HOUR)
        return self.values[resource][self.names.index(service), first : first + hours]


def forecasts_due(store: Store, definitions: Capacity, *, at: datetime, again: bool = False) -> list[Due]:
    """Return the forecasts whose hours have come and that have no scores yet, oldest first.

    :param store: the operations database
    :param definitions: ``capacity.yaml``
    :param at: full hour, in UTC: what comes after it has not come yet
    :param again: also those that have scores, and are younger than ``keep_hourly_days``
    """
    with store.read() as connection:
        made = connection.execute(
            select(forecasts.c.as_of, forecasts.c.horizon_days)
            .where(forecasts.c.status.in_(USABLE), forecasts.c.as_of < at)
            .distinct()
        ).all()
        found = connection.execute(select(scores.c.as_of, scores.c.horizon_days).distinct())
        scored = {(row.as_of, row.horizon_days) for row in found}
    due = []
    kept = at - definitions.keep_hourly_days * _DAY
    for as_of, horizon_days in sorted(made):
        for days in definitions.accuracy.horizons_days:
            has_come = days <= horizon_days and as_of + days * _DAY <= at
            if has_come and ((again and as_of >= kept) or (as_of, days) not in scored):
                due.append(Due(as_of, days))
    return due


def read_actual(source: MetricSource, definitions: Capacity, start: datetime, end: datetime) -> Actual:
    """Read what really happened.

    :param source: of the metrics
    :param definitions: ``capacity.yaml``
    :param start: full hour, in UTC
    :param end: the hour after the last
    """
    frames = {name: source.hourly(metric.average, start, end) for name, metric in definitions.metrics.items()}
    names = sorted({str(name) for frame in frames.values() for name in frame.columns})
    hours = round((end - start) / HOUR)
    return Actual(
        start, names, {resource: matrix_of(frames[resource], names, start, hours) for resource in RESOURCES}
    )


def score_due(
    objects: CapacityObjects,
    store: Store,
    source: MetricSource,
    definitions: Capacity,
    due: Sequence[Due],
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score forecasts, and write a row for each series and horizon.

    :param objects: where the forecasts are
    :param store: the operations database
    :param source: of the metrics
    :param definitions: ``capacity.yaml``
    :param due: what to score
    :param progress: called with a line for each as-of hour
    :returns: small JSON: how many hours and series were scored, and which partitions are missing
    """
    if not due:
        return {"scored": 0, "series": 0, "missing": []}
    history = timedelta(days=definitions.history_days)
    start = min(one.as_of for one in due) - history
    end = max(one.as_of + one.horizon_days * _DAY for one in due)
    actual = read_actual(source, definitions, start, end)
    horizons: dict[datetime, list[int]] = defaultdict(list)
    for one in due:
        horizons[one.as_of].append(one.horizon_days)
    missing, series = [], 0
    for as_of, days in sorted(horizons.items()):
        partition = find_partition(objects, as_of)
        if partition is None:
            missing.append(as_of.isoformat())
            continue
        required = _required(store, as_of)
        frame = partition.table("hourly").to_pandas()
        rows = list(_score_hour(frame, required, actual, as_of, days, history))
        with store.write() as connection:
            moment = now(connection)
            upsert(connection, scores, [{**row, "scored_at": moment} for row in rows], key=_KEY)
        series += len(rows)
        progress(f"{as_of:%Y-%m-%d %H:%M} UTC: {len(rows)} scores over {', '.join(map(str, days))} days")
    return {"scored": len(due), "series": series, "missing": missing}


def _required(store: Store, as_of: datetime) -> dict[tuple[str, str], float | None]:
    columns = (forecasts.c.service, forecasts.c.metric, forecasts.c.required_risk)
    with store.read() as connection:
        found = connection.execute(select(*columns).where(forecasts.c.as_of == as_of))
        return {(service, metric): required for service, metric, required in found}


def _score_hour(
    frame: pd.DataFrame,
    required: Mapping[tuple[str, str], float | None],
    actual: Actual,
    as_of: datetime,
    horizons: Sequence[int],
    history: timedelta,
) -> Iterator[dict[str, Any]]:
    import pandas as pd

    for (service, metric), rows in frame.groupby(["service", "metric"], sort=True):
        hourly = rows.set_index("hour").drop(columns=["service", "metric"])
        scale = seasonal_scale(actual.between(service, metric, as_of - history, as_of))
        for days in horizons:
            part = hourly.iloc[: days * 24]
            values = actual.between(service, metric, as_of, as_of + days * _DAY)
            real = pd.Series(values, index=pd.DatetimeIndex(part.index))
            found = score(part, real, scale, required=required.get((service, metric)), resource=metric)
            yield {
                "as_of": as_of,
                "service": service,
                "metric": metric,
                "horizon_days": days,
                **_row(found),
            }


def _row(found: Score) -> dict[str, Any]:
    return {
        "mase": found.mase,
        "pinball95": found.pinball95,
        "coverage95": found.coverage95,
        "shortfall": found.shortfall,
        "waste": found.waste,
        "hours_scored": found.hours_scored,
    }
