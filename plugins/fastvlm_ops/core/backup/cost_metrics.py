"""Metrics of what is stored and asked for, from the operations database."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import select

from fastvlm_ops.core.backup.costs import recent_usage, stored_history
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables.backup import catalogue

_BYTES = ("sent_bytes", "received_bytes")


class CostCollector(Collector):
    """Bytes by kind as last measured, requests of the last 30 days. What is unknown has no sample."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        yield from self._stored()
        requests = GaugeMetricFamily(
            "fastvlm_backup_recent_requests",
            "Requests that the tasks have sent to the bucket in the last 30 days, retries included.",
            labels=["verb"],
        )
        transferred = GaugeMetricFamily(
            "fastvlm_backup_recent_transfer_bytes",
            "Bytes of bodies that the tasks have exchanged with the bucket in the last 30 days.",
            labels=["direction"],
        )
        recent = recent_usage(self._store)
        for name, count in recent.usage.as_dict().items() if recent is not None else ():
            if name in _BYTES:
                transferred.add_metric([name.removesuffix("_bytes")], count)
            else:
                requests.add_metric([name], count)
        yield from (requests, transferred)

    def _stored(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "fastvlm_backup_stored_bytes", "Bytes in the bucket by what they are.", labels=["kind"]
        )
        objects = GaugeMetricFamily("fastvlm_backup_stored_objects", "Objects in the bucket.")
        with self._store.read() as connection:
            repository_id = connection.scalar(select(catalogue.c.repository_id))
        history = stored_history(self._store, repository_id, limit=1) if repository_id else []
        for stored in history:
            objects.add_metric([], stored.objects)
            for kind, size_bytes in stored.by_kind.items():
                family.add_metric([kind], size_bytes)
        yield from (family, objects)
