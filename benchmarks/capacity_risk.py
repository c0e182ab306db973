"""How often ``required_risk`` falls short, and what it wastes, beside history's own peak.

The rival is what most people do: the p95 (or maximum) of the history, times a factor. The factor is chosen
afterwards, on these very tasks, so that it falls short exactly as often as ours did: no fairer one exists.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from benchmarks.capacity_data import Tasks
from benchmarks.figures import Figure
from fastvlm_ops.core.capacity.distribution import quantile_at
from fastvlm_ops.core.capacity.forecasting import SeriesForecast

CHANCES = (0.05, 0.10)
_POINTS = 2.0
_LESS_WASTE = 1.0  # of the rival's


def risk_figures(days: int, tasks: Tasks, found: Sequence[SeriesForecast]) -> list[Figure]:
    """Of one horizon: for the p95 and the maximum, and for each chance."""
    figures = []
    for kind, share in (("p95", 0.95), ("maximum", 1.0)):
        came, seen = _peaks(tasks.actual, share), _peaks(tasks.measured, share)
        usable = (came > 0) & (seen > 0)
        weights = each_series_alike(np.array(tasks.names)[usable])
        for chance in CHANCES:
            asked = [
                quantile_at(one.peak if kind == "p95" else one.maximum, 1 - chance) or np.nan for one in found
            ]
            ours = np.array(asked)[usable] / came[usable]
            short = float(weights[ours < 1 - 1e-9].sum())
            rival = seen[usable] / came[usable]
            rival = rival / weighted_quantile(rival, weights, short)
            name = f"{kind} in {days} days, a chance of {chance:.0%} asked"
            figures += [
                Figure(
                    f"{name}, fell short in {short:.1%}: off by", abs(short - chance) * 100, "points", _POINTS
                ),
                Figure(
                    f"{name}, needed and not used (median)",
                    weighted_quantile(ours, weights, 0.5) - 1,
                    "of the need",
                    _LESS_WASTE,
                    f"history's {kind} times a factor",
                    weighted_quantile(rival, weights, 0.5) - 1,
                ),
            ]
    return figures


def _peaks(rows: np.ndarray, share: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without data give NaN, which is what is meant
        return np.nanquantile(rows, share, axis=1)


def each_series_alike(names: np.ndarray) -> np.ndarray:
    """Weights of tasks that add up to 1, each series' to the same."""
    _, inverse, count = np.unique(names, return_inverse=True, return_counts=True)
    return 1 / count[inverse] / len(count)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(level, reached, values[order]))
