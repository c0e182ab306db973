"""Core ML benchmarks: which models there are, how they ran on each device, what that was judged to be."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, String, Table

from fastvlm_ops.core.store.tables.columns import UtcDateTime, metadata

_KEPT = timedelta(days=800)  # two years of nights, so that a trend can be laid beside the last one

#: One row a package, by the digest of its files: the same bytes under another name are the same model.
models = Table(
    "coreml_model",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("version", String(100), nullable=False),
    Column("spec_version", Integer),
    Column("size_bytes", BigInteger),
    Column("parameters", BigInteger),
    Column("flops", Double),
    Column("compressed_share", Double),
    Column("structure_hash", String(64)),
    Column("inspection", JSON, nullable=False),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Index("coreml_model_of_name", "name", "first_seen_at"),
)

#: One row a device, model and compute unit of a run. What is not known is NULL, never 0. The times and the
#: memory are medians over its sessions; a session's are in ``coreml_session``.
runs = Table(
    "coreml_run",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("compute_unit", String(40), primary_key=True),
    Column("measured_at", UtcDateTime, nullable=False),
    Column("version", String(100), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("status", String(40), nullable=False),
    Column("failure_code", String(40)),
    Column("failure_detail", String),
    Column("hardware_class", String(40)),
    Column("device_model", String(255)),
    Column("os_version", String(100)),
    Column("os_build", String(255)),
    Column("identifier_hash", String(64)),
    Column("epoch", String, nullable=False),
    Column("toolchain", JSON, nullable=False),
    Column("sessions", Integer, nullable=False),
    Column("sessions_failed", Integer, nullable=False),
    Column("latency_p50_ms", Double),
    Column("latency_p90_ms", Double),
    Column("latency_p99_ms", Double),
    Column("latency_min_ms", Double),
    Column("load_cold_ms", Double),
    Column("load_warm_ms", Double),
    Column("peak_memory_bytes", BigInteger),
    Column("size_bytes", BigInteger),
    Column("golden_id", String(255)),
    Column("psnr_db", Double),
    Column("cosine", Double),
    Column("max_abs_difference", Double),
    Column("argmax_agree", Double),
    Column("nan_count", BigInteger),
    Column("inf_count", BigInteger),
    Column("cost_share_ane", Double),
    Column("cost_share_gpu", Double),
    Column("cost_share_cpu", Double),
    Column("cost_share_unknown", Double),
    Column("artefact_name", String(255)),
    Column("artefact_uri", String),
    Index("coreml_run_of_model", "model", "device", "compute_unit", "measured_at"),
    info={"retention": ("measured_at", _KEPT)},
)

#: One row a session. Its raw samples are in the run's artefact.
sessions = Table(
    "coreml_session",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("compute_unit", String(40), primary_key=True),
    Column("session_index", Integer, primary_key=True, autoincrement=False),
    Column("measured_at", UtcDateTime, nullable=False),
    Column("failure_code", String(40)),
    Column("failure_detail", String),
    Column("predictions", Integer, nullable=False),
    Column("p50_ms", Double),
    Column("p90_ms", Double),
    Column("p99_ms", Double),
    Column("min_ms", Double),
    Column("load_cold_ms", Double),
    Column("load_warm_ms", Double),
    Column("peak_memory_bytes", BigInteger),
    Column("thermal_start", String(40)),
    Column("thermal_end", String(40)),
    Column("low_power", Boolean),
    Column("battery_percent", Double),
    Column("charging", Boolean),
    Column("cooldown_seconds", Double, nullable=False),
    Index("coreml_session_of_model", "model", "device", "compute_unit", "measured_at"),
    info={"retention": ("measured_at", _KEPT)},
)

verdicts = Table(
    "coreml_verdict",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("compute_unit", String(40), primary_key=True),
    Column("metric", String(100), primary_key=True),
    Column("judged_at", UtcDateTime, nullable=False),
    Column("verdict", String(40), nullable=False),
    Column("baseline_value", Double),
    Column("value", Double),
    Column("change", Double),
    Column("p_value", Double),
    Column("confidence", Double),
    Column("reason", String, nullable=False),
    Column("gate", Boolean, nullable=False),
    Column("details", JSON, nullable=False),
    Index("coreml_verdict_of_model", "model", "device", "compute_unit", "judged_at"),
    info={"retention": ("judged_at", _KEPT)},
)

#: Which runs later ones are compared with, and who said so: ``green``, or the name of a person.
baselines = Table(
    "coreml_baseline",
    metadata,
    Column("run_key", String(500), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("compute_unit", String(40), primary_key=True),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("accepted_by", String(255), nullable=False),
    Column("version", String(100), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("epoch", String, nullable=False),
    Index("coreml_baseline_of_model", "model", "device", "compute_unit", "accepted_at"),
    info={"retention": ("accepted_at", _KEPT)},
)
