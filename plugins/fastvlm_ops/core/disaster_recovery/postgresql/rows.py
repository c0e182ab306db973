"""Comparing a table in two databases, row by row, by key and by the hash of all columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError

if TYPE_CHECKING:
    from psycopg import Connection

#: How many rows that differ are named.
SHOWN = 10
_KEY_CHARACTERS = 200
_BATCH = 2000
# Names are quoted by the server. A partitioned table has its rows in its partitions.
_TABLES = """
SELECT format('%I.%I', space.nspname, class.relname),
       CASE WHEN class.relkind = 'm' THEN 'is a materialized view, which is made of other tables'
            WHEN class.relpersistence = 'u' THEN 'is unlogged, so that a standby has no rows of it'
            ELSE '' END
FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = class.relnamespace
WHERE class.relkind IN ('r', 'm') AND class.relpersistence <> 't'
  AND space.nspname NOT IN ('pg_catalog', 'information_schema') AND space.nspname !~ '^pg_(toast|temp)'
ORDER BY 1
"""
# Columns of the primary key, in its order.
_KEY = """
SELECT format('%%I', attribute.attname)
FROM pg_index AS index CROSS JOIN LATERAL unnest(index.indkey) WITH ORDINALITY AS key (number, place)
JOIN pg_attribute AS attribute ON attribute.attrelid = index.indrelid AND attribute.attnum = key.number
WHERE index.indrelid = %s::regclass AND index.indisprimary ORDER BY key.place
"""


@dataclass(frozen=True)
class Comparison:
    """A table in two databases.

    :param table: its name, quoted where it has to be
    :param rows: how many the primary has
    :param sha256: over all its rows on the primary
    :param missing: keys of rows that only the primary has, the first ones
    :param unexpected: keys of rows that only the standby has, the first ones
    :param changed: keys of rows that differ, the first ones, with the columns that do
    :param counts: how many there are of each of the three
    """

    table: str
    rows: int
    sha256: str
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    counts: tuple[int, int, int] = (0, 0, 0)

    def problems(self, primary: str, standby: str) -> Iterator[str]:
        """Yield what differs.

        :param primary: its name, for people
        :param standby: its name, for people
        """
        kinds = (
            (f"{{}} of {self.rows} rows of {primary} are missing on {standby}", self.missing),
            (f"{{}} rows of {standby} are not on {primary}", self.unexpected),
            (f"{{}} of {self.rows} rows differ on {standby}", self.changed),
        )
        for (text, keys), count in zip(kinds, self.counts, strict=True):
            if count:
                more = ", …" if count > len(keys) else ""
                yield f"{self.table}: {text.format(count)}: {', '.join(keys)}{more}"


@dataclass
class _Differences:
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, kind: int, key: str) -> None:
        self.counts[kind] += 1
        keys = (self.missing, self.unexpected, self.changed)[kind]
        if len(keys) < SHOWN:
            keys.append(key)


def user_tables(
    connection: Connection[Any], wanted: Sequence[str] | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Return the tables that can be compared, and those that cannot, with why.

    :param connection: to the primary
    :param wanted: only these, named as in the first part of the answer; all where None
    :raises DatabaseError: one of them is not there
    """
    found = dict(connection.execute(_TABLES).fetchall())
    if wanted is not None:
        lacking = sorted(set(wanted) - set(found))
        if lacking:
            raise DatabaseError(f"there is no table {', '.join(lacking)}; there are {', '.join(found)}")
        found = {name: found[name] for name in wanted}
    left_out = tuple(f"{name} {why}" for name, why in found.items() if why)
    return [name for name, why in found.items() if not why], left_out


def compare_table(primary: Connection[Any], standby: Connection[Any], table: str) -> Comparison:
    """Compare the rows of a table.

    :param primary: in a transaction
    :param standby: in a transaction that sees the same moment
    :param table: its quoted name
    """
    key = [row[0] for row in primary.execute(_KEY, [table])]
    found, digest, rows = _Differences(), hashlib.sha256(), 0
    left, right = _hashes(primary, table, key), _hashes(standby, table, key)
    here, there = next(left, None), next(right, None)
    while here is not None or there is not None:
        if there is None or (here is not None and _order(here) < _order(there)):
            found.add(0, _shown(here))
        elif here is None or _order(there) < _order(here):
            found.add(1, _shown(there))
            there = next(right, None)
            continue
        else:
            if here[1] != there[1]:
                found.add(2, _shown(here) if not key else here[0])
            there = next(right, None)
        assert here is not None  # noqa: S101 - the other branch has gone on
        rows += here[2]
        digest.update(f"{here[0]}\0{here[1]}\n".encode())
        here = next(left, None)
    return Comparison(
        table=table,
        rows=rows,
        sha256=digest.hexdigest(),
        missing=tuple(found.missing),
        unexpected=tuple(found.unexpected),
        changed=tuple(_with_columns(primary, standby, table, key, one) for one in found.changed),
        counts=(found.counts[0], found.counts[1], found.counts[2]),
    )


_Row = tuple[str, str, int]


def _hashes(connection: Connection[Any], table: str, key: Sequence[str]) -> Iterator[_Row]:
    """Yield key, hash and number of each row, in an order that this program can tell too.

    Without a key, a row's hash is its key, and how often it is there is what is compared.
    """
    content = "encode(sha256(convert_to(t::text, 'UTF8')), 'hex')"
    key_text = _key_of(key) if key else content
    count = "1" if key else "count(*)"
    query = (
        f'SELECT * FROM (SELECT {key_text} COLLATE "C" AS key, {content if key else "count(*)::text"},'  # noqa: S608 - names that the server has quoted
        f" {count} FROM ONLY {table} AS t{'' if key else ' GROUP BY 1'}) AS hashed ORDER BY key"
    )
    name = "rows_" + hashlib.sha256(table.encode()).hexdigest()[:16]
    with connection.cursor(name) as cursor:
        cursor.itersize = _BATCH
        yield from cursor.execute(query.encode())


def _key_of(key: Sequence[str]) -> str:
    """An expression of the key of a row as text: no two rows have the same."""
    return f"ROW({', '.join(f't.{column}' for column in key)})::text"


def _order(row: _Row) -> bytes:
    return row[0].encode()


def _shown(row: _Row | None) -> str:
    """The key of a row, for people; where it has none, the hash of it."""
    assert row is not None  # noqa: S101 - whoever calls has looked
    return row[0] if len(row[0]) <= _KEY_CHARACTERS else row[0][:_KEY_CHARACTERS] + "…"


def _with_columns(
    primary: Connection[Any], standby: Connection[Any], table: str, key: Sequence[str], value: str
) -> str:
    """A key, and the columns in which its row differs; not what is in them, which may be secret."""
    if not key:
        return f"{value} (there more or less often)"
    query = f"SELECT to_jsonb(t) FROM ONLY {table} AS t WHERE {_key_of(key)} = ".replace("%", "%%") + "%s"  # noqa: S608 - names that the server has quoted
    here, there = (
        connection.execute(query.encode(), [value]).fetchone() for connection in (primary, standby)
    )
    if here is None or there is None:
        return value
    columns = [name for name in here[0] if here[0][name] != there[0].get(name)]
    return f"{value} in {', '.join(columns)}" if columns else value
