"""Removes rows that are older than their table says they may get.

A table says so in ``info["retention"]``: a column with a time, and an age. Rows without a time in that
column, as messages that were never acknowledged, stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Column, Connection, Table, delete, func, select, tuple_, update

from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.engine import Store
from fastvlm_ops.core.store.errors import RetentionError
from fastvlm_ops.core.store.tables import all_tables
from fastvlm_ops.core.store.tables.columns import UtcDateTime
from fastvlm_ops.core.store.tables.shared import event_permit, events


@dataclass(frozen=True)
class Removal:
    """What retention did with one table.

    :param table: its name
    :param older_than: rows from before this moment went, in UTC
    :param rows: how many; with ``dry_run`` how many would have
    """

    table: str
    older_than: datetime
    rows: int


def retained_tables() -> list[Table]:
    """Return the tables that say how old their rows may get."""
    return [table for table in all_tables().sorted_tables if "retention" in table.info]


def remove_old_rows(
    store: Store, table: Table, *, dry_run: bool, batch: int = 1000, at: datetime | None = None
) -> Removal:
    """Remove the rows of a table that are older than it says.

    In batches, each a transaction of its own: others get their turn, and a killed run goes on where it was.

    :param store: the operations database
    :param table: with ``info["retention"]``
    :param dry_run: whether rows are only counted
    :param batch: how many rows at once
    :param at: the moment that ages are counted to, aware; now unless given, and never later than now
    :raises RetentionError: the table does not say how old its rows may get
    """
    column, age = _rule(table)
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, not {batch}")
    with store.read() as connection:
        moment = now(connection)
        cutoff = min(at or moment, moment) - age
        if dry_run:
            query = select(func.count()).select_from(table).where(column < cutoff)
            return Removal(table.name, cutoff, connection.execute(query).scalar_one())
    removed = 0
    while True:
        with store.write() as connection:
            count = _remove_batch(connection, table, column, cutoff, batch)
        removed += count
        if count < batch:
            return Removal(table.name, cutoff, removed)


def _rule(table: Table) -> tuple[Column[datetime], timedelta]:
    rule = table.info.get("retention")
    if rule is None:
        raise RetentionError(
            f"table {table.name} does not say how old its rows may get, so none is removed; give it"
            ' info={"retention": (<column>, <age>)} where it is defined'
        )
    name, age = rule
    column = table.columns.get(name)
    if column is None or not isinstance(column.type, UtcDateTime) or age <= timedelta():
        raise RetentionError(f"table {table.name}: info['retention'] is {rule!r}: no UTC time or no age")
    return column, age


def _remove_batch(
    connection: Connection, table: Table, column: Column[datetime], cutoff: datetime, batch: int
) -> int:
    if table is events:
        connection.execute(update(event_permit).values(remove_before=cutoff))
    key = list(table.primary_key.columns)
    oldest = select(*key).where(column < cutoff).order_by(column).limit(batch)
    # FOR UPDATE: of two that remove at once, neither counts what the other removed. SQLite needs no lock.
    oldest = oldest.with_for_update(skip_locked=True)
    condition = key[0].in_(oldest) if len(key) == 1 else tuple_(*key).in_(oldest)
    removed = connection.execute(delete(table).where(condition))
    if table is events:
        connection.execute(update(event_permit).values(remove_before=None))
    return removed.rowcount
