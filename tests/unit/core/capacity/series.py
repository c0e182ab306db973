"""Series that tests forecast, the same in each run."""

from __future__ import annotations

import numpy as np
import pandas as pd

DAY, WEEK = 24, 168
START = pd.Timestamp("2026-01-05", tz="UTC")  # a Monday


def loads(days: int, *, seed: int = 0, level: float = 50.0, noise: float = 3.0) -> np.ndarray:
    """Hours of a load with busy days and quiet weekends."""
    random = np.random.default_rng(seed)
    hours = np.arange(days * DAY)
    day = 0.3 * np.sin(2 * np.pi * (hours - 9) / DAY)
    week = np.where((hours // DAY) % 7 >= 5, 0.7, 1.0)
    return level * (1 + day) * week + random.normal(0, noise, len(hours)) * level / 50


def as_series(values: np.ndarray) -> pd.Series:
    """Hour by hour from START."""
    return pd.Series(values, index=pd.date_range(START, periods=len(values), freq="h"))
