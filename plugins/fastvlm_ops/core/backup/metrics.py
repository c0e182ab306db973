"""Metrics of the backups, from the catalogue, as a text file for Prometheus's node exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastvlm_ops.core.backup.catalogue import Catalogue, ComponentState
from fastvlm_ops.core.backup.replica_state import replica_metrics

METRICS_FILE = "fastvlm_backup.prom"

_OF_COMPONENTS = {
    "last_success_timestamp_seconds": "When the newest published backup was finished that is not known to be"
    " damaged, in seconds since 1970.",
    "age_objective_seconds": "How old the newest backup may be.",
    "size_bytes": "Size of what the newest backup holds.",
    "new_bytes": "What was sent to the bucket for the newest backup.",
    "duration_seconds": "How long the newest backup took.",
    "files": "Files that the newest backup holds.",
    "last_verified_timestamp_seconds": "When a backup of the component was last verified and found intact, in"
    " seconds since 1970.",
    "last_restored_timestamp_seconds": "When a backup of the component was last restored, in seconds since"
    " 1970.",
    "damaged_snapshots": "Published backups of the component that were found damaged, and not mended since.",
}


class _BackupCollector(Collector):
    """Reads the catalogue once. What is unknown has no sample, since 0 would be a value."""

    def __init__(self, catalogue: Catalogue, objectives: Mapping[str, timedelta]) -> None:
        self._catalogue = catalogue
        self._objectives = objectives

    def collect(self) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(f"fastvlm_backup_{name}", text, labels=["component"])
            for name, text in _OF_COMPONENTS.items()
        }
        for state in self._catalogue.components(self._objectives):
            for name, value in _values(state).items():
                if value is not None:
                    families[name].add_metric([state.component], value)
        yield from families.values()
        sets = GaugeMetricFamily("fastvlm_backup_sets", "Published backup sets.")
        if (count := self._catalogue.set_count()) is not None:
            sets.add_metric([], count)
        yield sets
        refreshed = GaugeMetricFamily(
            "fastvlm_backup_catalogue_refreshed_timestamp_seconds",
            "When the catalogue was last brought up to date with the bucket, in seconds since 1970.",
        )
        if (refreshed_at := self._catalogue.refreshed_at()) is not None:
            refreshed.add_metric([], refreshed_at.timestamp())
        yield refreshed
        yield from replica_metrics(self._catalogue.store)


def _values(state: ComponentState) -> dict[str, float | None]:
    newest, objective = state.newest, state.objective
    return {
        "last_success_timestamp_seconds": _seconds(state.backed_up_at),
        "age_objective_seconds": None if objective is None else objective.total_seconds(),
        "size_bytes": None if newest is None else newest.size_bytes,
        "new_bytes": None if newest is None else newest.new_bytes,
        "duration_seconds": None if newest is None else newest.duration_seconds,
        "files": None if newest is None else newest.files,
        "last_verified_timestamp_seconds": _seconds(state.last_verified_at),
        "last_restored_timestamp_seconds": _seconds(state.last_restored_at),
        "damaged_snapshots": state.damaged,
    }


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def write_metrics(catalogue: Catalogue, objectives: Mapping[str, timedelta], folder: Path) -> Path:
    """Write all metrics, under a temporary name that then gets the right one: a reader sees no half file.

    :param objectives: how old the newest backup may be, by component
    :param folder: what the node exporter's ``--collector.textfile.directory`` names
    :returns: the file
    :raises OSError: the folder cannot be written to.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_BackupCollector(catalogue, objectives))
    path = folder / METRICS_FILE
    write_to_textfile(str(path), registry)
    return path
