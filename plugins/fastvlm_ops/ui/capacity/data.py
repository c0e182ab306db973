"""What the pages of capacity show: rows of the operations database, and a forecast's days out of S3."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.config.capacity import RESOURCES
from fastvlm_ops.ui import addresses

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

OFFERED_HOURS = 60
SCORED_HOURS = 120
SHOWN_SCORES = 14
UNITS: Mapping[str, str] = {"cpu": "%", "memory": "%", "requests": "/s"}
TITLES: Mapping[str, str] = {"cpu": "CPU", "memory": "Memory", "requests": "Requests"}
_URGENCY = {"scale_up": 0, "stale": 2, "insufficient_data": 3, "scale_down": 4, "none": 5}
_CAPPED, _EXHAUSTED, _LIKELY = -1, 1, 0.5


@dataclass(frozen=True)
class Need:
    """One resource of one service, as a row of ``capacity_forecast`` has it."""

    row: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.row[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def unit(self) -> str:
        return UNITS.get(self.row["metric"], "")

    @property
    def of_capacity(self) -> float | None:
        """What is required, as a share of what there is; None where either is unknown."""
        need, there_is = self.row["required_risk"], self.row["capacity"]
        return None if need is None or not there_is else need / there_is

    @property
    def is_short(self) -> bool | None:
        """Whether more is required than there is; None where that is unknown."""
        return None if self.of_capacity is None else self.of_capacity > 1


@dataclass(frozen=True)
class ServiceNeeds:
    """A service on the list.

    :param needs: by resource; one that is missing has no row
    :param advice: the row of ``capacity_recommendation``; None where there is none
    """

    service: str
    needs: Mapping[str, Need]
    advice: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        """The service as part of an address."""
        return addresses.encode(self.service.encode())

    @property
    def exhaustion_date(self) -> date | None:
        """The first of its resources'."""
        days = [need.exhaustion_date for need in self.needs.values() if need.exhaustion_date is not None]
        return min(days, default=None)

    @property
    def exhaustion_probability(self) -> float | None:
        """The greatest of its resources'."""
        known = [need.exhaustion_probability for need in self.needs.values()]
        return max((one for one in known if one is not None), default=None)

    @property
    def monthly_cost(self) -> float | None:
        """Of all resources; unknown as soon as that of one is."""
        costs = [need.monthly_cost for need in self.needs.values()]
        return None if not costs or None in costs else sum(costs)

    @property
    def urgency(self) -> tuple[float, str]:
        """What comes first on the list."""
        action = self.advice["action"] if self.advice else "insufficient_data"
        rank = _URGENCY.get(action, len(_URGENCY))
        if self.advice and self.advice["capped"]:
            rank = _CAPPED
        elif (self.exhaustion_probability or 0.0) >= _LIKELY:
            rank = min(rank, _EXHAUSTED)
        return rank, self.service


@dataclass(frozen=True)
class Overview:
    """The list of services.

    :param as_of: that is shown; None where there is no forecast at all
    :param hours: that can be chosen, newest first
    :param services: most urgent first
    """

    as_of: datetime | None
    hours: list[datetime]
    services: list[ServiceNeeds]

    def count(self, action: str) -> int:
        """How many services have this action."""
        return sum(one.advice is not None and one.advice["action"] == action for one in self.services)

    @property
    def capped(self) -> int:
        """How many need more than they may have."""
        return sum(one.advice is not None and one.advice["capped"] for one in self.services)

    @property
    def exhausting(self) -> int:
        """How many will rather than not have used up a capacity within the horizon."""
        return sum((one.exhaustion_probability or 0.0) >= _LIKELY for one in self.services)

    @property
    def unknown(self) -> int:
        """How many services have a resource of which nothing is known."""
        return sum(
            any(
                resource not in one.needs or one.needs[resource].required_risk is None
                for resource in RESOURCES
            )
            for one in self.services
        )


@dataclass(frozen=True)
class Days:
    """A history or a forecast by day. None is no data."""

    days: list[date]
    values: Mapping[str, list[float | None]]


@dataclass(frozen=True)
class AsOfScores:
    """The scores of all services' forecasts of one hour.

    :param mase: lower quartile, median, upper quartile; None where none is known
    """

    as_of: datetime
    series: int
    mase: tuple[float, float, float] | None
    coverage95: float | None
    shortfall: float | None
    waste: float | None


@contextmanager
def opened() -> Iterator[Store]:
    """Open the operations database for one page.

    :raises Exception: it cannot be opened; of many kinds, by what is wrong
    """
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        yield store


def read_overview(store: Store, as_of: datetime | None) -> Overview:
    """Read what the list of services shows.

    :param store: the operations database
    :param as_of: of which hour; None for the newest
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.capacity import forecasts, recommendations

    with store.read() as connection:
        hours = _hours(connection, forecasts)
        shown = as_of or (hours[0] if hours else None)
        if shown is None:
            return Overview(None, [], [])
        rows = connection.execute(select(forecasts).where(forecasts.c.as_of == shown)).mappings().all()
        advice = connection.execute(
            select(recommendations).where(recommendations.c.as_of == shown)
        ).mappings()
        said = {row["service"]: dict(row) for row in advice}
    needs: dict[str, dict[str, Need]] = defaultdict(dict)
    for row in rows:
        needs[row["service"]][row["metric"]] = Need(dict(row))
    services = [ServiceNeeds(name, needs.get(name, {}), said.get(name)) for name in {*needs, *said}]
    return Overview(shown, hours, sorted(services, key=lambda one: one.urgency))


def read_service(
    store: Store, service: str, as_of: datetime | None
) -> tuple[ServiceNeeds | None, list[datetime]]:
    """Read what is known of a service, and the hours that can be chosen.

    :param store: the operations database
    :param service: its name
    :param as_of: of which hour; None for its newest
    :returns: None where that hour has no forecast of it
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.capacity import forecasts, recommendations

    with store.read() as connection:
        hours = _hours(connection, forecasts, service)
        shown = as_of or (hours[0] if hours else None)
        query = select(forecasts).where(forecasts.c.service == service, forecasts.c.as_of == shown)
        needs = {row["metric"]: Need(dict(row)) for row in connection.execute(query).mappings()}
        asked = recommendations.c.service == service, recommendations.c.as_of == shown
        advice = connection.execute(select(recommendations).where(*asked)).mappings().first()
    found = ServiceNeeds(service, needs, dict(advice) if advice else None) if needs else None
    return found, hours


def read_scores(store: Store, service: str, metric: str) -> list[Mapping[str, Any]]:
    """Read the newest scores of a resource of a service, newest first.

    :param store: the operations database
    :param service: its name
    :param metric: the resource
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.capacity import scores

    query = select(scores).where(scores.c.service == service, scores.c.metric == metric)
    query = query.order_by(scores.c.as_of.desc(), scores.c.horizon_days).limit(SHOWN_SCORES)
    with store.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def read_accuracy(store: Store, metric: str, horizon_days: int | None) -> tuple[list[AsOfScores], list[int]]:
    """Read the scores of all services by hour, oldest first, and the horizons there are.

    :param store: the operations database
    :param metric: the resource
    :param horizon_days: of the scores; None for the shortest there is
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.capacity import scores

    with store.read() as connection:
        horizons = sorted(connection.execute(select(scores.c.horizon_days).distinct()).scalars())
        if not horizons:
            return [], []
        chosen = scores.c.metric == metric, scores.c.horizon_days == (horizon_days or horizons[0])
        newest = select(scores.c.as_of).where(*chosen).distinct().order_by(scores.c.as_of.desc())
        hours = list(connection.execute(newest.limit(SCORED_HOURS)).scalars())
        if not hours:
            return [], horizons
        columns = [scores.c[name] for name in ("as_of", "mase", "coverage95", "shortfall", "waste")]
        query = select(*columns).where(*chosen, scores.c.as_of >= min(hours))
        rows = connection.execute(query.order_by(scores.c.as_of)).mappings().all()
    by_hour: dict[datetime, list[Any]] = defaultdict(list)
    for row in rows:
        by_hour[row["as_of"]].append(row)
    return [_joined(as_of, some) for as_of, some in by_hour.items()], horizons


def read_days(as_of: datetime, service: str, metric: str) -> tuple[Days, Days]:
    """Read the days of a forecast's history, and of the forecast.

    :param as_of: of the forecast
    :param service: its name
    :param metric: the resource
    :raises Exception: the bucket cannot be reached, or holds no such forecast
    """
    from fastvlm_ops.core.capacity.objects import CapacityObjects
    from fastvlm_ops.core.capacity.publishing import find_partition
    from fastvlm_ops.core.store.errors import ArtefactDamagedError
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook

    hook = BackupRepositoryHook()
    where = hook.settings
    objects = CapacityObjects(hook.get_client(), bucket=where.bucket, prefix=where.prefix)
    partition = find_partition(objects, as_of)
    if partition is None:
        raise ArtefactDamagedError(
            f"there is no forecast of {as_of:%Y-%m-%d %H:%M} UTC; clear the run of capacity_forecast for it"
        )
    history = partition.table("daily_history", service=service, metric=metric)
    forecast = partition.table("daily", service=service, metric=metric)
    return _days(history, ("mean", "p95", "max")), _days(forecast, ("mean", "q0.5", "q0.95", "q0.99", "max"))


def _days(table: Any, columns: Sequence[str]) -> Days:
    return Days(
        table["day"].cast("date32").to_pylist(),  # of moments, pyarrow would import pandas
        {name: table[name].to_pylist() for name in columns},
    )


def _hours(connection: Any, table: Any, service: str | None = None) -> list[datetime]:
    from sqlalchemy import select

    query = select(table.c.as_of).distinct().order_by(table.c.as_of.desc()).limit(OFFERED_HOURS)
    if service is not None:
        query = query.where(table.c.service == service)
    return list(connection.execute(query).scalars())


def _joined(as_of: datetime, rows: Sequence[Mapping[str, Any]]) -> AsOfScores:
    errors = [row["mase"] for row in rows if row["mase"] is not None]
    quartiles: tuple[float, float, float] | None = None
    if len(errors) > 1:
        low, middle, high = statistics.quantiles(errors, n=4, method="inclusive")
        quartiles = low, middle, high
    elif errors:
        quartiles = errors[0], errors[0], errors[0]
    wastes = [row["waste"] for row in rows if row["waste"] is not None]
    return AsOfScores(
        as_of,
        len(rows),
        quartiles,
        _average([row["coverage95"] for row in rows]),
        _average([row["shortfall"] for row in rows]),
        statistics.median(wastes) if wastes else None,
    )


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def ends_at(as_of: datetime, horizon_days: int) -> date:
    """Return the day after a forecast's last.

    :param as_of: its first hour
    :param horizon_days: that were forecast
    """
    return (as_of + timedelta(days=horizon_days)).date()
