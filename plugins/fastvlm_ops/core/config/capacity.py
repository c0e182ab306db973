"""``include/capacity.yaml``: what is forecast, how much of it there is, and when to scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file

CAPACITY_FILE = "capacity.yaml"

Resource = Literal["cpu", "memory", "requests"]
RESOURCES: tuple[Resource, ...] = ("cpu", "memory", "requests")


def _check_query(query: object) -> object:
    if isinstance(query, str) and not query.strip():
        raise ValueError("the query is empty; expected PromQL with the label service")
    return query


def _check_capacity(capacity: object) -> object:
    if capacity is None or isinstance(capacity, str):
        return _check_query(capacity)
    if isinstance(capacity, bool) or not isinstance(capacity, int | float):
        raise ValueError(f"{capacity!r} is no capacity; expected a number above 0, PromQL, or null")
    if not 0 < capacity < float("inf"):
        raise ValueError(f"{capacity!r} is no capacity; expected a number above 0")
    return float(capacity)


Query = Annotated[str, BeforeValidator(_check_query)]
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ResourceMetric(Definition):
    """One resource of a service, read from Prometheus hour by hour."""

    average: Annotated[
        Query,
        Field(description="PromQL of an hour's average, one series for each value of the label service"),
    ]
    peak: Annotated[
        Query | None,
        Field(description="PromQL of an hour's peak, likewise; the average is taken where it is null"),
    ] = None
    capacity: Annotated[
        str | float | None,
        BeforeValidator(_check_capacity),
        Field(description="how much there is, in the unit of average: a number, PromQL, or null if unknown"),
    ] = None


class Replicas(Definition):
    """How many replicas a service has, and may have."""

    query: Annotated[
        Query | None,
        Field(
            description="PromQL of the replicas now, with the label service; null where nobody counts them"
        ),
    ] = None
    minimum: Annotated[int, Field(ge=1, le=1000, description="never fewer, 1 to 1000")] = 1
    maximum: Annotated[int, Field(ge=1, le=1000, description="never more, 1 to 1000")] = 10

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Threshold(Definition):
    """When a resource alone asks for more replicas, and when it would allow fewer."""

    scale_up_above_percent: Annotated[Percent, Field(description="of capacity, above 0 to 100")]
    scale_down_below_percent: Annotated[Percent, Field(description="of capacity, above 0 to 100")]

    @model_validator(mode="after")
    def _leaves_a_gap(self) -> Self:
        if self.scale_down_below_percent >= self.scale_up_above_percent:
            raise ValueError(
                f"scale_down_below_percent {self.scale_down_below_percent:g} is not below"
                f" scale_up_above_percent {self.scale_up_above_percent:g}"
            )
        return self


class Thresholds(Definition):
    """Of each resource: one over its upper threshold scales up, all under their lower ones scale down."""

    cpu: Annotated[Threshold, Field(description="of the processors")] = Threshold(
        scale_up_above_percent=70, scale_down_below_percent=30
    )
    memory: Annotated[Threshold, Field(description="of the memory")] = Threshold(
        scale_up_above_percent=80, scale_down_below_percent=40
    )
    requests: Annotated[Threshold, Field(description="of the requests a second")] = Threshold(
        scale_up_above_percent=80, scale_down_below_percent=30
    )


class Prices(Definition):
    """What one unit of a resource costs for a month; null where that is not known."""

    cpu: Annotated[Amount | None, Field(description="of one percent of the capacity in processors")] = None
    memory: Annotated[Amount | None, Field(description="of one percent of the capacity in memory")] = None
    requests: Annotated[Amount | None, Field(description="of one request a second")] = None


class Resources(Definition):
    """The resources that are forecast."""

    cpu: Annotated[ResourceMetric, Field(description="processors, in percent of capacity")]
    memory: Annotated[ResourceMetric, Field(description="memory, in percent of capacity")]
    requests: Annotated[ResourceMetric, Field(description="requests a second")]


class Accuracy(Definition):
    """What capacity_accuracy scores, and when it raises the alarm."""

    horizons_days: Annotated[
        tuple[int, ...],
        Field(
            strict=False,
            min_length=1,
            description="days after which a forecast is scored over all of them, as in 7 and 30",
        ),
    ] = (7, 30)
    runs: Annotated[
        int, Field(ge=3, le=366, description="so many of the last forecasts are judged together, 3 to 366")
    ] = 14
    fewest: Annotated[
        int, Field(ge=1, le=366, description="with fewer scores than this, nothing is judged, 1 to 366")
    ] = 7
    coverage95_minimum: Annotated[
        float,
        Field(gt=0, lt=1, description="alarm below this share of hours under the bound that 95 % should be"),
    ] = 0.90
    coverage95_maximum: Annotated[
        float, Field(gt=0, le=1, description="alarm above that share: the bound is wider than it need be")
    ] = 1.0
    mase_factor: Annotated[
        float,
        Field(gt=1, le=100, description="alarm when the median error is so many times what it was before"),
    ] = 1.5
    shortfalls_maximum: Annotated[
        float, Field(gt=0, le=1, description="alarm above this share of forecasts that required too little")
    ] = 0.20

    @field_validator("horizons_days")
    @classmethod
    def _are_days(cls, days: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= day <= 366 for day in days) or list(days) != sorted(set(days)):
            raise ValueError(f"{list(days)} are not days of 1 to 366, each once and in ascending order")
        return days


class Capacity(DefinitionFile):
    """What is forecast, how much of it there is, and when to scale."""

    version: Literal[1] = Field(description="version of this file's format: 1")
    history_days: Annotated[
        int, Field(ge=1, le=730, description="days of history that a forecast is made from, 1 to 730")
    ] = 90
    horizon_days: Annotated[int, Field(ge=1, le=366, description="days that are forecast, 1 to 366")] = 30
    chance_of_shortfall: Annotated[
        float,
        Field(gt=0, le=0.5, description="how probable it may be that required_risk is too little, to 0.5"),
    ] = 0.05
    series_per_shard: Annotated[
        int, Field(ge=1, le=10_000, description="about so many series are forecast by one task")
    ] = 300
    keep_hourly_days: Annotated[
        int,
        Field(
            ge=1,
            le=3660,
            description="hours of a forecast that was scored are removed after so many days, 1 to 3660;"
            " its days and figures stay",
        ),
    ] = 120
    agreeing_runs: Annotated[
        int, Field(ge=1, le=30, description="so many runs in a row must agree before a scale-down, 1 to 30")
    ] = 3
    cool_down_days: Annotated[
        int, Field(ge=0, le=90, description="days without a scale-down after any change, 0 to 90")
    ] = 3
    replicas: Annotated[Replicas, Field(description="how many there are, and may be")] = Replicas()
    thresholds: Annotated[Thresholds, Field(description="when to scale, by resource")] = Thresholds()
    prices: Annotated[Prices, Field(description="of a unit for a month, by resource; optional")] = Prices()
    resources: Annotated[Resources, Field(description="PromQL of cpu, memory and requests")]
    accuracy: Annotated[Accuracy, Field(description="how forecasts are scored")] = Accuracy()

    @model_validator(mode="after")
    def _keeps_what_is_learnt_from(self) -> Self:
        needed = max(self.horizon_days, *self.accuracy.horizons_days) + self.accuracy.runs
        if self.keep_hourly_days < needed:
            raise ValueError(
                f"keep_hourly_days {self.keep_hourly_days} is too few: bounds are learnt from the last"
                f" {self.accuracy.runs} forecasts whose hours have come, which takes {needed} days"
            )
        return self

    @property
    def metrics(self) -> Mapping[Resource, ResourceMetric]:
        """What is read from Prometheus, by resource."""
        return {name: getattr(self.resources, name) for name in RESOURCES}


def load_capacity(include_dir: Path) -> Capacity:
    """Read ``capacity.yaml``.

    :param include_dir: the folder that it is in
    :raises DefinitionError: it cannot be used; the message names file, line, key and what would be right
    """
    return read_definition_file(include_dir / CAPACITY_FILE, Capacity)
