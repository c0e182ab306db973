"""What backups wait for: a change of the watched component."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from fastvlm_ops.triggers.backup import WATCHED_ASSET, ComponentChangeTrigger


def watched_component(component: str | None) -> Asset:
    """Return the asset that changes when the watched component does; schedule a DAG by it.

    :param component: its name in ``include/components.yaml``; None while that file cannot be read: nobody
        watches then, but what is known of the asset stays
    """
    if component is None:
        return Asset(WATCHED_ASSET)
    return Asset(WATCHED_ASSET, watchers=[AssetWatcher("changes", ComponentChangeTrigger(component))])
