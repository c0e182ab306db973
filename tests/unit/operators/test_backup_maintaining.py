"""Maintenance: which share a week reads, and the verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from fastvlm_ops.operators.backup.maintenance import hit_lines, share_of_week
from tests.unit.operators.support import Context, failure

MONDAY = datetime(2026, 12, 7, 5, tzinfo=UTC)
GOOD = {"ok": True, "level": "share", "text": "verify share 1 of 8: ok\nmore", "backups": []}
BAD = {
    "ok": False,
    "level": "share",
    "text": "packs/00/1: is missing",
    "backups": ["full-1"],
    "nearest_intact_set": "full-0",
}


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


PLAN = {"status": "planned", "reason": None, "dry_run": True, "apply": False}


RENEWED = {"done": True, "configured": True, "renewed": 3, "until": "2027-01-01T00:00:00+00:00"}


def verdict(verification: Any, plan: Any, renewed: Any = RENEWED) -> backup.ConfirmMaintenanceOperator:
    return backup.ConfirmMaintenanceOperator(
        task_id="t", verification=verification, plan=plan, renewed=renewed
    )


@pytest.mark.parametrize(
    ("verification", "plan", "message"),
    [
        (None, PLAN, "nothing was verified, so that nothing is known"),
        (BAD, PLAN, "packs/00/1: is missing"),
        (BAD, None, "packs/00/1: is missing"),
        (GOOD, None, "no pruning was planned"),
        (
            GOOD,
            {**PLAN, "status": "refused", "reason": "too much", "dry_run": False},
            "nothing was removed: ",
        ),
    ],
)
@pytest.mark.parametrize("renewed", [RENEWED, None], ids=["renewed", "not renewed"])
def test_the_verdict_is_red_unless_all_is_known_and_well(
    verification: Any, plan: Any, message: str, renewed: Any
) -> None:
    context = Context()
    said = failure(verdict(verification, plan, renewed), context)
    assert said.startswith(message), "damage comes first, then what was not removed"
    assert ("\nlocks were not renewed" in said) is (renewed is None)
    assert context.pushed["failure"]["error"] in ("DamageFoundError", "PruningIncompleteError")
    found = verification or {}
    assert context.pushed["failure"]["backups"] == found.get("backups", [])
    assert context.pushed["failure"]["nearest_intact_set"] == found.get("nearest_intact_set")


def test_the_verdict_is_red_when_locks_were_not_renewed() -> None:
    context = Context()
    assert failure(verdict(GOOD, PLAN, None), context).startswith(
        "locks were not renewed, or not all of them"
    )
    assert context.pushed["failure"]["error"] == "LocksNotRenewedError"


def test_the_verdict_is_green_when_all_is_well() -> None:
    assert verdict(GOOD, PLAN).execute(Context()) == {
        "ok": True,
        "level": "share",
        "status": "planned",
        "collected": None,
        "locked_until": RENEWED["until"],
    }


def test_each_backup_that_is_hit_has_another_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ops/")
    lines = hit_lines({"full-2": None, "full-1": "full-0"})
    assert lines == [
        "backup full-2 is hit; no intact one is known",
        "backup full-1 is hit; the nearest intact one is full-0",
        "to restore full-0: https://airflow.example.org/ops/plugin/operations/fastvlm-ops/backups/full-0?restore=",
    ]
    assert hit_lines({}) == []
