"""Capacity forecasts: what each service needs, what was recommended, and how right the forecasts were."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Boolean, Column, Date, Double, Index, Integer, String, Table

from fastvlm_ops.core.store.tables.columns import UtcDateTime, metadata

_KEPT = timedelta(days=800)  # two years of forecasts, so that a season can be laid beside the last one

#: One row a resource of a service and as-of hour. What is not known is NULL, never 0.
forecasts = Table(
    "capacity_forecast",
    metadata,
    Column("as_of", UtcDateTime, primary_key=True),
    Column("service", String(255), primary_key=True),
    Column("metric", String(40), primary_key=True),
    Column("status", String(40), nullable=False),
    Column("reason", String, nullable=False),
    Column("model", String(255), nullable=False),
    Column("horizon_days", Integer, nullable=False),
    Column("current_usage", Double),
    Column("forecasted_peak", Double),
    Column("required_seed", Double),
    Column("required_risk", Double),
    Column("capacity", Double),
    Column("exhaustion_probability", Double),
    Column("exhaustion_date", Date),
    Column("monthly_cost", Double),
    Column("trend_per_day", Double),
    Column("history_days", Double),
    Column("run_key", String, nullable=False),
    Column("artefact_uri", String, nullable=False),
    Index("capacity_forecast_of_service", "service", "metric", "as_of"),
    info={"retention": ("as_of", _KEPT)},
)

recommendations = Table(
    "capacity_recommendation",
    metadata,
    Column("as_of", UtcDateTime, primary_key=True),
    Column("service", String(255), primary_key=True),
    Column("action", String(40), nullable=False),
    Column("replicas_now", Integer),
    Column("replicas_wanted", Integer),
    Column("replicas_needed", Integer),
    Column("capped", Boolean, nullable=False),
    Column("trigger_metric", String(40), nullable=False),
    Column("reason", String, nullable=False),
    Column("applied_state", String(40), nullable=False),
    Column("run_key", String, nullable=False),
    Index("capacity_recommendation_of_service", "service", "as_of"),
    info={"retention": ("as_of", _KEPT)},
)

scores = Table(
    "capacity_score",
    metadata,
    Column("as_of", UtcDateTime, primary_key=True),
    Column("service", String(255), primary_key=True),
    Column("metric", String(40), primary_key=True),
    Column("horizon_days", Integer, primary_key=True, autoincrement=False),
    Column("mase", Double),
    Column("pinball95", Double),
    Column("coverage95", Double),
    Column("shortfall", Boolean),
    Column("waste", Double),
    Column("hours_scored", Integer, nullable=False),
    Column("scored_at", UtcDateTime, nullable=False),
    Index("capacity_score_of_service", "service", "metric", "as_of"),
    info={"retention": ("as_of", _KEPT)},
)
