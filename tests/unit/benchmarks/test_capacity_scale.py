"""The benchmark of scale: what it loads, and that a part of it is not taken for all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.capacity_scale import (
    DATES,
    SERVICES,
    ScaleStack,
    check,
    figure_of,
    merged,
    task_rows,
    write_fleet,
)
from benchmarks.figures import write_json
from fastvlm_ops.core.config import load_capacity
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.capacity import forecasts
from fastvlm_ops.core.store.upsert import upsert
from fastvlm_ops.local.demo_capacity import DemoCapacityError
from fastvlm_ops.local.state import DemoState
from tests.conftest import ROOT

END = datetime(2026, 6, 30, tzinfo=UTC)


def test_only_all_of_it_can_meet_the_target() -> None:
    assert figure_of(44, SERVICES, DATES).met
    assert not figure_of(46, SERVICES, DATES).met
    for services, dates in ((SERVICES, DATES - 1), (20, DATES), (SERVICES + 1, DATES)):
        part = figure_of(0.1, services, dates)
        assert not part.met
        assert "not run" in str(part.peer)
        assert part.name.startswith("a part: ")


def test_a_part_does_not_replace_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for minutes, services, dates in ((40, SERVICES, DATES), (2, 20, 3), (1, 20, 3)):
        write_json(merged(file, figure_of(minutes, services, dates)), file)
    found = merged(file, figure_of(3, 20, 3))
    assert [(one["value"], one["met"]) for one in found] == [(3, False), (40, True)]


def test_the_fleet_has_each_hour_once(tmp_path: Path) -> None:
    lines: list[str] = []
    for file in write_fleet(tmp_path, end=END, days=45, count=2):
        text = file.read_text()
        assert text.endswith("# EOF\n")
        lines += [line for line in text.splitlines() if not line.startswith("#")]
    assert len(list(tmp_path.iterdir())) >= 3
    keys = [(line.split(" ")[0], int(line.split(" ")[2])) for line in lines]
    assert len(set(keys)) == len(keys) == 45 * 24 * 2 * 5
    assert all(stamp % 3600 >= 55 * 60 for _, stamp in keys)
    assert max(stamp for _, stamp in keys) == int(END.timestamp()) - 60


def test_its_definitions_can_be_read(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "state")
    state.folder.mkdir()
    stack = ScaleStack(state, ROOT, services=1, dates=1, parallel=2)
    environment = stack.airflow.environment()
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "2"
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environment["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] == "300"
    assert environment["AIRFLOW__FASTVLM_OPS__INCLUDE_DIR"] == str(state.folder / "include")
    definitions = load_capacity(state.folder / "include")
    assert (definitions.history_days, definitions.horizon_days) == (90, 30)


def test_where_the_time_went() -> None:
    def task(name: str, queued: int, start: int, end: int) -> dict[str, str]:
        times = {"queued_when": queued, "start_date": start, "end_date": end}
        return {
            "task_id": name,
            **{key: f"2026-01-01T00:00:{value:02}+00:00" for key, value in times.items()},
        }

    tasks = [task("a", 0, 1, 11), task("a", 0, 2, 22), task("b", 22, 25, 30)]
    skipped = {"task_id": "c", "queued_when": None, "start_date": None, "end_date": None}
    rows = task_rows([*tasks, skipped], minutes=0.5, parallel=2)
    assert rows[1:] == [
        ("a", "2", "15.0 s", "20.0 s", "1.5 s", "50.0%"),
        ("b", "1", "5.0 s", "5.0 s", "3.0 s", "8.3%"),
        ("between tasks", "3", "-", "-", "-", "41.7%"),
    ]


def test_a_series_without_a_forecast_is_told(tmp_path: Path) -> None:
    file = tmp_path / "operations.db"
    row = {"as_of": datetime(2026, 7, 1, tzinfo=UTC), "service": "a", "horizon_days": 30, "status": "ok"}
    row |= {"reason": "", "model": "", "run_key": "r", "artefact_uri": "u"}
    with open_store(f"sqlite:///{file}", migrate_first=True) as store, store.write() as connection:
        rows = [{**row, "metric": metric} for metric in ("cpu", "memory", "requests")]
        upsert(connection, forecasts, rows, key=("as_of", "service", "metric"))
    check(file, END, services=1, dates=1)
    with pytest.raises(DemoCapacityError, match=r"are not 3 on .*2026, 7, 2"):
        check(file, END, services=1, dates=2)
