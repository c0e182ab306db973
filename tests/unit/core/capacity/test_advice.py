"""Recommendations in the operations database: in whatever order runs end, the rows are the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.capacity.advice import decide, recommend_all
from fastvlm_ops.core.capacity.publishing import replace_forecasts
from fastvlm_ops.core.capacity.rules import ScalingRules
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables.capacity import recommendations

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = ScalingRules(agreeing_runs=3, cool_down_days=3)
DAYS = 12


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


def add(store: Store, day: int, *, load: float = 10.0, replicas: int = 4, run: str = "run") -> list[Any]:
    """Forecasts of a day, and its recommendations."""
    as_of = START + timedelta(days=day)
    row = {
        "as_of": as_of,
        "service": "api",
        "status": "ok",
        "reason": "",
        "model": "m",
        "horizon_days": 30,
        "current_usage": load,
        "forecasted_peak": load,
        "required_seed": load * 1.2,
        "required_risk": load * 1.1,
        "capacity": 100.0,
        "exhaustion_probability": 0.0,
        "exhaustion_date": None,
        "monthly_cost": None,
        "trend_per_day": 0.0,
        "history_days": 90.0,
        "run_key": run,
        "artefact_uri": "s3://bucket/part.parquet",
    }
    with store.write() as connection:
        replace_forecasts(
            connection, as_of, [{**row, "metric": name} for name in ("cpu", "memory", "requests")]
        )
    return recommend_all(store, as_of=as_of, replicas={"api": replicas}, rules=RULES, run_key=run)


def rows(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        query = select(recommendations).order_by(recommendations.c.as_of)
        return [dict(row) for row in connection.execute(query).mappings()]


def test_a_scale_down_waits_until_runs_agree(store: Store) -> None:
    actions = [add(store, day)[0].action for day in range(4)]
    assert actions == ["none", "none", "scale_down", "scale_down"]


@pytest.mark.parametrize("seed", range(4))
def test_runs_in_any_order_leave_the_same_rows(store: Store, tmp_path: Path, seed: int) -> None:
    loads = [10, 10, 10, 10, 60, 85, 85, 10, 10, 10, 10, 10]
    replicas = [4, 4, 4, 4, 2, 2, 4, 4, 4, 4, 4, 4]
    for day in range(DAYS):
        add(store, day, load=loads[day], replicas=replicas[day])
    order = list(range(DAYS))
    random.Random(seed).shuffle(order)
    with open_store(f"sqlite:///{tmp_path / 'other.db'}", migrate_first=True) as other:
        for day in order:
            add(other, day, load=loads[day], replicas=replicas[day])
        assert rows(other) == rows(store)
    assert {"none", "scale_up", "scale_down"} == {row["action"] for row in rows(store)}


def test_a_rerun_changes_nothing_and_keeps_what_a_person_said(store: Store) -> None:
    for day in range(3):
        add(store, day)
    (advice,) = decide(store, as_of=START + timedelta(days=2), approved=False, rules=RULES)
    assert (advice.action, advice.applied_state) == ("scale_down", "rejected")
    before = rows(store)
    add(store, 2)
    assert rows(store) == before


def test_a_rejection_counts_for_later_hours_too(store: Store) -> None:
    for day in range(4):
        add(store, day)
    assert rows(store)[3]["action"] == "scale_down"
    decide(store, as_of=START + timedelta(days=2), approved=False, rules=RULES)
    assert rows(store)[3]["action"] == "none"
    assert rows(store)[3]["applied_state"] == "planned"


def test_what_adds_is_approved_without_being_asked(store: Store) -> None:
    add(store, 0, load=95.0)
    (advice,) = decide(store, as_of=START, approved=False, rules=RULES)
    assert (advice.action, advice.applied_state) == ("scale_up", "approved")
    assert rows(store)[0]["trigger_metric"]


def test_a_service_that_has_gone_leaves_no_row(store: Store) -> None:
    add(store, 0)
    recommend_all(store, as_of=START, replicas={}, rules=RULES, run_key="run")
    assert rows(store) == []
