"""Bounds that learn from scored forecasts: one calibration for each run of capacity_accuracy that scored any.

A forecast takes the newest calibration from before its as-of hour. Those come from samples before that hour,
and backfilling forecasts makes none: so a forecast made again is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from fastvlm_ops.core.capacity.accuracy import Actual, read_actual
from fastvlm_ops.core.capacity.calibration import Calibration
from fastvlm_ops.core.capacity.collecting import MetricSource
from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import Partition, find_partition
from fastvlm_ops.core.config.capacity import Capacity
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from fastvlm_ops.core.store.tables.capacity import forecasts

Floats = NDArray[np.float64]
_FOLDER = "calibrations/"
_SERVICES = 100  # are enough: more would take time, and teach nothing
_DAY = timedelta(days=1)


def newest_calibration(objects: CapacityObjects, before: datetime) -> str | None:
    """Return the name of the newest calibration from before an hour; None where there is none.

    :param objects: where it would be
    :param before: full hour, in UTC
    """
    names = [name for name, _ in objects.names(_FOLDER) if name < _name(before)]
    return max(names, default=None)


def load_calibration(objects: CapacityObjects, name: str | None) -> Calibration | None:
    """Return a calibration.

    :param objects: where it is
    :param name: of :func:`newest_calibration`
    :raises ArtefactDamagedError: it is not there, or is none
    """
    if name is None:
        return None
    data = objects.get(name, remedy="clear the task collect_history of this run")
    try:
        return Calibration.from_json(data.decode())
    except ValueError as error:
        raise ArtefactDamagedError(
            f"{objects.uri(name)}: {error}. Remove it, and clear the task collect_history of this run"
        ) from None


def learn_calibration(
    objects: CapacityObjects,
    store: Store,
    source: MetricSource,
    definitions: Capacity,
    *,
    at: datetime,
) -> Calibration | None:
    """Learn from the last forecasts whose hours have all come, and keep what was learnt.

    :param objects: where the forecasts are, and the calibration goes
    :param store: the operations database
    :param source: of the metrics
    :param definitions: ``capacity.yaml``
    :param at: full hour, in UTC: what comes after it has not come yet
    :returns: None where too few forecasts have matured
    """
    days = definitions.accuracy.horizons_days[-1]
    query = select(forecasts.c.as_of).where(
        forecasts.c.as_of <= at - days * _DAY, forecasts.c.horizon_days >= days
    )
    with store.read() as connection:
        matured = sorted(connection.execute(query.distinct()).scalars())[-definitions.accuracy.runs :]
    found = (find_partition(objects, as_of) for as_of in matured)
    partitions = [one for one in found if one is not None and one.has("hourly")]
    if len(partitions) < definitions.accuracy.fewest:
        return None
    actual = read_actual(source, definitions, matured[0], matured[-1] + days * _DAY)
    parts = [_entries(partition, actual, days) for partition in partitions]
    leads = np.concatenate([part[0] for part in parts])
    real, median, upper = (np.concatenate([part[number] for part in parts]) for number in (1, 2, 3))
    learnt = Calibration.learn(leads, real, median, upper)
    objects.put(_name(at), learnt.to_json().encode(), content_type="application/json")
    return learnt


def _entries(
    partition: Partition, actual: Actual, days: int
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Leads, what was measured, median and upper bound as it would have been without a calibration."""
    services = set(_some(actual.names))
    frame = partition.table("hourly").to_pandas()
    hours = days * 24
    used = partition.calibration
    factors = np.array([used.factor(lead) for lead in range(1, hours + 1)])
    leads, real, medians, uppers = [], [], [], []
    for (service, metric), rows in frame.groupby(["service", "metric"], sort=True):
        if service not in services:
            continue
        median = rows["q0.5"].to_numpy(np.float64)[:hours]
        upper = rows["q0.95"].to_numpy(np.float64)[:hours]
        leads.append(np.arange(1, hours + 1))
        real.append(actual.between(service, metric, partition.as_of, partition.as_of + days * _DAY))
        medians.append(median)
        uppers.append(median + (upper - median) / factors)
    if not leads:
        return np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)
    return np.concatenate(leads), np.concatenate(real), np.concatenate(medians), np.concatenate(uppers)


def _some(names: Sequence[str]) -> list[str]:
    """The same services each time, whatever others there are."""
    return sorted(names, key=lambda name: hashlib.blake2b(name.encode()).digest())[:_SERVICES]


def _name(at: datetime) -> str:
    return f"{_FOLDER}at={at:%Y-%m-%dT%HZ}.json"
