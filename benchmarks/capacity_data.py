"""Series and tasks of benchmarks/capacity.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fastvlm_ops.core.capacity.cleaning import fill_gaps
from fastvlm_ops.core.capacity.grid import to_grid

DAY, WEEK = 24, 168
LONGEST_HISTORY = 90 * DAY
SHORTEST_HISTORY = 28 * DAY
_MOST_ORIGINS = 9  # of one series, so that a long one counts no more than the others
_LEAST_KNOWN = 0.5  # of the horizon's hours


class NoSeriesError(Exception):
    """A folder holds nothing to forecast."""


@dataclass(frozen=True)
class Tasks:
    """Forecasts to make.

    :param names: of the series of each task
    :param measured: tasks x hours that end at the origin; NaN for gaps and before the first hour
    :param filled: the same, gaps filled as all peers get them
    :param actual: tasks x hours of the horizon
    """

    names: tuple[str, ...]
    measured: np.ndarray
    filled: np.ndarray
    actual: np.ndarray

    def every(self, step: int) -> np.ndarray:
        """Numbers of each how manieth task."""
        return np.arange(0, len(self.names), step)

    def part(self, chosen: np.ndarray) -> Tasks:
        """Some of the tasks, by number."""
        names = tuple(self.names[number] for number in chosen)
        return Tasks(names, self.measured[chosen], self.filled[chosen], self.actual[chosen])


def read_series(folder: Path) -> dict[str, np.ndarray]:
    """All CSV files ``timestamp,value`` of a folder, on hourly grids.

    :raises NoSeriesError: there are none, or one has other columns
    """
    found = {}
    for file in sorted(folder.glob("*.csv")):
        table = pd.read_csv(file)
        if not {"timestamp", "value"} <= set(table.columns):
            raise NoSeriesError(f"{file}: columns timestamp and value needed, found {list(table.columns)}")
        times = pd.DatetimeIndex(pd.to_datetime(table["timestamp"], utc=True, format="ISO8601"))
        found[file.stem] = to_grid(pd.Series(table["value"].to_numpy(), index=times)).to_numpy()
    if not found:
        raise NoSeriesError(f"{folder} holds no CSV files with the columns timestamp and value")
    return found


def make_series(count: int = 12, days: int = 120) -> dict[str, np.ndarray]:
    """Synthetic series, the same in each run: days, weeks, lingering noise, growth, jumps, bursts, gaps."""
    found = {}
    hours = np.arange(days * DAY)
    for number in range(count):
        random = np.random.default_rng(number)
        day = np.maximum(np.sin(2 * np.pi * (hours - random.integers(24)) / DAY), -0.5)
        week = 1 - random.uniform(0, 0.6) * ((hours // DAY) % 7 >= 5)
        noise = _lingering(
            random.normal(0, random.uniform(0.02, 0.15), len(hours)), random.uniform(0.5, 0.97)
        )
        values = (1 + random.uniform(0.1, 0.6) * day) * week + noise
        if number % 3 == 0:
            values += random.uniform(0.1, 1.0) * hours / len(hours)
        if number % 4 == 1:
            values[random.integers(len(hours) // 3, len(hours)) :] *= random.uniform(0.6, 1.8)
        if number % 4 == 2:
            values += (random.random(len(hours)) < 0.02) * random.exponential(1.5, len(hours))
        start = random.integers(len(hours) - 3 * DAY)
        values[start : start + random.integers(3, 3 * DAY)] = np.nan
        found[f"synthetic_{number:02}"] = np.maximum(values, 0) * 10.0 ** random.integers(-1, 9)
    return found


def _lingering(shocks: np.ndarray, share: float) -> np.ndarray:
    level = 0.0
    noise = np.empty_like(shocks)
    for number, shock in enumerate(shocks):
        level = share * level + shock
        noise[number] = level
    return noise


def make_tasks(series: dict[str, np.ndarray], horizon: int) -> Tasks:
    """Rolling origins: every 5 days for long horizons and every week for short ones, counted from the end."""
    names, measured, filled, actual = [], [], [], []
    for name, values in series.items():
        for origin in _origins(len(values), horizon):
            history, truth = (
                values[max(0, origin - LONGEST_HISTORY) : origin],
                values[origin : origin + horizon],
            )
            if np.isfinite(truth).mean() < _LEAST_KNOWN or np.isfinite(history).sum() < SHORTEST_HISTORY / 2:
                continue
            history = history[np.flatnonzero(np.isfinite(history))[0] :]
            names.append(name)
            measured.append(_padded(history))
            filled.append(_padded(fill_gaps(history[None, :])[0]))
            actual.append(truth)
    return Tasks(tuple(names), np.array(measured), np.array(filled), np.array(actual))


def _origins(hours: int, horizon: int) -> list[int]:
    step = 5 * DAY if horizon > WEEK else WEEK
    found = list(range(hours - horizon, SHORTEST_HISTORY - 1, -step))
    if len(found) > _MOST_ORIGINS:
        found = [found[place] for place in np.linspace(0, len(found) - 1, _MOST_ORIGINS).astype(int)]
    return found


def _padded(history: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full(LONGEST_HISTORY - len(history), np.nan), history])
