"""Capacity: forecasts of hourly series, what they need, and what to do.

forecast(history, horizon_hours)    history: a Series by time; gives mean and quantiles by hour

Each name is imported when it is first asked for: who only reads a forecast does not wait for pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvlm_ops.core.capacity.forecasting import SeriesForecast, forecast, forecast_many
    from fastvlm_ops.core.capacity.levels import LEVELS

__all__ = ["LEVELS", "SeriesForecast", "forecast", "forecast_many"]

_MODULES = {
    "LEVELS": "levels",
    "SeriesForecast": "forecasting",
    "forecast": "forecasting",
    "forecast_many": "forecasting",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
