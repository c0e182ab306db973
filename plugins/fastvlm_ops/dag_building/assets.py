"""Assets that DAGs tell others about."""

from __future__ import annotations

from airflow.sdk import Asset

#: The forecasts of an as-of hour are published; its events carry ``as_of`` and the partition's ``uri``.
CAPACITY_FORECAST = Asset(name="fastvlm_capacity_forecast", uri="fastvlm-ops://capacity-forecast")
