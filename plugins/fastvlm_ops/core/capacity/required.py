"""How much capacity a forecast needs: by the kit's own rule, and by the chance of falling short.

``required_seed`` is a point forecast with a fixed surcharge. ``required_risk`` is what is exceeded with the
chance that was set, by the predictive distribution of the horizon's p95 (CPU, memory) or maximum (requests).
That distribution joins history with the forecast already, see :mod:`~fastvlm_ops.core.capacity.extremes`: to
take the more cautious of both here would fall short less often than was asked for, and waste the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.distribution import quantile_at
from fastvlm_ops.core.capacity.exhaustion import exhaustion
from fastvlm_ops.core.config.capacity import RESOURCES, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastvlm_ops.core.capacity.recommending import Recommendation

Floats = NDArray[np.floating[Any]]
SEED_FACTORS: Mapping[Resource, float] = {"cpu": 1.2, "memory": 1.2, "requests": 1.5}
_PEAK_SHARE = 0.95


class Forecast(Protocol):
    """What is read of a :class:`~fastvlm_ops.core.capacity.forecasting.SeriesForecast`."""

    @property
    def status(self) -> str: ...
    @property
    def mean(self) -> Floats: ...
    @property
    def quantiles(self) -> Floats: ...
    @property
    def peak(self) -> Floats: ...
    @property
    def maximum(self) -> Floats: ...
    @property
    def trend_per_day(self) -> float: ...
    @property
    def trend_is_significant(self) -> bool: ...


@dataclass(frozen=True)
class Required:
    """What one resource of one service needs. None is unknown, never zero.

    :param current_usage: the newest hour there is, in the resource's unit
    :param forecasted_peak: p95 (CPU, memory) or maximum (requests) of the mean forecast
    :param required_seed: that, times 1.2 or 1.5
    :param required_risk: falls short with the chance that was set
    :param exhaustion_probability: of reaching the capacity there is within the horizon
    :param exhaustion_date: when that is as likely as not; only where the trend is significant
    :param monthly_cost: of ``required_risk``, in the unit of the price
    """

    current_usage: float | None
    forecasted_peak: float | None
    required_seed: float | None
    required_risk: float | None
    exhaustion_probability: float | None = None
    exhaustion_date: date | None = None
    monthly_cost: float | None = None


def required_capacity(
    history: Floats,
    forecast: Forecast,
    resource: Resource,
    *,
    chance_of_shortfall: float,
    capacity: float | None,
    as_of: datetime | None = None,
    price_per_unit_month: float | None = None,
) -> Required:
    """Return what a resource needs over the forecast's horizon.

    :param history: of the resource by the hour, the newest last; NaN where there is no data
    :param forecast: from that history
    :param resource: which one: it says what counts as the peak
    :param chance_of_shortfall: share of horizons whose real peak may be above ``required_risk``, as in 0.05
    :param capacity: that there is now, in the same unit; None where it is not known
    :param as_of: the forecast's first hour, aware; without it there is no exhaustion date
    :param price_per_unit_month: of one unit for a month; None where none is set
    :raises ValueError: the resource is none, or the chance is no share
    """
    if resource not in SEED_FACTORS:
        raise ValueError(f"resource is {resource!r}: it must be one of {', '.join(SEED_FACTORS)}")
    if not 0 < chance_of_shortfall < 1:
        raise ValueError(f"chance_of_shortfall is {chance_of_shortfall}: it must be above 0 and below 1")
    values = np.asarray(history, dtype=float)
    peak = peak_of(np.asarray(forecast.mean, dtype=float), resource, complete=True)
    risk = quantile_at(forecast.maximum if resource == "requests" else forecast.peak, 1 - chance_of_shortfall)
    chance, day = exhaustion(forecast, resource, capacity=capacity, as_of=as_of)
    cost = None if risk is None or price_per_unit_month is None else risk * price_per_unit_month
    return Required(
        current_usage=_newest(values),
        forecasted_peak=peak,
        required_seed=None if peak is None else peak * SEED_FACTORS[resource],
        required_risk=risk,
        exhaustion_probability=chance,
        exhaustion_date=day,
        monthly_cost=cost,
    )


def peak_of(values: Floats, resource: Resource, *, complete: bool = False) -> float | None:
    """Return the figure that a resource's capacity is about: p95 (CPU, memory) or the maximum (requests).

    :param values: by the hour; NaN is no data
    :param complete: whether a single NaN makes it unknown
    """
    known = values[np.isfinite(values)]
    if not known.size or (complete and known.size < values.size):
        return None
    return float(known.max() if resource == "requests" else np.quantile(known, _PEAK_SHARE))


def _newest(history: Floats) -> float | None:
    known = np.flatnonzero(np.isfinite(history))
    return float(history[known[-1]]) if known.size else None


def requirements(
    needs: Mapping[Resource, Required], *, horizon_days: int, recommendations: tuple[Recommendation, ...] = ()
) -> dict[str, Any]:
    """Return the kit's own shape of a forecast, ready for JSON.

    :param needs: by resource; one that is missing is unknown in every figure
    :param horizon_days: that was forecast
    :param recommendations: of this service
    """
    unknown = Required(None, None, None, None)
    shape: dict[str, Any] = {"forecast_period_days": horizon_days}
    for resource in RESOURCES:
        need = needs.get(resource, unknown)
        shape[f"{resource.removesuffix('s')}_requirements"] = {
            "current_usage": need.current_usage,
            "forecasted_peak": need.forecasted_peak,
            "recommended_capacity": need.required_seed,
        }
    shape["scaling_recommendations"] = [recommendation.decision() for recommendation in recommendations]
    return shape
