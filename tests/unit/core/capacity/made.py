"""Forecasts of a known shape, for the tests of what is made from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

from fastvlm_ops.core.capacity.levels import LEVELS

Z = norm.ppf(LEVELS)
HOURS = 720


@dataclass
class MadeForecast:
    """What is read of a forecast of one series."""

    mean: np.ndarray
    quantiles: np.ndarray
    peak: np.ndarray
    maximum: np.ndarray
    status: str = "ok"
    trend_per_day: float = 0.0
    trend_is_significant: bool = False
    notes: tuple[str, ...] = field(default=())


def made(
    mean: float | np.ndarray, spread: float = 1.0, hours: int = HOURS, **options: object
) -> MadeForecast:
    """A forecast whose hours, peak and maximum are normal."""
    line = np.broadcast_to(np.asarray(mean, dtype=float), (hours,)).copy()
    quantiles = line[None, :] + spread * Z[:, None]
    peak = np.quantile(line, 0.95) + spread * Z
    return MadeForecast(line, quantiles, peak, line.max() + spread * Z, **options)  # type: ignore[arg-type]


def unknown(hours: int = HOURS, status: str = "no_data") -> MadeForecast:
    """A forecast of which nothing is known."""
    nothing = np.full(len(LEVELS), np.nan)
    return MadeForecast(
        np.full(hours, np.nan), np.full((len(LEVELS), hours), np.nan), nothing, nothing, status=status
    )
