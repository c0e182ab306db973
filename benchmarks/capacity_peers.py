"""The peers of benchmarks/capacity.py: runs by itself, in the peers' own environment.

    python capacity_peers.py "Prophet" tasks.npz forecasts.npz

``tasks.npz`` holds ``history`` (tasks x hours that end at the origin, gaps filled, NaN before the first hour)
and ``horizon``; ``forecasts.npz`` gets ``paths`` (tasks x hours; NaN where the peer failed) and ``ms``.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata

import numpy as np

DAY, WEEK = 24, 168


def seasonal_naive(history: np.ndarray, horizon: int) -> np.ndarray:
    """The last week again."""
    return np.resize(history[-WEEK:], horizon)


def hour_of_week_median(history: np.ndarray, horizon: int) -> np.ndarray:
    """Median of each hour of the week over the last four."""
    weeks = min(4, len(history) // WEEK)
    return np.resize(np.median(history[-weeks * WEEK :].reshape(weeks, WEEK), axis=0), horizon)


def predict_linear(history: np.ndarray, horizon: int) -> np.ndarray:
    """What Prometheus' function of this name gives on a range of 30 days: least squares."""
    values = history[-30 * DAY :]
    slope, level = np.polyfit(np.arange(len(values)), values, 1)
    return level + slope * (len(values) + np.arange(horizon))


def _statsforecast(model: object, history: np.ndarray, horizon: int) -> np.ndarray:
    return np.asarray(model.forecast(y=history, h=horizon)["mean"])


def auto_ets(history: np.ndarray, horizon: int) -> np.ndarray:
    """Of statsforecast."""
    from statsforecast.models import AutoETS

    return _statsforecast(AutoETS(season_length=DAY), history, horizon)


def mstl_auto_ets(history: np.ndarray, horizon: int) -> np.ndarray:
    """MSTL of statsforecast, its trend by AutoETS."""
    from statsforecast.models import MSTL, AutoETS

    model = MSTL(season_length=[DAY, WEEK], trend_forecaster=AutoETS(model="ZZN"))
    return _statsforecast(model, history, horizon)


def dynamic_optimized_theta(history: np.ndarray, horizon: int) -> np.ndarray:
    """Of statsforecast."""
    from statsforecast.models import DynamicOptimizedTheta

    return _statsforecast(DynamicOptimizedTheta(season_length=WEEK), history, horizon)


def prophet(history: np.ndarray, horizon: int) -> np.ndarray:
    """Prophet as it comes."""
    import logging

    import pandas as pd
    from prophet import Prophet

    logging.getLogger("cmdstanpy").disabled = True
    times = pd.date_range("2025-01-06", periods=len(history) + horizon, freq="h")
    model = Prophet().fit(pd.DataFrame({"ds": times[: len(history)], "y": history}))
    return model.predict(pd.DataFrame({"ds": times[len(history) :]}))["yhat"].to_numpy()


def mstl_ets(history: np.ndarray, horizon: int) -> np.ndarray:
    """MSTL of statsmodels, its rest by ETS with a damped trend."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from statsmodels.tsa.seasonal import MSTL

    parts = MSTL(history, periods=(DAY, WEEK)).fit()
    season = np.atleast_2d(np.asarray(parts.seasonal).T).sum(axis=0)
    fitted = ETSModel(history - season, error="add", trend="add", damped_trend=True).fit(disp=False)
    return np.asarray(fitted.forecast(horizon)) + np.resize(season[-WEEK:], horizon)


#: Name → function, packages whose versions are named, and each how manieth task it is run on.
PEERS: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], tuple[str, ...], int]] = {
    "seasonal naive 168": (seasonal_naive, (), 1),
    "hour-of-week median": (hour_of_week_median, (), 1),
    "predict_linear": (predict_linear, (), 1),
    "statsforecast MSTL(AutoETS)": (mstl_auto_ets, ("statsforecast",), 4),
    "statsforecast DynamicOptimizedTheta": (dynamic_optimized_theta, ("statsforecast",), 4),
    "statsmodels MSTL+ETS": (mstl_ets, ("statsmodels",), 4),
    "Prophet": (prophet, ("prophet",), 4),
    "statsforecast AutoETS": (auto_ets, ("statsforecast",), 12),
}


def run(name: str, histories: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Run a peer on all tasks.

    :returns: tasks x hours, and milliseconds of each task
    """
    function = PEERS[name][0]
    paths = np.full((len(histories), horizon), np.nan)
    taken = np.zeros(len(histories))
    _warm_up(function, horizon)
    for number, padded in enumerate(histories):
        history = padded[~np.isnan(padded)]
        began = time.perf_counter()
        try:
            path = function(history, horizon)
        except Exception as error:
            print(f"{name}, task {number}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        taken[number] = (time.perf_counter() - began) * 1000
        paths[number] = np.maximum(path, 0) if history.min() >= 0 else path
    return paths, taken


def _warm_up(function: Callable[[np.ndarray, int], np.ndarray], horizon: int) -> None:
    """Compile and import before anything is timed."""
    hours = np.arange(6 * WEEK)
    function(10 + np.sin(2 * np.pi * hours / DAY) + (hours * 7919 % 13) / 13, horizon)


def main(name: str, source: str, target: str) -> None:
    """Read the tasks, run a peer, write its forecasts."""
    warnings.simplefilter("ignore")
    with np.load(source) as tasks:
        paths, taken = run(name, tasks["history"], int(tasks["horizon"]))
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PEERS[name][1])
    np.savez(target, paths=paths, ms=taken, versions=np.array(versions))


if __name__ == "__main__":
    main(*sys.argv[1:])
