"""Capacity forecasts, recommendations and scores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_forecasts()
    _create_recommendations()
    _create_scores()


def _create_forecasts() -> None:
    op.create_table(
        "capacity_forecast",
        sa.Column("as_of", UtcDateTime, primary_key=True),
        sa.Column("service", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(40), primary_key=True),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("horizon_days", sa.Integer, nullable=False),
        sa.Column("current_usage", sa.Double),
        sa.Column("forecasted_peak", sa.Double),
        sa.Column("required_seed", sa.Double),
        sa.Column("required_risk", sa.Double),
        sa.Column("capacity", sa.Double),
        sa.Column("exhaustion_probability", sa.Double),
        sa.Column("exhaustion_date", sa.Date),
        sa.Column("monthly_cost", sa.Double),
        sa.Column("trend_per_day", sa.Double),
        sa.Column("history_days", sa.Double),
        sa.Column("run_key", sa.String, nullable=False),
        sa.Column("artefact_uri", sa.String, nullable=False),
    )
    op.create_index("capacity_forecast_of_service", "capacity_forecast", ["service", "metric", "as_of"])


def _create_recommendations() -> None:
    op.create_table(
        "capacity_recommendation",
        sa.Column("as_of", UtcDateTime, primary_key=True),
        sa.Column("service", sa.String(255), primary_key=True),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("replicas_now", sa.Integer),
        sa.Column("replicas_wanted", sa.Integer),
        sa.Column("replicas_needed", sa.Integer),
        sa.Column("capped", sa.Boolean, nullable=False),
        sa.Column("trigger_metric", sa.String(40), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("applied_state", sa.String(40), nullable=False),
        sa.Column("run_key", sa.String, nullable=False),
    )
    op.create_index("capacity_recommendation_of_service", "capacity_recommendation", ["service", "as_of"])


def _create_scores() -> None:
    op.create_table(
        "capacity_score",
        sa.Column("as_of", UtcDateTime, primary_key=True),
        sa.Column("service", sa.String(255), primary_key=True),
        sa.Column("metric", sa.String(40), primary_key=True),
        sa.Column("horizon_days", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("mase", sa.Double),
        sa.Column("pinball95", sa.Double),
        sa.Column("coverage95", sa.Double),
        sa.Column("shortfall", sa.Boolean),
        sa.Column("waste", sa.Double),
        sa.Column("hours_scored", sa.Integer, nullable=False),
        sa.Column("scored_at", UtcDateTime, nullable=False),
    )
    op.create_index("capacity_score_of_service", "capacity_score", ["service", "metric", "as_of"])
