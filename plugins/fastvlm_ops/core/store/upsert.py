"""Rows by their natural key: written once, however often a task is retried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.store.errors import UpsertError


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    keep: Sequence[str] = (),
) -> None:
    """Insert rows, or change those that have the same key to what is given. The same again changes nothing.

    :param connection: of a writing transaction
    :param table: with a primary key or unique constraint over ``key``
    :param rows: all with the same columns; of two with one key the later counts
    :param key: columns of the natural key
    :param keep: columns that are written at first only, as in ``first_seen``
    :raises UpsertError: a row lacks its key, or has other columns than the first, or unknown ones
    """
    if not rows:
        return
    _check(table, rows, key, keep)
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table)
    changed = {name: insert.excluded[name] for name in rows[0] if name not in key and name not in keep}
    if changed:
        statement = insert.on_conflict_do_update(index_elements=list(key), set_=changed)
    else:
        statement = insert.on_conflict_do_nothing(index_elements=list(key))
    connection.execute(statement, [dict(row) for row in rows])


def _check(table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str], keep: Sequence[str]) -> None:
    columns = set(rows[0])
    if not key:
        raise UpsertError(f"{table.name}: no key was named; name the columns that tell its rows apart")
    if unknown := (columns | set(key) | set(keep)) - set(table.columns.keys()):
        raise UpsertError(f"{table.name} has no column {', '.join(sorted(unknown))}")
    for number, row in enumerate(rows):
        if set(row) != columns:
            odd = ", ".join(sorted(set(row) ^ columns))
            raise UpsertError(f"{table.name}: row {number} and row 0 differ in the columns they have: {odd}")
        if absent := [name for name in key if row.get(name) is None]:
            raise UpsertError(f"{table.name}: row {number} lacks its key {', '.join(absent)}")
