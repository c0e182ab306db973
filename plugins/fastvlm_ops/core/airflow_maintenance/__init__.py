"""Keeps Airflow's own database small, by Airflow's own command."""

from fastvlm_ops.core.airflow_maintenance.cleaning import (
    SHORTEST_KEEP_DAYS,
    CleaningError,
    RowCounts,
    clean,
    count_rows,
    shortfalls,
)

__all__ = ["SHORTEST_KEEP_DAYS", "CleaningError", "RowCounts", "clean", "count_rows", "shortfalls"]
