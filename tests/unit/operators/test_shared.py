"""What a run is about, and what it is known by."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fastvlm_ops.operators.backup import backup_set_id
from fastvlm_ops.operators.shared import as_of, run_key

TICK = datetime(2026, 1, 4, 2, tzinfo=UTC)
DUE = datetime(2026, 1, 5, 7, 30, tzinfo=UTC)


def context(interval_end: datetime | None, **params: str) -> Any:
    dag_run = SimpleNamespace(dag_id="d", run_id="r", data_interval_end=interval_end, run_after=DUE)
    return {"dag_run": dag_run, "params": params}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (context(TICK), TICK),
        (context(None), DUE),
        (context(TICK, as_of=""), TICK),
        (context(TICK, as_of="2025-12-31T23:00:00+01:00"), datetime(2025, 12, 31, 22, tzinfo=UTC)),
        (context(TICK, as_of="2025-12-31"), datetime(2025, 12, 31, tzinfo=UTC)),
    ],
    ids=["interval", "no interval", "empty param", "param", "param without zone"],
)
def test_as_of(given: Any, expected: datetime) -> None:
    assert as_of(given) == expected
    assert as_of(given).tzinfo is UTC


def test_the_key_of_a_run_is_unique_among_dags() -> None:
    assert run_key(context(TICK)) == "d/r"


def test_the_id_of_a_set_tells_runs_of_the_same_moment_apart() -> None:
    one, other = (backup_set_id("full", TICK, key) for key in ("d/one", "d/other"))
    assert one == backup_set_id("full", TICK, "d/one") != other
    assert one.startswith("full-20260104T020000Z-")
