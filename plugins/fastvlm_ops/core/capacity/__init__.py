"""Capacity: forecasts of hourly series, what they need, and what to do.

forecast(history, horizon_hours)    history: a Series by time; gives mean and quantiles by hour
"""

from fastvlm_ops.core.capacity.forecasting import SeriesForecast, forecast, forecast_many
from fastvlm_ops.core.capacity.levels import LEVELS

__all__ = ["LEVELS", "SeriesForecast", "forecast", "forecast_many"]
