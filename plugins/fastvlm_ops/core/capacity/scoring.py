"""How right a forecast was, once its hours have come, and when forecasts have become worse than they were.

Hours without data are not scored, and a figure that cannot be worked out is None, never zero.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.levels import LEVELS, column
from fastvlm_ops.core.capacity.required import peak_of
from fastvlm_ops.core.config.capacity import Resource

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating[Any]]
WEEK_HOURS = 168
_BOUND = 0.95
_COVERED = 0.5  # of the horizon's hours, so that its real peak is known


@dataclass(frozen=True)
class Score:
    """How right a forecast was.

    :param mase: mean absolute error of the mean, in units of the seasonal naive forecast's inside the history
    :param pinball: pinball loss by level, in the same unit
    :param coverage95: share of hours that were not above the 95 % bound
    :param shortfall: whether the real peak was above the required capacity
    :param waste: how far the required capacity was above the real peak, as a share of that; 0 in a shortfall
    :param hours_scored: that both are known of
    """

    mase: float | None
    pinball: Mapping[float, float | None]
    coverage95: float | None
    shortfall: bool | None
    waste: float | None
    hours_scored: int

    @property
    def pinball95(self) -> float | None:
        """The loss of the 95 % bound."""
        return self.pinball.get(_BOUND)


def seasonal_scale(history: Floats, season_hours: int = WEEK_HOURS) -> float | None:
    """Return the mean absolute error of the seasonal naive forecast inside a history: the unit of scores.

    :param history: by the hour; NaN is no data
    :param season_hours: a week
    :returns: None where the history is too short, or repeats itself to the hour: nothing can be told by it
    """
    values = np.asarray(history, dtype=float)
    if values.size <= season_hours:
        return None
    errors = np.abs(values[season_hours:] - values[:-season_hours])
    errors = errors[np.isfinite(errors)]
    return float(errors.mean()) if errors.size and errors.mean() > 0 else None


def score(
    forecast: pd.DataFrame,
    actual: pd.Series[float],
    scale: float | None,
    *,
    required: float | None = None,
    resource: Resource = "cpu",
) -> Score:
    """Return how right a forecast was.

    :param forecast: by UTC hour: columns ``mean``, ``q0.95`` and those of other levels that there are
    :param actual: by UTC hour; hours that it lacks, or that are NaN, are not scored
    :param scale: as :func:`seasonal_scale` gives it; None: the errors have no unit, and are not known
    :param required: capacity that was asked for; None where it was not known
    :param resource: says what the real peak is: p95 (CPU, memory) or the maximum (requests)
    :raises ValueError: the forecast lacks a column, or two values are given for one hour
    """
    levels = [level for level in LEVELS if column(level) in forecast.columns]
    columns = ["mean", *map(column, levels)]
    if absent := [name for name in ("mean", column(_BOUND)) if name not in forecast.columns]:
        raise ValueError(f"the forecast lacks the columns {', '.join(absent)}")
    if actual.index.has_duplicates or forecast.index.has_duplicates:
        raise ValueError("an hour is there twice: bring the values to the hourly grid first")
    real = actual.reindex(forecast.index).to_numpy(dtype=float, na_value=np.nan)
    predicted = forecast[columns].to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(real) & np.isfinite(predicted).all(axis=1)
    unit = scale if scale is not None and np.isfinite(scale) and scale > 0 else None
    real_peak = peak_of(real, resource) if np.isfinite(real).sum() >= _COVERED * max(len(real), 1) else None
    shortfall, waste = _against(required, real_peak)
    return Score(
        mase=_mean(np.abs(real - predicted[:, 0])[known], unit),
        pinball={
            level: _mean(_pinball(real[known], predicted[known, number], level), unit)
            for number, level in enumerate(levels, 1)
        },
        coverage95=_share(real[known] <= predicted[known, 1 + levels.index(_BOUND)]),
        shortfall=shortfall,
        waste=waste,
        hours_scored=int(known.sum()),
    )


def _pinball(real: Floats, quantile: Floats, level: float) -> Floats:
    return np.where(real >= quantile, level * (real - quantile), (1 - level) * (quantile - real))


def _mean(errors: Floats, unit: float | None) -> float | None:
    return float(errors.mean() / unit) if errors.size and unit is not None else None


def _share(held: NDArray[np.bool_]) -> float | None:
    return float(held.mean()) if held.size else None


def _against(required: float | None, peak: float | None) -> tuple[bool | None, float | None]:
    """Shortfall and waste of what was required, beside the real peak."""
    if required is None or peak is None or not np.isfinite(required):
        return None, None
    if peak > required:
        return True, 0.0
    if peak == required:
        return False, 0.0
    return False, (required - peak) / peak if peak > 0 else None  # of nothing, no share can be said


@dataclass(frozen=True)
class PastScore:
    """A score of one service, metric and horizon, as the operations database has it."""

    as_of: datetime
    mase: float | None
    coverage95: float | None
    shortfall: bool | None = None


@dataclass(frozen=True)
class DriftRules:
    """When forecasts count as having become worse.

    :param recent: scores that are looked at, the newest
    :param fewest: of them, and of those before, so that anything is said
    :param coverage_least: of the 95 % bound, on average: below it, the bound promises too much
    :param coverage_most: above it, the bound is too wide to be of use
    :param mase_factor: of the median of the scores before, that the recent median may reach
    :param mase_most: that the recent median may be, whatever it was before; None: any
    :param shortfalls_most: share of the recent ones that may have fallen short
    """

    recent: int = 14
    fewest: int = 7
    coverage_least: float = 0.90
    coverage_most: float = 0.995
    mase_factor: float = 1.5
    mase_most: float | None = None
    shortfalls_most: float = 0.20


@dataclass(frozen=True)
class Drift:
    """Whether forecasts have become worse.

    :param alarm: None where too little is known to say
    :param reasons: in words
    """

    alarm: bool | None
    reasons: tuple[str, ...]


_RULES = DriftRules()


def drift(scores: Sequence[PastScore], rules: DriftRules = _RULES) -> Drift:
    """Return whether the newest forecasts of one service, metric and horizon are worse than they should be.

    :param scores: in any order
    :param rules: when they are
    """
    ordered = sorted(scores, key=lambda one: one.as_of)
    recent, before = ordered[-rules.recent :], ordered[: -rules.recent]
    coverages = [one.coverage95 for one in recent if one.coverage95 is not None]
    if len(coverages) < rules.fewest:
        return Drift(None, (f"{len(coverages)} scores are known, {rules.fewest} are wanted",))
    reasons = _coverage_reasons(statistics.fmean(coverages), rules)
    reasons += _error_reasons(recent, before, rules)
    falls = [one.shortfall for one in recent if one.shortfall is not None]
    if len(falls) >= rules.fewest and statistics.fmean(falls) > rules.shortfalls_most:
        reasons.append(f"{sum(falls)} of {len(falls)} fell short of the required capacity")
    return Drift(bool(reasons), tuple(reasons))


def _error_reasons(recent: Sequence[PastScore], before: Sequence[PastScore], rules: DriftRules) -> list[str]:
    errors = [one.mase for one in recent if one.mase is not None]
    usual = [one.mase for one in before if one.mase is not None]
    if len(errors) < rules.fewest:
        return []
    now = statistics.median(errors)
    if rules.mase_most is not None and now > rules.mase_most:
        return [f"MASE is {now:.2f}, above {rules.mase_most:g}"]
    if len(usual) >= rules.fewest and now > rules.mase_factor * (then := statistics.median(usual)):
        return [f"MASE is {now:.2f}, and was {then:.2f} before"]
    return []


def _coverage_reasons(coverage: float, rules: DriftRules) -> list[str]:
    if coverage < rules.coverage_least:
        return [f"the 95 % bound held {coverage:.1%} of the hours only"]
    if coverage > rules.coverage_most:
        return [f"the 95 % bound held {coverage:.1%} of the hours: it is wider than it need be"]
    return []
