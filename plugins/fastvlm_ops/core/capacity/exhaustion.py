"""Whether, and when, a forecast reaches the capacity there is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.distribution import chances_above
from fastvlm_ops.core.capacity.levels import LEVELS

if TYPE_CHECKING:
    from fastvlm_ops.core.capacity.required import Forecast
    from fastvlm_ops.core.config.capacity import Resource

Floats = NDArray[np.floating[Any]]
_DAY = 24
_PEAK_SHARE = 0.95
_AS_LIKELY_AS_NOT = 0.5


def exhaustion(
    forecast: Forecast, resource: Resource, *, capacity: float | None, as_of: datetime | None
) -> tuple[float | None, date | None]:
    """Return the chance of reaching the capacity within the horizon, and the day that it has become likely.

    A level that is crossed is an event with little warning (measured: no method foretells it), so a day is
    named only where a significant rise leads there.

    :param forecast: whose quantiles are asked
    :param resource: says what of a day counts: p95 of its hours (CPU, memory), or its maximum (requests)
    :param capacity: that there is, in the forecast's unit; None where it is not known
    :param as_of: the forecast's first hour, aware; None: no day is named
    :returns: None for what is not known
    :raises ValueError: ``as_of`` is naive
    """
    if as_of is not None and as_of.utcoffset() is None:
        raise ValueError(f"as_of is {as_of.isoformat()}: it must have a time zone")
    if capacity is None or not np.isfinite(capacity):
        return None, None
    chances = daily_chances(np.asarray(forecast.quantiles, dtype=float), resource, capacity)
    if not chances.size or not np.isfinite(chances).any():
        return None, None
    chance = float(np.nanmax(chances))
    rising = forecast.trend_is_significant and forecast.trend_per_day > 0
    likely = np.flatnonzero(chances >= _AS_LIKELY_AS_NOT)
    if as_of is None or not rising or not likely.size:
        return chance, None
    return chance, (as_of.astimezone(UTC) + timedelta(days=int(likely[0]))).date()


def daily_chances(quantiles: Floats, resource: Resource, capacity: float) -> Floats:
    """Return for each day of the horizon the chance that its peak is above the capacity.

    The hours of a day go up and down together, so that the quantile of its peak is taken for the peak of the
    quantiles of its hours.

    :param quantiles: ``LEVELS`` by hours
    :param capacity: in the same unit
    """
    if quantiles.ndim != 2 or quantiles.shape[0] != len(LEVELS):
        raise ValueError(f"quantiles have the shape {quantiles.shape}: it must be {len(LEVELS)} by hours")
    whole = quantiles.shape[1] // _DAY * _DAY
    days = [quantiles[:, :whole].reshape(len(LEVELS), -1, _DAY), quantiles[:, None, whole:]]
    peaks = [_peaks(hours, resource) for hours in days if hours.size]
    return chances_above(np.concatenate(peaks or [np.empty((len(LEVELS), 0))], axis=1), capacity)


def _peaks(hours: Floats, resource: Resource) -> Floats:
    """Of each day; ``hours`` are ``LEVELS`` by days by hours."""
    return np.asarray(
        hours.max(axis=2) if resource == "requests" else np.quantile(hours, _PEAK_SHARE, axis=2)
    )
