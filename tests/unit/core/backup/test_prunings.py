"""Rows of what was planned and done: written once, however often a task is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.prunings import (
    Status,
    newest_by_status,
    newest_prunings,
    record_outcome,
    record_plan,
)
from fastvlm_ops.core.store import Store, open_store

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
COLLECTED = {"deleted_objects": 7, "deleted_bytes": 900, "locked_objects": 1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


def row(run_key: str = "run", **changed: Any) -> dict[str, Any]:
    """A plan that is to be carried out."""
    plan = {"bytes": {"kept": 1}, "sets": []}
    made = {"run_key": run_key, "planned_at": NOON, "status": "waiting", "reason": None, "dry_run": False}
    sizes = {"packs": None, "total_bytes": None, "removed_bytes": 5, "copied_bytes": 0}
    return {**made, "forgotten_sets": 2, "forgotten_snapshots": 8, **sizes, "plan": plan, **changed}


def test_what_is_not_known_is_not_zero(store: Store) -> None:
    record_plan(store, row())
    (found,) = newest_prunings(store)
    assert (found.packs, found.total_bytes, found.deleted_objects, found.locked_objects) == (None,) * 4
    assert (found.removed_bytes, found.planned_at, found.plan["bytes"]) == (5, NOON, {"kept": 1})


def test_a_run_that_is_tried_again_changes_its_row_until_it_is_done(store: Store) -> None:
    record_plan(store, row())
    record_plan(store, row(forgotten_sets=3, planned_at=NOON.replace(hour=13)))
    (found,) = newest_prunings(store)
    assert (found.forgotten_sets, found.planned_at) == (3, NOON)
    record_outcome(store, "run", status=Status.UNFINISHED, reason="why")
    until = datetime(2026, 3, 1, tzinfo=UTC)
    for _ in range(2):
        collected = {**COLLECTED, "locked_until": until.isoformat()}
        record_outcome(store, "run", status=Status.DONE, collected=collected)
    done = newest_prunings(store)[0]
    assert (done.status, done.reason, done.deleted_bytes, done.locked_until) == ("done", None, 900, until)
    record_plan(store, row(forgotten_sets=0, removed_bytes=0))
    record_outcome(store, "run", status=Status.UNFINISHED, reason="later")
    assert newest_prunings(store) == [done], "what was done stands, also when the run is cleared"


def test_the_newest_of_all_and_of_each_status(store: Store) -> None:
    assert newest_by_status(store) == {}
    for day in range(1, 6):
        status = "refused" if day % 2 else "planned"
        record_plan(store, row(f"run {day}", planned_at=NOON.replace(day=day), status=status))
    assert [one.run_key for one in newest_prunings(store, 2)] == ["run 5", "run 4"]
    assert newest_by_status(store) == {"refused": NOON.replace(day=5), "planned": NOON.replace(day=4)}
