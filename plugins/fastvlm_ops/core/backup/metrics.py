"""Metrics of the backups, from the catalogue, as a text file for Prometheus's node exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastvlm_ops.core.backup.catalogue import Catalogue, ComponentState, Verification
from fastvlm_ops.core.backup.commit_log import looks_where
from fastvlm_ops.core.backup.cost_metrics import CostCollector
from fastvlm_ops.core.backup.replica_state import ReplicaCollector
from fastvlm_ops.core.backup.wal_windows import WalCollector

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
    "last_restore_tested_timestamp_seconds": "When a backup of the component last passed a restore test, in"
    " seconds since 1970.",
    "restore_failed_snapshots": "Published backups of the component whose restore test failed, with none"
    " since that passed.",
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
        yield from _verification_metrics(self._catalogue.verifications())
        yield _pruning_metric(self._catalogue.prunings())


def _verification_metrics(newest_first: Sequence[Verification]) -> Iterator[Metric]:
    last = GaugeMetricFamily(
        "fastvlm_backup_verification_timestamp_seconds",
        "When something was last verified at a level, whatever was found, in seconds since 1970.",
        labels=["level"],
    )
    newest: dict[str, Verification] = {}
    for one in newest_first:
        newest.setdefault(one.level, one)
    for level, one in sorted(newest.items()):
        last.add_metric([level], one.at.timestamp())
    yield last
    damaged = GaugeMetricFamily(
        "fastvlm_backup_damaged_objects",
        "Objects that backups need and that were found damaged, and not mended since; of the verification"
        " that found most.",
    )
    if newest_first:
        damaged.add_metric([], max(standing_damage(newest_first), default=0))
    yield damaged


def standing_damage(newest_first: Sequence[Verification]) -> list[int]:
    """How many damaged objects verifications found of which none since has shown that they are gone.

    :param newest_first: verifications; where one did not say how many objects it found, it counts as one
    """
    found: list[int] = []
    later: list[Verification] = []
    for one in newest_first:
        if one.ok:
            later.append(one)
        elif not any(_clears(other, one) for other in later):
            found.append(one.damaged_objects or 1)
    return found


def _clears(later: Verification, found: Verification) -> bool:
    if later.level == "members":  # which looks at the snapshots of one run
        return False
    about = [{"level": one.level, "share": (one.share, one.shares)} for one in (later, found)]
    return looks_where(*about)


def _pruning_metric(newest: Mapping[str, datetime]) -> Metric:
    family = GaugeMetricFamily(
        "fastvlm_backup_pruning_timestamp_seconds",
        "When the newest plan of pruning with a status was made, in seconds since 1970.",
        labels=["status"],
    )
    for status, at in sorted(newest.items()):
        family.add_metric([status], at.timestamp())
    return family


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
        "last_restore_tested_timestamp_seconds": _seconds(state.last_restore_tested_at),
        "restore_failed_snapshots": state.restore_failed,
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
    registry.register(WalCollector(catalogue.store))
    registry.register(ReplicaCollector(catalogue.store))
    registry.register(CostCollector(catalogue.store))
    path = folder / METRICS_FILE
    write_to_textfile(str(path), registry)
    return path
