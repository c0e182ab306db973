"""The rows of faults follow their entries, in both kinds of operations database, and tell what is overdue."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    entry_files,
    new_entry,
    read_entry,
    timestamp,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.fault_rows import (
    overdue,
    record_armed,
    remove_old_entries,
    sync_entries,
)
from fastvlm_ops.core.disaster_recovery.fault_types import FAULTS, LinkFault
from fastvlm_ops.core.disaster_recovery.holding import arm, release
from fastvlm_ops.core.disaster_recovery.reaping import Reaping
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables.disaster_recovery import faults

pytestmark = pytest.mark.integration

LINK = LinkFault(control="unix:/nowhere/control.sock", link="replica-1", disturbance="reset")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url, migrate_first=True) as opened:
        yield opened


def armed(drills: Path, fault_id: str = "f1") -> Path:
    return arm(drills, new_entry(fault_id=fault_id, run_key="drill/run", fault=LINK, time_to_live_seconds=60))


def injected(file: Path, ago_seconds: float) -> FaultEntry:
    began = datetime.now(UTC) - timedelta(seconds=ago_seconds)
    entry = read_entry(file).changed(
        state="injected",
        fault_at=began.isoformat(),
        fault_monotonic_ns=1,
        expires_at=(began + timedelta(seconds=60)).isoformat(),
        expires_monotonic_ns=1,
        problem="the control does not answer",
    )
    write_entry(file, entry)
    return entry


def row_of(store: Store, fault_id: str = "f1"):
    with store.read() as connection:
        return connection.execute(select(faults).where(faults.c.fault_id == fault_id)).one()


def test_a_row_follows_its_entry(store: Store, tmp_path: Path) -> None:
    file = armed(tmp_path)
    record_armed(store, read_entry(file))
    record_armed(store, read_entry(file))  # a retried task
    row = row_of(store)
    assert FAULTS.validate_python(row.fault) == LINK
    assert (row.run_key, row.host, row.injected_at, row.undone_at) == (
        "drill/run",
        socket.gethostname(),
        None,
        None,
    )
    assert sync_entries(store, tmp_path) == 0
    entry = injected(file, 0)
    assert sync_entries(store, tmp_path) == 1
    assert sync_entries(store, tmp_path) == 0
    row = row_of(store)
    assert row.injected_at == datetime.fromisoformat(entry.fault_at or "")
    assert row.problem == "the control does not answer"
    write_entry(file, entry.changed(state="undone", undone_at=timestamp(), undone_by="reaper"))
    sync_entries(store, tmp_path)
    assert row_of(store).undone_by == "reaper"
    assert overdue(store) == []


def test_what_is_overdue_and_what_nobody_knows_of(store: Store, tmp_path: Path) -> None:
    injected(armed(tmp_path, "late"), 120)
    injected(armed(tmp_path, "in-time"), 30)
    lost = armed(tmp_path, "lost")
    write_entry(lost, read_entry(lost).changed(armed_at=timestamp(timedelta(days=-1))))
    armed(tmp_path, "armed")
    sync_entries(store, tmp_path)
    late = overdue(store)
    assert [one.fault_id for one in late] == ["lost", "late"]  # oldest first
    assert "late of drill/run on" in str(late[1])
    assert "the control does not answer" in str(late[1])
    assert [one.fault_id for one in overdue(store, datetime.now(UTC) - timedelta(seconds=60))] == ["lost"]


def test_entries_go_a_week_after_their_faults_ended_if_rows_say_so(store: Store, tmp_path: Path) -> None:
    def ended(fault_id: str, days: float) -> Path:
        file = armed(tmp_path, fault_id)
        at = timestamp(timedelta(days=-days))
        write_entry(file, read_entry(file).changed(state="undone", undone_at=at, undone_by="holder"))
        return file

    old, young, there = ended("old", 8), ended("young", 6), armed(tmp_path, "there")
    write_entry(there, read_entry(there).changed(armed_at=timestamp(timedelta(days=-30))))
    assert remove_old_entries(store, tmp_path) == 0  # there is no row yet
    sync_entries(store, tmp_path)
    assert remove_old_entries(store, tmp_path) == 1
    assert set(entry_files(tmp_path)) == {young, there}
    assert not list(old.parent.glob("old*"))
    assert row_of(store, "old").undone_by == "holder"
    assert remove_old_entries(store, tmp_path) == 0


def test_the_reaper_writes_rows_and_metrics_and_needs_no_database(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    release(armed(tmp_path))
    odd = tmp_path / "faults" / "odd.json"
    said: list[str] = []

    def away() -> Store:
        raise ConnectionError("the database is away")

    metrics = tmp_path / "metrics"
    metrics.mkdir()
    alone = Reaping(tmp_path, away, metrics, lambda event, **_: said.append(event))
    assert not alone.once()
    assert said == ["rows_late"]
    text = (metrics / "fastvlm_drill_faults.prom").read_text()
    assert "fastvlm_drill_faults_held 0.0" in text
    said.clear()
    with_rows = Reaping(
        tmp_path, lambda: open_store(database_url), None, lambda event, **_: said.append(event)
    )
    assert with_rows.once()
    assert said == ["rows_written"]
    assert row_of(store).undone_by == "task"
    odd.write_text("garbage")  # leaves the other rows be
    assert not with_rows.once()
    assert row_of(store).undone_by == "task"
