"""Maintenance: which share a week reads, and the verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from fastvlm_ops.operators.backup.maintenance import share_of_week
from tests.unit.operators.support import Context, failure

MONDAY = datetime(2026, 12, 7, 5, tzinfo=UTC)
GOOD = {"ok": True, "level": "share", "text": "verify share 1 of 8: ok\nmore", "backups": []}
BAD = {"ok": False, "level": "share", "text": "packs/00/1: is missing", "backups": ["full-1"]}


@pytest.mark.parametrize("shares", [1, 2, 7, 8, 13])
def test_every_share_is_read_once_in_as_many_weeks_also_over_the_end_of_a_year(shares: int) -> None:
    weeks = [share_of_week(MONDAY + timedelta(weeks=week), shares) for week in range(3 * shares)]
    for start in range(2 * shares):
        assert {index for index, _ in weeks[start : start + shares]} == set(range(shares))
    assert {n for _, n in weeks} == {shares}


def test_a_week_is_from_monday_to_sunday() -> None:
    days = [share_of_week(MONDAY + timedelta(days=day), 8) for day in range(8)]
    assert len(set(days[:7])) == 1
    assert days[7] != days[6]


def verdict(verification: Any, retention: Any) -> backup.ConfirmMaintenanceOperator:
    return backup.ConfirmMaintenanceOperator(task_id="t", verification=verification, retention=retention)


@pytest.mark.parametrize(
    ("verification", "retention", "message"),
    [
        (None, {"plans": {}}, "nothing was verified, so that nothing is known"),
        (BAD, {"plans": {}}, "packs/00/1: is missing"),
        (BAD, None, "packs/00/1: is missing"),
        (GOOD, None, "no retention was planned"),
    ],
)
def test_the_verdict_is_red_unless_all_is_known_and_well(
    verification: Any, retention: Any, message: str
) -> None:
    context = Context()
    assert message in failure(verdict(verification, retention), context)
    assert context.pushed["failure"]["backups"] == (verification or {}).get("backups", [])


def test_the_verdict_is_green_when_all_is_well() -> None:
    assert verdict(GOOD, {"plans": {}}).execute(Context()) == {"ok": True, "level": "share"}
