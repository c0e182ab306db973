"""What benchmarks wait for: a new version of a model."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from fastvlm_ops.triggers.coreml import PACKAGES_ASSET, ModelChangeTrigger


def watched_packages(*, watched: bool = True) -> Asset:
    """Return the asset that changes when there is a new package; schedule a DAG by it.

    :param watched: False while ``include/coreml.yaml`` cannot be read: nobody watches then, but what is known
        of the asset stays
    """
    watchers = [AssetWatcher("packages", ModelChangeTrigger())] if watched else []
    return Asset(PACKAGES_ASSET, watchers=watchers)
