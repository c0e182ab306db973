"""Forecasts of hourly series: a middle, bounds, and the horizon's p95 and maximum; many series at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.budget import ProcessorTime, TimeSpentError
from fastvlm_ops.core.capacity.calibration import Calibration
from fastvlm_ops.core.capacity.cleaning import DAY, Floats, cut_freaks, even_out_shift, fill_gaps
from fastvlm_ops.core.capacity.conformal import bounds
from fastvlm_ops.core.capacity.ensemble import combine
from fastvlm_ops.core.capacity.extremes import maximum_quantiles, peak_quantiles
from fastvlm_ops.core.capacity.levels import LEVELS, column
from fastvlm_ops.core.capacity.models import MODELS
from fastvlm_ops.core.capacity.origins import try_models
from fastvlm_ops.core.capacity.trend import find_trend

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "short", "stale", "no_data", "failed"]

LONGEST_HISTORY_DAYS = 91
STALE_HOURS = 72
SHORT_DAYS = 14
_TOGETHER = 0.25  # of their time may series take together, so that some is left for each by itself
_CHUNK = 32  # series at once: enough that NumPy's overhead is shared, few enough for little memory


@dataclass(frozen=True)
class SeriesForecast:
    """What is to be expected of one series.

    :param status: ``ok``; ``short``: under 14 days of data; ``stale``: no data in the last 72 hours;
        ``no_data``: none at all; ``failed``: the reason says why. The last two have NaN for all numbers
    :param reason: of a status other than ``ok``
    :param model: the models with the most weight
    :param mean: middle of the forecast by hour, made for the least absolute error
    :param quantiles: levels x hours
    :param peak: quantiles of the horizon's 95th percentile, by LEVELS
    :param maximum: quantiles of the horizon's maximum, by LEVELS
    :param trend_per_day: growth of the weeks' level, in units of the series
    :param trend_is_significant: whether that is more than chance
    :param notes: what was done to the history
    :param history_days: days of data, gaps not counted
    """

    status: Status
    reason: str
    model: str
    mean: Floats
    quantiles: Floats
    peak: Floats
    maximum: Floats
    trend_per_day: float
    trend_is_significant: bool
    notes: tuple[str, ...]
    history_days: float


def forecast(history: pd.Series, horizon_hours: int) -> pd.DataFrame:
    """Forecast one series.

    :param history: numbers by time (without a zone: UTC), with gaps, NaN or duplicates as they come
    :param horizon_hours: hours from the end of the last finished hour
    :returns: by hour (UTC): ``mean``, made for the least absolute error, and the columns of LEVELS, as
        ``q0.95``; NaN where the history holds no number
    :raises HistoryError: the history has no times, or other things than numbers
    """
    import pandas as pd  # not above: the tasks that forecast do without, and start a second or two earlier

    from fastvlm_ops.core.capacity.grid import to_grid

    grid = to_grid(history)
    found = forecast_many(grid.to_numpy()[None, :], horizon_hours)[0]
    if found.status == "failed":
        raise RuntimeError(f"the forecast failed: {found.reason}")
    index = pd.date_range(grid.index[-1], periods=horizon_hours + 1, freq="h")[1:]
    columns = {"mean": found.mean, **{column(LEVELS[n]): found.quantiles[n] for n in range(len(LEVELS))}}
    return pd.DataFrame(columns, index=index)


def forecast_many(
    history: NDArray[np.floating],
    horizon_hours: int,
    *,
    calibration: Calibration | None = None,
    budget_seconds: float = 2.0,
) -> list[SeriesForecast]:
    """Forecast many series that end at the same hour. A series' forecast does not depend on the others.

    :param history: series x hours, the as-of hour itself not among them; NaN where there is no data
    :param horizon_hours: hours from the as-of hour on
    :param calibration: of the bounds, learnt from past forecasts
    :param budget_seconds: of the processor's time for a series, on average: those that come after all of it
        is spent are ``failed``; so is, in the main thread, one that alone takes longer
    :raises ValueError: not a table of series x hours, or no horizon
    """
    values = np.array(history, dtype=np.float64)
    if values.ndim != 2 or horizon_hours < 1:
        raise ValueError(
            "forecast_many needs an array of series x hours and a horizon of at least 1 hour, "
            f"got {values.shape} and {horizon_hours}"
        )
    values[~np.isfinite(values)] = np.nan
    values = values[:, -LONGEST_HISTORY_DAYS * DAY :]
    deadline = time.thread_time() + budget_seconds * len(values)
    task = _Task(horizon_hours, calibration or Calibration(), budget_seconds, deadline)
    results: dict[int, SeriesForecast] = {}
    groups: dict[int, list[int]] = {}
    for row in range(len(values)):
        known = np.flatnonzero(~np.isnan(values[row]))
        if not len(known):
            results[row] = _empty(horizon_hours, "no_data", "no data in the history")
            continue
        span = values.shape[1] - int(known[0])
        groups.setdefault(span // DAY * DAY or span, []).append(row)
    for hours, rows in groups.items():
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            results.update(zip(chunk, task.run(values[chunk, values.shape[1] - hours :]), strict=True))
    return [results[row] for row in range(len(values))]


@dataclass(frozen=True)
class _Task:
    """What all series of a call share."""

    horizon: int
    calibration: Calibration
    budget_seconds: float
    deadline: float

    def run(self, values: Floats) -> list[SeriesForecast]:
        """Forecast series of the same length; where they fail or hang together, each by itself."""
        if time.thread_time() > self.deadline:
            return [_empty(self.horizon, "failed", "the time for these series was spent")] * len(values)
        seconds = self.budget_seconds * max(1.0, len(values) * _TOGETHER)
        try:
            with ProcessorTime(seconds):
                return self._forecast(values)
        # Whatever a model raises must not take the other series with it.
        except (Exception, TimeSpentError) as error:
            if len(values) == 1:
                return [_empty(self.horizon, "failed", f"{type(error).__name__}: {error}")]
            return [result for row in values for result in self.run(row[None, :])]

    def _forecast(self, measured: Floats) -> list[SeriesForecast]:
        # A power of two, so that scaling itself rounds nothing.
        size = np.nanmax(np.abs(measured), axis=1)
        scale = np.exp2(np.floor(np.log2(np.where(size > 0, size, 1.0))))
        raw = measured / scale[:, None]
        cut, freaks = cut_freaks(raw)
        filled = fill_gaps(cut)
        level, shifts = even_out_shift(filled)
        trials = try_models(level, raw, self.horizon)
        combined = combine(trials, self.horizon)
        point, weights, errors = combined.paths[:, 0], combined.weights, combined.errors
        around = bounds(point, errors, self.horizon)
        around = self.calibration.apply(around, LEVELS.index(0.5))
        slope, significant = find_trend(level)
        growth = np.where(significant, slope, 0.0) * self.horizon / DAY
        peak = peak_quantiles(cut, self.horizon, growth)
        maximum = maximum_quantiles(cut, self.horizon, growth)
        results = []
        for row in range(len(measured)):
            lowest = 0.0 if np.nanmin(raw[row]) >= 0 else -np.inf
            parts = [
                np.maximum(part, lowest) * scale[row]
                for part in (point[row], around[:, row], peak[:, row], maximum[:, row])
            ]
            constant = np.nanmax(raw[row]) == np.nanmin(raw[row])
            if constant:
                parts = [np.full_like(part, np.nanmax(measured[row])) for part in parts]
            status, reason = _status(raw[row])
            results.append(
                SeriesForecast(
                    status=status,
                    reason=reason,
                    model="constant" if constant else _in_words(weights[row]),
                    mean=parts[0],
                    quantiles=np.sort(parts[1], axis=0),
                    peak=np.sort(parts[2]),
                    maximum=np.sort(parts[3]),
                    trend_per_day=0.0 if constant else float(slope[row] * scale[row]),
                    trend_is_significant=bool(significant[row]) and not constant,
                    notes=_notes(measured[row], int(freaks[row]), int(shifts[row])),
                    history_days=float(np.count_nonzero(~np.isnan(raw[row])) / DAY),
                )
            )
        return results


def _status(values: Floats) -> tuple[Status, str]:
    known = np.flatnonzero(~np.isnan(values))
    silent = len(values) - 1 - int(known[-1])
    if silent > STALE_HOURS:
        return "stale", f"no data in the last {silent} hours"
    if len(known) < DAY:
        return "short", f"{len(known)} hours of data: under a day, so only a level can be given"
    if len(known) < SHORT_DAYS * DAY:
        return "short", f"{len(known) / DAY:.1f} days of data: fewer than {SHORT_DAYS}"
    return "ok", ""


def _notes(values: Floats, freaks: int, shift_days: int) -> tuple[str, ...]:
    notes = []
    missing = np.count_nonzero(np.isnan(values)) / len(values)
    if missing > 0:
        notes.append(f"{missing:.1%} of the hours are missing")
    if freaks:
        notes.append(
            f"{freaks} freak value(s) cut for the models; the largest is {np.nanmax(np.abs(values)):.4g}"
        )
    if shift_days:
        notes.append(f"the level jumped {shift_days} days ago; what was before was moved to the new level")
    return tuple(notes)


def _in_words(weights: Floats) -> str:
    """The three models with the most weight."""
    share = weights.mean(axis=0)
    best = np.argsort(-share, kind="stable")[:3]
    return ", ".join(f"{MODELS[number]} {share[number]:.0%}" for number in best)


def _empty(horizon: int, status: Status, reason: str) -> SeriesForecast:
    nothing = np.full(horizon, np.nan)
    levels = np.full(len(LEVELS), np.nan)
    return SeriesForecast(
        status,
        reason,
        "none",
        nothing,
        np.full((len(LEVELS), horizon), np.nan),
        levels,
        levels,
        0.0,
        False,
        (),
        0.0,
    )
