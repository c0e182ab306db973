"""The same rows are the same bytes, in any order."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastvlm_ops.core.capacity.partitions import decode, encode, join, notes_of, numbers, schema, table_of

HOURS = np.arange("2026-01-01T00", "2026-01-01T06", dtype="datetime64[h]").astype("datetime64[ms]")


def history(*services: str):
    rows = [(service, metric, hour) for service in services for metric in ("cpu", "memory") for hour in HOURS]
    columns = {
        "service": [row[0] for row in rows],
        "metric": [row[1] for row in rows],
        "hour": np.array([row[2] for row in rows]),
        "average": np.linspace(0, 1e10, len(rows)),
        "peak": np.full(len(rows), np.nan),
    }
    return table_of("history", columns)


def test_round_trip_keeps_every_bit_and_unknown_is_null() -> None:
    table = history("a", "b")
    back = decode("history", encode("history", table))
    assert back == table
    assert back["average"].to_pylist() == table["average"].to_pylist()
    assert back["peak"].null_count == len(table)


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_any_order_are_the_same_bytes(seed: int) -> None:
    table = history("zeta", 'we"ird\\ größe 模型', "Alpha", "alpha")
    order = list(range(len(table)))
    random.Random(seed).shuffle(order)
    assert encode("history", table.take(order)) == encode("history", table)
    halves = [table.slice(len(table) // 2), table.slice(0, len(table) // 2)]
    assert encode("history", join("history", halves)) == encode("history", table)


@pytest.mark.parametrize("start", [0, 3, 8])
def test_a_column_is_what_arrow_says_it_is(start: int) -> None:
    columns = {"service": ["a", "größe", None, ""] * 4, "metric": ["cpu"] * 16, "hour": np.resize(HOURS, 16)}
    values = np.where(np.arange(16) % 3, np.arange(16) / 7, np.nan)
    table = table_of("history", {**columns, "average": values, "peak": np.ones(16)}).slice(start, 7)
    table.validate(full=True)
    assert table["service"].to_pylist() == columns["service"][start : start + 7]
    for name in ("average", "peak"):
        np.testing.assert_array_equal(numbers(table, name), table[name].to_numpy())
    np.testing.assert_array_equal(numbers(table, "hour"), table["hour"].cast("int64").to_numpy())
    assert len(numbers(table.slice(0, 0), "average")) == 0


def test_another_value_is_other_bytes() -> None:
    table = history("a")
    changed = table.set_column(3, "average", [np.append(np.array(table["average"])[:-1], 1.0)])
    assert encode("history", changed) != encode("history", table)


@pytest.mark.parametrize("kind", ["history", "daily_history", "series", "daily", "hourly"])
def test_a_table_without_rows_is_one(kind: str) -> None:
    data = encode(kind, join(kind, []), {"b": "2", "a": "1"})
    assert decode(kind, data).schema == schema(kind)
    assert {"a": "1", "b": "2"}.items() <= notes_of(data).items()


def test_only_the_rows_that_are_asked_for() -> None:
    data = encode("history", history("a", "b"))
    found = decode("history", data, {"service": "b", "metric": "cpu"})
    assert set(found["service"].to_pylist()) == {"b"}
    assert len(found) == len(HOURS)


@pytest.mark.parametrize("service", ["", 'we"ird\\ größe 模型', "b\0c"])
def test_any_name_can_be_asked_for(service: str) -> None:
    data = encode("history", history("a", service))
    found = decode("history", data, {"service": service})
    assert set(found["service"].to_pylist()) == {service}
    assert len(found) == 2 * len(HOURS)
    assert len(decode("history", data, {"service": service + "x"})) == 0


def test_a_page_that_shows_one_series_does_not_wait_for_pandas(tmp_path: Path) -> None:
    file = tmp_path / "history.parquet"
    file.write_bytes(encode("history", history("a", "b")))
    code = (
        "import sys; from pathlib import Path; from fastvlm_ops.core.capacity.partitions import decode;"
        f"found = decode('history', Path({str(file)!r}).read_bytes(), {{'service': 'b', 'metric': 'cpu'}});"
        "found['average'].to_pylist(), found['hour'].cast('date32').to_pylist();"
        "print(len(found), 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(HOURS)), "False"]


def test_what_is_no_parquet_is_refused() -> None:
    with pytest.raises(ValueError, match="no Parquet table of kind history"):
        decode("history", b"PAR1 nonsense PAR1")
    with pytest.raises(ValueError, match="no Parquet table of kind hourly"):
        decode("hourly", encode("history", history("a")))
