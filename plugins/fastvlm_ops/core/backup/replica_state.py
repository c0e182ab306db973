"""How far the second place is, as it was last recorded: events of the operations database, and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import select

from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.events import append_event
from fastvlm_ops.core.store.tables.backup import catalogue
from fastvlm_ops.core.store.tables.shared import events

_STREAM = "backup_replica"
_GOOD, _BAD = "replicated", "incomplete"
_TEXTS = {
    "last_success_timestamp_seconds": "The first place as it was then is in the second one, in seconds since"
    " 1970.",
    "lag_entries": "Entries of the first place's log that the second one lacks, as last known.",
    "lag_seconds": "How old the second place is when it lacks something, as last known; else 0.",
}


@dataclass(frozen=True)
class ReplicaState:
    """What the newest replication has found.

    :param connection: of the second place
    :param at: when it was recorded
    :param ok: whether all was copied, and what lies there was found intact
    :param sequence: the last entry of the log that the second place has
    :param behind_entries: those it lacks, by what is known of the first place since
    :param behind_seconds: how long ago it was complete, counted to when the first place was last looked at
    :param complete_until: all that was committed by then is there; None: it never was
    """

    connection: str
    at: datetime
    ok: bool
    sequence: int
    behind_entries: int
    behind_seconds: float | None
    complete_until: datetime | None


def record_replication(
    store: Store, run_key: str, replication: Mapping[str, Any], verification: Mapping[str, Any] | None
) -> bool:
    """Record a replication, once for a run and what came of it.

    :param replication: ``ReplicationResult.as_dict()`` with ``connection``
    :param verification: of the second place; None: it could not be verified
    :returns: whether it is new
    """
    is_good = bool(replication["ok"] and verification and verification["ok"])
    kept = ("repository_id", "sequence", "behind_entries", "behind_seconds", "complete_until", "objects")
    outcome = f"{replication['sequence']}/{replication['complete_until']}/{is_good}"
    with store.write() as connection:
        return append_event(
            connection,
            stream=_STREAM,
            dedup_key=f"{run_key}/{outcome}"[:500],
            subject=str(replication["connection"]),
            kind=_GOOD if is_good else _BAD,
            payload={name: replication[name] for name in (*kept, "size_bytes")},
        )


def replica_state(store: Store) -> ReplicaState | None:
    """What is known of the second place; None: nothing was ever copied there."""
    columns = events.c
    newest = select(events).where(columns.stream == _STREAM).order_by(columns.id.desc()).limit(1)
    good = newest.where(columns.kind == _GOOD)
    with store.read() as connection:
        row = connection.execute(newest).one_or_none()
        if row is None:
            return None
        complete = connection.execute(good).one_or_none()
        known = connection.execute(
            select(catalogue.c.repository_id, catalogue.c.sequence, catalogue.c.refreshed_at)
        ).one_or_none()
    payload = row.payload
    until = None if complete is None else datetime.fromisoformat(complete.payload["complete_until"])
    behind, age = int(payload["behind_entries"]), float(payload["behind_seconds"])
    if known is not None and known.repository_id == payload["repository_id"]:
        behind = max(behind, known.sequence - int(payload["sequence"]))
        if behind and until is not None and known.refreshed_at is not None:
            age = max(age, (known.refreshed_at - until).total_seconds())
    return ReplicaState(
        connection=row.subject,
        at=row.recorded_at,
        ok=row.kind == _GOOD,
        sequence=int(payload["sequence"]),
        behind_entries=behind,
        behind_seconds=age if behind else 0.0,
        complete_until=until,
    )


class ReplicaCollector(Collector):
    """Metrics of the second place. What is unknown has no sample, since 0 would be a value."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        state = replica_state(self._store)
        for name, text in _TEXTS.items():
            family = GaugeMetricFamily(f"fastvlm_backup_replica_{name}", text)
            value = None if state is None else _values(state)[name]
            if value is not None:
                family.add_metric([], value)
            yield family


def _values(state: ReplicaState) -> dict[str, float | None]:
    until = state.complete_until
    return {
        "last_success_timestamp_seconds": None if until is None else until.timestamp(),
        "lag_entries": state.behind_entries,
        "lag_seconds": state.behind_seconds,
    }
