"""Core ML benchmarks: models, runs, sessions, verdicts and baselines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fastvlm_ops.core.store.tables.columns import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _create_models()
    _create_runs()
    _create_sessions()
    _create_verdicts()
    _create_baselines()


def _create_models() -> None:
    op.create_table(
        "coreml_model",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("spec_version", sa.Integer),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("parameters", sa.BigInteger),
        sa.Column("flops", sa.Double),
        sa.Column("compressed_share", sa.Double),
        sa.Column("structure_hash", sa.String(64)),
        sa.Column("inspection", sa.JSON, nullable=False),
        sa.Column("first_seen_at", UtcDateTime, nullable=False),
    )
    op.create_index("coreml_model_of_name", "coreml_model", ["name", "first_seen_at"])


def _create_runs() -> None:
    op.create_table(
        "coreml_run",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("device", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("compute_unit", sa.String(40), primary_key=True),
        sa.Column("measured_at", UtcDateTime, nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("failure_code", sa.String(40)),
        sa.Column("failure_detail", sa.String),
        sa.Column("hardware_class", sa.String(40)),
        sa.Column("device_model", sa.String(255)),
        sa.Column("os_version", sa.String(100)),
        sa.Column("os_build", sa.String(255)),
        sa.Column("identifier_hash", sa.String(64)),
        sa.Column("epoch", sa.String, nullable=False),
        sa.Column("toolchain", sa.JSON, nullable=False),
        sa.Column("sessions", sa.Integer, nullable=False),
        sa.Column("sessions_failed", sa.Integer, nullable=False),
        sa.Column("latency_p50_ms", sa.Double),
        sa.Column("latency_p90_ms", sa.Double),
        sa.Column("latency_p99_ms", sa.Double),
        sa.Column("latency_min_ms", sa.Double),
        sa.Column("load_cold_ms", sa.Double),
        sa.Column("load_warm_ms", sa.Double),
        sa.Column("peak_memory_bytes", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("golden_id", sa.String(255)),
        sa.Column("psnr_db", sa.Double),
        sa.Column("cosine", sa.Double),
        sa.Column("max_abs_difference", sa.Double),
        sa.Column("argmax_agree", sa.Double),
        sa.Column("nan_count", sa.BigInteger),
        sa.Column("inf_count", sa.BigInteger),
        sa.Column("cost_share_ane", sa.Double),
        sa.Column("cost_share_gpu", sa.Double),
        sa.Column("cost_share_cpu", sa.Double),
        sa.Column("cost_share_unknown", sa.Double),
        sa.Column("artefact_name", sa.String(255)),
        sa.Column("artefact_uri", sa.String),
    )
    op.create_index("coreml_run_of_model", "coreml_run", ["model", "device", "compute_unit", "measured_at"])


def _create_sessions() -> None:
    op.create_table(
        "coreml_session",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("device", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("compute_unit", sa.String(40), primary_key=True),
        sa.Column("session_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("measured_at", UtcDateTime, nullable=False),
        sa.Column("failure_code", sa.String(40)),
        sa.Column("failure_detail", sa.String),
        sa.Column("predictions", sa.Integer, nullable=False),
        sa.Column("p50_ms", sa.Double),
        sa.Column("p90_ms", sa.Double),
        sa.Column("p99_ms", sa.Double),
        sa.Column("min_ms", sa.Double),
        sa.Column("load_cold_ms", sa.Double),
        sa.Column("load_warm_ms", sa.Double),
        sa.Column("peak_memory_bytes", sa.BigInteger),
        sa.Column("thermal_start", sa.String(40)),
        sa.Column("thermal_end", sa.String(40)),
        sa.Column("low_power", sa.Boolean),
        sa.Column("battery_percent", sa.Double),
        sa.Column("charging", sa.Boolean),
        sa.Column("cooldown_seconds", sa.Double, nullable=False),
    )
    op.create_index(
        "coreml_session_of_model", "coreml_session", ["model", "device", "compute_unit", "measured_at"]
    )


def _create_verdicts() -> None:
    op.create_table(
        "coreml_verdict",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("device", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("compute_unit", sa.String(40), primary_key=True),
        sa.Column("metric", sa.String(100), primary_key=True),
        sa.Column("judged_at", UtcDateTime, nullable=False),
        sa.Column("verdict", sa.String(40), nullable=False),
        sa.Column("baseline_value", sa.Double),
        sa.Column("value", sa.Double),
        sa.Column("change", sa.Double),
        sa.Column("p_value", sa.Double),
        sa.Column("confidence", sa.Double),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("gate", sa.Boolean, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index(
        "coreml_verdict_of_model", "coreml_verdict", ["model", "device", "compute_unit", "judged_at"]
    )


def _create_baselines() -> None:
    op.create_table(
        "coreml_baseline",
        sa.Column("run_key", sa.String(500), primary_key=True),
        sa.Column("device", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("compute_unit", sa.String(40), primary_key=True),
        sa.Column("accepted_at", UtcDateTime, nullable=False),
        sa.Column("accepted_by", sa.String(255), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("epoch", sa.String, nullable=False),
    )
    op.create_index(
        "coreml_baseline_of_model", "coreml_baseline", ["model", "device", "compute_unit", "accepted_at"]
    )
