"""Drills as rows: the plan of the start stays, and a drill that nobody goes on with is not left running."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastvlm_ops.core.config.disaster_recovery import load_scenario
from fastvlm_ops.core.disaster_recovery import drills, leasing
from fastvlm_ops.core.disaster_recovery.closing import close_abandoned
from fastvlm_ops.core.disaster_recovery.errors import DrillAbortedError, DrillError
from fastvlm_ops.core.disaster_recovery.lever import pull_lever
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult
from fastvlm_ops.core.disaster_recovery.planning import Origin, Resolved, make_plan, scenario_of
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.disaster_recovery.watching import Watch
from fastvlm_ops.core.store import Store, migrate, open_store
from fastvlm_ops.core.store.tables.disaster_recovery import faults
from tests.conftest import ROOT

KEY = "disaster_recovery_service_process_killed/manual__1"
STEP = StepResult(step="guard", status="passed", summary="all hold")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operations database with all tables and no rows."""
    file = tmp_path_factory.mktemp("operations") / "operations.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{shutil.copy(empty, tmp_path)}") as opened:
        yield opened


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


def planned(tmp_path: Path, *, at: datetime | None = None, dry_run: bool = False) -> DrillPlan:
    scenario = load_scenario(ROOT / "include" / "disaster_recovery" / "service_process_killed.yaml")
    origin = Origin(KEY, dry_run, "unix:/control.sock", tmp_path, "here", "0" * 64, at or ago())
    return make_plan(scenario, origin, None, Resolved(None))


def record(store: Store, plan: DrillPlan) -> None:
    drills.record_plan(store, plan, rto_objective_seconds=10.0, rpo_objective_seconds=0.0)


def test_a_plan_is_replaced_until_its_fault_is_armed(tmp_path: Path, store: Store) -> None:
    first, second = planned(tmp_path), planned(tmp_path, at=ago(seconds=-5))
    record(store, first)
    record(store, second)
    assert drills.read_plan(store, KEY) == second
    assert scenario_of(second).name == "service_process_killed"
    armed = {
        "fault_id": "drill-1",
        "run_key": KEY,
        "host": "here",
        "fault": {},
        "time_to_live_seconds": 1.0,
        "armed_at": ago(),
    }
    with store.write() as connection:
        connection.execute(faults.insert().values(armed))
    with pytest.raises(DrillError, match="has been drilled already"):
        record(store, first)
    assert drills.read_plan(store, KEY) == second


def test_a_run_with_a_verdict_is_not_drilled_again(tmp_path: Path, store: Store) -> None:
    record(store, planned(tmp_path))
    drills.record_verdict(store, KEY, "FAIL", "too slow", figures={"rto_seconds": 61.0}, summary={})
    first = drills.read_drill(store, KEY)
    drills.record_verdict(store, KEY, "FAIL", "too slow", figures={"rto_seconds": 61.0}, summary={})
    assert drills.read_drill(store, KEY) == first
    assert first is not None
    assert (first.verdict, first.figures["rto_seconds"]) == ("FAIL", 61.0)
    assert first.figures["rpo_seconds"] is None
    with pytest.raises(DrillError, match="has been drilled already"):
        record(store, planned(tmp_path))


def test_a_retried_step_replaces_its_row(tmp_path: Path, store: Store) -> None:
    record(store, planned(tmp_path))
    for status in ("refused", "passed"):
        step = STEP.model_copy(update={"status": status})
        drills.record_step(store, KEY, step, started_at=ago(), finished_at=ago())
    found = drills.read_drill(store, KEY)
    assert found is not None
    assert [row.result.status for row in found.steps.values()] == ["passed"]
    with pytest.raises(DrillError, match="has no plan"):
        drills.read_plan(store, "another/run")


def test_what_nobody_goes_on_with_is_aborted(tmp_path: Path, store: Store) -> None:
    record(store, planned(tmp_path, at=ago(hours=1)))
    leasing.take_lease(store, KEY, timedelta(minutes=1))
    assert close_abandoned(store) == []
    leasing.give_lease_back(store, KEY)
    assert close_abandoned(store) == [KEY]
    assert close_abandoned(store) == []
    found = drills.read_drill(store, KEY)
    assert found is not None
    assert found.verdict == "ABORTED"


def test_a_drill_whose_last_step_has_just_ended_is_left_alone(tmp_path: Path, store: Store) -> None:
    record(store, planned(tmp_path, at=ago(hours=1)))
    drills.record_step(store, KEY, STEP, started_at=ago(), finished_at=ago())
    assert close_abandoned(store) == []


def test_a_drill_that_has_just_begun_or_is_dry_is_left_alone(tmp_path: Path, store: Store) -> None:
    record(store, planned(tmp_path))
    assert close_abandoned(store) == []
    record(store, planned(tmp_path, at=ago(hours=1), dry_run=True))
    assert close_abandoned(store) == []


def surroundings(tmp_path: Path, store: Store) -> Surroundings:
    return Surroundings(
        control=None,
        store=store,
        open_repository=None,
        open_repository_through=None,
        database_dsn=None,
        components=lambda: pytest.fail("nothing reads them"),
        kit_dir=None,
        postgresql_bin_dir=None,
        scratch=tmp_path,
        drill_dir=tmp_path,
        say=lambda _: None,
        as_of=ago(),
    )


def test_pulling_the_lever_ends_what_waits(tmp_path: Path, store: Store) -> None:
    plan = replace_definition(planned(tmp_path), {**planned(tmp_path).definition, "abort_when": []})
    at = surroundings(tmp_path, store)
    Watch(plan, at).pause(0)
    pull_lever(store, "stopped", reason="an incident", by="ada")
    with pytest.raises(DrillAbortedError, match="an incident"):
        Watch(plan, at).pause(0)


def test_a_condition_that_lasts_breaks_a_drill_off(tmp_path: Path, store: Store) -> None:
    definition = planned(tmp_path).definition
    failing = {"failing": {"probe": "http", "path": "/readyz", "status": 200, "within_ms": 1000}}
    definition = {**definition, "abort_when": [{**failing, "for_seconds": 1.5}]}
    plan = replace_definition(planned(tmp_path), definition)
    watch = Watch(plan, surroundings(tmp_path, store))
    watch.pause(0)  # fails for the first time: there is no service
    with pytest.raises(DrillAbortedError, match="abort_when"):
        watch.pause(2)


def replace_definition(plan: DrillPlan, definition: dict[str, object]) -> DrillPlan:
    return plan.model_copy(update={"definition": definition})
