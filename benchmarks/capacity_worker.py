"""A process that forecasts many series, and says what that took: part of benchmarks/capacity.py.

python -m benchmarks.capacity_worker 1500 20    series in shards of 300, and some one at a time
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time

import numpy as np

_started = time.perf_counter()  # importing the models counts too

HISTORY_HOURS, HORIZON_HOURS, SHARD = 90 * 24, 30 * 24, 300


def make_histories(count: int) -> np.ndarray:
    """Noisy days and weeks, with some gaps."""
    random = np.random.default_rng(7)
    hours = np.arange(HISTORY_HOURS)
    day = np.sin(2 * np.pi * hours / 24) * random.uniform(1, 5, (count, 1))
    week = ((hours // 24) % 7 >= 5) * random.uniform(0, 3, (count, 1))
    values = 20 + day - week + random.normal(0, 1, (count, HISTORY_HOURS))
    values[:, 500:503] = np.nan
    return values


def main(series: int, single: int) -> None:
    """Forecast, and print the figures as JSON."""
    import pandas as pd

    from fastvlm_ops.core.capacity import forecast, forecast_many

    taken = []
    for shard in range(0, series, SHARD):
        histories = make_histories(min(SHARD, series - shard))
        began = time.perf_counter()
        forecast_many(histories, HORIZON_HOURS)
        taken.append((time.perf_counter() - began) * 1000 / len(histories))
    seconds = time.perf_counter() - _started
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    alone = []
    index = pd.date_range("2026-01-05", periods=HISTORY_HOURS, freq="h", tz="UTC")
    for values in make_histories(single):
        began = time.perf_counter()
        forecast(pd.Series(values, index=index), HORIZON_HOURS)
        alone.append((time.perf_counter() - began) * 1000)
    result = {
        "series": series,
        "seconds": seconds,
        "batch_ms": statistics.median(taken),
        "single_ms": statistics.median(alone) if alone else None,
        "memory_bytes": memory_bytes,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
