"""What has happened: appended, never changed, and recorded once however often it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.shared import events


@dataclass(frozen=True)
class Event:
    """One event.

    :param id: grows in the order of recording; may have gaps
    :param stream: what kind of history it belongs to, as in ``incident``
    :param dedup_key: that it is recorded by once in its stream
    :param subject: what it happened to
    :param kind: what happened
    :param at: when it happened, in UTC
    :param recorded_at: when it was recorded, in UTC
    :param payload: small JSON
    """

    id: int
    stream: str
    dedup_key: str
    subject: str
    kind: str
    at: datetime
    recorded_at: datetime
    payload: dict[str, Any]


def append_event(
    connection: Connection,
    *,
    stream: str,
    dedup_key: str,
    subject: str,
    kind: str,
    at: datetime | None = None,
    payload: Mapping[str, Any] | None = None,
) -> bool:
    """Record an event, unless the stream has one with this key: then the first stays as it is.

    :param connection: of a writing transaction
    :param at: when it happened, aware; the time of recording unless given
    :returns: whether it is new
    """
    recorded_at = now(connection)
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(events).values(
        stream=stream,
        dedup_key=dedup_key,
        subject=subject,
        kind=kind,
        at=at if at is not None else recorded_at,
        recorded_at=recorded_at,
        payload=dict(payload or {}),
    )
    statement = statement.on_conflict_do_nothing(index_elements=["stream", "dedup_key"])
    return connection.execute(statement.returning(events.c.id)).first() is not None


def list_events(
    connection: Connection,
    stream: str,
    *,
    subject: str | None = None,
    after_id: int = 0,
    limit: int = 1000,
) -> list[Event]:
    """Return events in the order of recording.

    :param connection: of any transaction
    :param subject: of this one only
    :param after_id: of later ones only
    :param limit: how many at most
    """
    query = select(events).where(events.c.stream == stream, events.c.id > after_id)
    if subject is not None:
        query = query.where(events.c.subject == subject)
    return [_event(row) for row in connection.execute(query.order_by(events.c.id).limit(limit))]


def _event(row: Row[Any]) -> Event:
    return Event(**row._mapping)
