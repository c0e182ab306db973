"""Capacity: forecasts of hourly series, what they need, and what to do.

forecast(history, horizon_hours)    history: a Series by time; gives mean and quantiles by hour

Each name is imported when it is first asked for: who only reads a forecast does not wait for pandas.
"""

from typing import TYPE_CHECKING

from fastvlm_ops.core import lazily

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

__getattr__ = lazily(__name__, _MODULES)
