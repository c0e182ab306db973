"""Assets that DAGs tell others about."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

#: The forecasts of an as-of hour are published; its events carry ``as_of`` and the partition's ``uri``.
CAPACITY_FORECAST = Asset(name="fastvlm_capacity_forecast", uri="fastvlm-ops://capacity-forecast")

#: A full backup is published, and verified: its restore test follows.
FULL_BACKUP = Asset(name="fastvlm/backup/full", uri="fastvlm-ops://backup/full")

#: A model got no worse on any device, or a person accepted it; its events carry ``model``, ``version`` and
#: ``digest``. They come through the alias, so that there is none when nothing was accepted.
ACCEPTED_MODEL = Asset(name="fastvlm/coreml/accepted_model", uri="fastvlm-ops://coreml/accepted-model")
ACCEPTED_MODELS = AssetAlias("fastvlm/coreml/accepted_models")
