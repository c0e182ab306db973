"""The picture of what can be recovered: parts, marks, and what the restore form gets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastvlm_ops.core.backup.wal_windows import WindowRow
from fastvlm_ops.ui.backups.recovery import Window, window_of

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def window(bases: dict[str, datetime] | None = None, **changes: Any) -> Window:
    row = {
        "component": "database",
        "checked_at": NOON,
        "system_id": "7301234567890123456",
        "timeline": 1,
        "recoverable_from": NOON - 8 * HOUR,
        "recoverable_until": NOON - 2 * HOUR,
        "from_lsn": "0/300000",
        "until_lsn": "0/900000",
        "server_lsn": "0/A00000",
        "lag_bytes": 1 << 20,
        "lag_seconds": 7200.0,
        "segments": 6,
        "stored_bytes": 4321,
        "gap": None,
    }
    given = {"base": NOON - 8 * HOUR} if bases is None else bases
    return window_of(WindowRow(**{**row, **changes}), given, NOON)


def parts(one: Window) -> list[tuple[str, float, float]]:
    return [(part.name, part.x, part.width) for part in one.parts]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("open", 0.0, 750.0), ("late", 750.0, 250.0)]),
        ({"lag_seconds": 0.0}, [("open", 0.0, 1000.0)]),
        ({"gap": "a gap"}, [("open", 0.0, 750.0), ("gap", 750.0, 250.0)]),
        ({"recoverable_from": None, "recoverable_until": None}, [("late", 0.0, 1000.0)]),
        ({"recoverable_from": None, "recoverable_until": None, "gap": "a"}, [("gap", 0.0, 1000.0)]),
    ],
    ids=["behind", "at rest", "a gap after the newest base", "unknown", "a gap and nothing else"],
)
def test_time_is_divided(changes: dict[str, Any], expected: list[tuple[str, float, float]]):
    assert parts(window(**changes)) == expected


def test_a_gap_behind_the_newest_base_cuts_off_the_older_ones():
    bases = {"old": NOON - 16 * HOUR, "new": NOON - 8 * HOUR + timedelta(minutes=5)}
    one = window(bases, gap="a gap", lag_seconds=0.0)
    assert parts(one) == [("gap", 0.0, 500.0), ("open", 500.0, 500.0)]
    assert [(mark.snapshot_id, mark.is_cut_off) for mark in one.marks] == [("old", True), ("new", False)]
    assert "WAL is missing" in one.summary


def test_the_form_gets_the_newest_moment_there_is():
    assert json.loads(window().form) == {
        "components": ["database"],
        "recover_time": "2026-11-30T10:00:00+00:00",
    }
    assert window(recoverable_until=NOON - 8 * HOUR).form == ""
    assert window(recoverable_until=None).form == ""


def test_what_is_drawn_never_leaves_the_picture():
    one = window({"later": NOON + HOUR}, recoverable_until=NOON + 2 * HOUR, lag_seconds=3.0)
    assert all(part.x >= 0 and part.x + part.width <= 1003 for part in one.parts)
    assert one.marks[0].x == 1000.0


def test_what_was_proven_long_ago_is_said_to_be():
    assert not window().is_stale
    assert window(checked_at=NOON - HOUR).is_stale
