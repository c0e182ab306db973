"""Windows of recovery as rows of the operations database, and as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import select

from fastvlm_ops.core.backup.postgresql.lsn import format_lsn
from fastvlm_ops.core.store.tables.backup import wal_windows
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.wal_watch import WalState
    from fastvlm_ops.core.store import Store

_TEXTS = {
    "recoverable_from_timestamp_seconds": "The oldest moment that the component can be recovered to, in"
    " seconds since 1970.",
    "recoverable_until_timestamp_seconds": "The newest moment that the component can be recovered to, in"
    " seconds since 1970.",
    "wal_lag_bytes": "WAL that the server has written and the bucket does not have.",
    "wal_lag_seconds": "Age of the last stored transaction; 0 where none came after it.",
    "wal_gap": "1 where WAL is missing between a base backup and the newest segment, else 0.",
    "wal_stored_bytes": "Size of the WAL in the bucket.",
    "wal_checked_timestamp_seconds": "When the window was last proven, in seconds since 1970.",
}


@dataclass(frozen=True)
class WindowRow:
    """A component's window as it was last proven. None is unknown."""

    component: str
    checked_at: datetime
    system_id: str | None
    timeline: int | None
    recoverable_from: datetime | None
    recoverable_until: datetime | None
    from_lsn: str | None
    until_lsn: str | None
    server_lsn: str | None
    lag_bytes: int | None
    lag_seconds: float | None
    segments: int
    stored_bytes: int
    gap: str | None


def record_window(store: Store, state: WalState) -> WindowRow | None:
    """Write what was found, in the place of what was found before, which is returned.

    :raises StoreError: the database does not answer
    """
    window, server = state.window, state.server
    row: dict[str, Any] = {
        "component": state.component,
        "checked_at": state.checked_at,
        "system_id": window.system_id,
        "timeline": window.timeline,
        "recoverable_from": window.recoverable_from,
        "recoverable_until": window.recoverable_until,
        "from_lsn": None if window.from_lsn is None else format_lsn(window.from_lsn),
        "until_lsn": None if window.until_lsn is None else format_lsn(window.until_lsn),
        "server_lsn": None if server is None else format_lsn(server.cluster.current_lsn),
        "lag_bytes": state.lag_bytes,
        "lag_seconds": state.lag_seconds,
        "segments": window.segments,
        "stored_bytes": window.stored_bytes,
        "gap": window.gap,
    }
    with store.write() as connection:
        statement = select(wal_windows).where(wal_windows.c.component == state.component)
        before = connection.execute(statement).mappings().one_or_none()
        upsert(connection, wal_windows, [row], ["component"])
    return None if before is None else WindowRow(**before)


def read_windows(store: Store) -> list[WindowRow]:
    """Return the windows of all components, by name.

    :raises StoreError: the database does not answer
    """
    with store.read() as connection:
        rows = connection.execute(select(wal_windows).order_by(wal_windows.c.component)).mappings()
        return [WindowRow(**row) for row in rows]


class WalCollector(Collector):
    """Reads the windows once. What is unknown has no sample, since 0 would be a value."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(f"fastvlm_backup_{name}", text, labels=["component"])
            for name, text in _TEXTS.items()
        }
        for row in read_windows(self._store):
            for name, value in _values(row).items():
                if value is not None:
                    families[name].add_metric([row.component], value)
        yield from families.values()


def _values(row: WindowRow) -> dict[str, float | None]:
    is_known = row.until_lsn is not None or row.gap is not None
    return {
        "recoverable_from_timestamp_seconds": _seconds(row.recoverable_from),
        "recoverable_until_timestamp_seconds": _seconds(row.recoverable_until),
        "wal_lag_bytes": row.lag_bytes,
        "wal_lag_seconds": row.lag_seconds,
        "wal_gap": (1 if row.gap else 0) if is_known else None,
        "wal_stored_bytes": row.stored_bytes,
        "wal_checked_timestamp_seconds": _seconds(row.checked_at),
    }


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
