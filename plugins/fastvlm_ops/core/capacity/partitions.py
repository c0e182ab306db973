"""Histories and forecasts as Parquet: the same rows in any order are the same bytes.

Rows are sorted, the compression and its level are fixed, and nothing of when they were written is kept.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.capacity.levels import LEVELS, column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

#: Quantiles that hourly rows keep; all of LEVELS would be more than twice the size.
HOURLY_LEVELS = (0.5, 0.95, 0.99)
_ROW_GROUP = 1_000_000
_COMPRESSION_LEVEL = 3

_KEYS: Mapping[str, tuple[str, ...]] = {
    "history": ("service", "metric", "hour"),
    "daily_history": ("service", "metric", "day"),
    "series": ("service", "metric"),
    "daily": ("service", "metric", "day"),
    "hourly": ("service", "metric", "hour"),
}


def schema(kind: str) -> pa.Schema:
    """Return the columns of a kind of table.

    :param kind: ``history`` (an hour's average and peak), ``daily_history``, ``series`` (one row a series),
        ``daily`` or ``hourly`` (the forecast)
    """
    import pyarrow as pa

    moment = pa.timestamp("ms", tz="UTC")
    text, number, short = pa.string(), pa.float64(), pa.float32()
    names = [("service", text), ("metric", text)]
    quantiles = [column(level) for level in HOURLY_LEVELS]
    columns: dict[str, list[tuple[str, Any]]] = {
        "history": [*names, ("hour", moment), ("average", number), ("peak", number)],
        "daily_history": [*names, ("day", moment), ("mean", short), ("p95", short), ("max", short)],
        "series": [
            *names,
            *((name, text) for name in ("status", "reason", "model", "notes")),
            *((name, number) for name in NUMBERS),
            ("exhaustion_date", text),
            ("replicas", pa.int64()),
            *((f"peak_{column(level)}", number) for level in LEVELS),
            *((f"max_{column(level)}", number) for level in LEVELS),
        ],
        "daily": [
            ("as_of", moment),
            *names,
            ("day", moment),
            ("mean", number),
            *((name, number) for name in quantiles),
            ("max", number),
        ],
        "hourly": [*names, ("hour", moment), ("mean", short), *((name, short) for name in quantiles)],
    }
    return pa.schema(columns[kind])


#: What is known of a series and its needs, in its partition and its row alike.
NUMBERS = (
    "current_usage",
    "forecasted_peak",
    "required_seed",
    "required_risk",
    "capacity",
    "exhaustion_probability",
    "monthly_cost",
    "trend_per_day",
    "history_days",
)


def table_of(kind: str, columns: Mapping[str, Any]) -> pa.Table:
    """Return a table, its columns cast to what its kind says.

    :param kind: as in :func:`schema`
    :param columns: values by name; all of them
    """
    import pyarrow as pa

    fields = schema(kind)
    arrays = [_array(columns[field.name], field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=fields)


def join(kind: str, tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tables of one kind.

    :param kind: as in :func:`schema`
    :param tables: in any order; may be none
    """
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks() if tables else schema(kind).empty_table()


def encode(kind: str, table: pa.Table, notes: Mapping[str, str] | None = None) -> bytes:
    """Return a table as Parquet.

    :param kind: as in :func:`schema`
    :param table: its rows, in any order
    :param notes: to be kept in the file's metadata
    """
    import pyarrow.parquet as parquet

    table = _sorted(table.cast(schema(kind)), _KEYS[kind])
    table = table.replace_schema_metadata(dict(sorted((notes or {}).items())) or None)
    sink = io.BytesIO()
    parquet.write_table(
        table,
        sink,
        version="2.6",
        compression="zstd",
        compression_level=_COMPRESSION_LEVEL,
        row_group_size=_ROW_GROUP,
        use_dictionary=[field.name for field in table.schema if str(field.type) == "string"],
    )
    return sink.getvalue()


def decode(kind: str, data: bytes, where: Mapping[str, str] | None = None) -> pa.Table:
    """Return a table of what :func:`encode` has made.

    :param kind: as in :func:`schema`
    :param data: Parquet
    :param where: values that columns must have, as in ``{"service": "api"}``; None for all rows
    :raises ValueError: it is no Parquet, or not of this kind
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.ParquetFile(pa.BufferReader(data)).read()
        for name, value in (where or {}).items():
            table = _only(table, name, value)
        return table.select(schema(kind).names).cast(schema(kind)).replace_schema_metadata(None)
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"these {len(data)} bytes are no Parquet table of kind {kind}: {error}") from error


def notes_of(data: bytes) -> dict[str, str]:
    """Return what :func:`encode` was given as notes.

    :param data: Parquet
    :raises ValueError: it is no Parquet
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        found = parquet.read_schema(pa.BufferReader(data)).metadata or {}
    except pa.ArrowException as error:
        raise ValueError(f"these {len(data)} bytes are no Parquet: {error}") from error
    return {key.decode(): value.decode() for key, value in found.items()}


def _only(table: pa.Table, name: str, value: str) -> pa.Table:
    """The rows in which a column has a value.

    Parquet's own filters, and whatever makes a scalar of a string, import pandas: a second and more for a
    page that shows one series.
    """
    import numpy as np
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[name], texts([value], np.zeros(1, np.int64))[0]))


def numbers(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a column; times in milliseconds since 1970, and NaN where a number is not known.

    Not by ``to_numpy``, which imports pandas.

    :param table: of any kind
    :param name: of a column of numbers or times; of whole numbers and times, all are known
    """
    return _values(table[name].combine_chunks())


def words(table: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the texts of a column, each once, and which of them each row has.

    :param table: of any kind
    :param name: of a column of texts, all of them known
    """
    return _coded(table[name].combine_chunks())


def texts(found: Sequence[str | None], places: NDArray[np.int64]) -> pa.Array:
    """Return a column of texts by their numbers: of millions of rows, Python sees the few texts only.

    :param found: the texts
    :param places: which of them each row has
    """
    import numpy as np
    import pyarrow as pa

    parts = [(text or "").encode() for text in found]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    known = _bits(np.array([text is not None for text in found], dtype=bool))
    buffers = [known, pa.py_buffer(ends), pa.py_buffer(b"".join(parts))]
    column = pa.Array.from_buffers(pa.string(), len(parts), buffers)
    return column.take(_column(places, pa.int64(), np.ones(len(places), dtype=bool)))


def _coded(array: pa.Array) -> tuple[list[str], NDArray[np.int64]]:
    coded = array.dictionary_encode()
    return coded.dictionary.to_pylist(), _values(coded.indices)


def _values(array: pa.Array) -> NDArray[Any]:
    import numpy as np
    import pyarrow as pa

    size = "i8" if pa.types.is_timestamp(array.type) else array.type.to_pandas_dtype()
    known, data = array.buffers()
    part = slice(array.offset, array.offset + len(array))
    if not len(array):
        return np.empty(0, size)
    values: NDArray[Any] = np.frombuffer(data, size)[part]
    if array.null_count:
        bits = np.unpackbits(np.frombuffer(known, np.uint8), bitorder="little")[part]
        values = np.where(bits, values, np.nan)
    return values


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as a column: unknown is null, in a file that others read too.

    Not by ``pa.array``, which imports pandas first: a task that forecasts would wait for that longer than it
    works.

    :param values: an array of numbers or times, or a list, where unknown is None, or a column
    :param kind: of the column
    """
    import numpy as np
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    if pa.types.is_string(kind):
        number = {value: n for n, value in enumerate(dict.fromkeys(values))}
        places = np.fromiter((number[value] for value in values), np.int64, len(values))
        return texts(list(number), places)
    if isinstance(values, np.ndarray):
        known = ~np.isnan(values)
    else:
        known = np.array([value is not None for value in values], dtype=bool)
        values = np.array([0 if value is None else value for value in values])
    size = "datetime64[ms]" if pa.types.is_timestamp(kind) else kind.to_pandas_dtype()
    return _column(np.asarray(values).astype(size), kind, known)


def _column(values: NDArray[Any], kind: pa.DataType, known: NDArray[np.bool_]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    data = pa.py_buffer(np.ascontiguousarray(values).view(np.uint8))
    return pa.Array.from_buffers(kind, len(values), [_bits(known), data])


def _bits(known: NDArray[np.bool_]) -> pa.Buffer | None:
    import numpy as np
    import pyarrow as pa

    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))


def _sorted(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """By the keys; strings by their rank among the few that there are, which is far quicker."""
    import numpy as np
    import pyarrow as pa

    if table.num_rows == 0:
        return table
    columns = []
    for key in keys:
        values = table[key].combine_chunks()
        if str(values.type) == "string":
            words, places = _coded(values)
            ranks = np.empty(len(words), dtype=np.int64)
            ranks[np.argsort(np.array(words, dtype=object))] = np.arange(len(words))
            columns.append(ranks[places])
        else:
            columns.append(_values(values))
    ahead = np.zeros(table.num_rows - 1, dtype=bool)
    for values in columns[::-1]:
        step = np.diff(values)
        ahead = (step > 0) | ((step == 0) & ahead)
    if ahead.all():  # as nearly always, and far sooner known than sorted
        return table
    order = np.lexsort(columns[::-1])
    return table.take(_column(order, pa.int64(), np.ones(len(order), dtype=bool)))
