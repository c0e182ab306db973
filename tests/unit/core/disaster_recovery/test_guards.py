"""Nothing is broken unless every guard holds; what cannot be read does not hold."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.config.disaster_recovery import Scenario, load_scenario
from fastvlm_ops.core.config.disaster_recovery_policy import DisasterRecoveryPolicy, Permit
from fastvlm_ops.core.disaster_recovery import leasing
from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError
from fastvlm_ops.core.disaster_recovery.guards import (
    GuardResult,
    Situation,
    check_guards,
    needs_approval,
    same_target,
)
from fastvlm_ops.core.disaster_recovery.lever import pull_lever, read_lever
from fastvlm_ops.core.disaster_recovery.planning import Origin, fault_id, make_plan, planned_target, resolve
from fastvlm_ops.core.programs.proc import boot_id
from fastvlm_ops.core.services.instances import (
    ContainerIdentity,
    Instance,
    Marker,
    ProcessIdentity,
    ServiceView,
)
from fastvlm_ops.core.services.places import write_place_marker
from fastvlm_ops.core.store import Store, migrate, open_store
from fastvlm_ops.core.store.tables.disaster_recovery import faults
from tests.conftest import ROOT

KEY = "disaster_recovery_service_process_killed/manual__1"
TUESDAY = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)
DEMO = Marker(service="fastvlm-demo", environment="demo")


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


def instance(name: str, role: Any = "replica", *, pid: int = 4711, healthy: bool | None = True) -> Instance:
    identity = ProcessIdentity(pid=pid, started=17, boot=boot_id())
    return Instance(name=name, role=role, address="127.0.0.1:1", identity=identity, healthy=healthy)


def view_of(tmp_path: Path, *instances: Instance, marker: Marker = DEMO) -> ServiceView:
    store = tmp_path / "places" / "model_store"
    store.mkdir(parents=True, exist_ok=True)
    (store / "model.mlpackage").write_text("weights")
    write_place_marker(store, marker)
    return ServiceView(
        marker=marker,
        instances=instances
        or (
            instance("replica-1"),
            instance("replica-2"),
            instance("database-1", "database_primary"),
            instance("database-2", "database_standby"),
        ),
        url="http://127.0.0.1:1",
        places={"model_store": str(store)},
        links=("replica-1", "object_store"),
    )


def scenario(name: str = "service_process_killed", **changes: Any) -> Scenario:
    shipped = load_scenario(ROOT / "include" / "disaster_recovery" / f"{name}.yaml")
    data: dict[str, Any] = copy.deepcopy(shipped.model_dump(mode="json"))
    for path, value in changes.items():
        *folders, last = path.split("__")
        inner = data
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return Scenario.model_validate(data).read_from(shipped.file)


def origin(tmp_path: Path, **changes: Any) -> Origin:
    found = Origin(
        run_key=KEY,
        dry_run=False,
        control="unix:/somewhere/control.sock",
        drill_dir=tmp_path / "drills",
        host="here",
        include_hash="0" * 64,
        moment=TUESDAY,
    )
    return replace(found, **changes)


def situation(
    tmp_path: Path, store: Store, of: Scenario | None = None, view: ServiceView | None = None, **changes: Any
) -> Situation:
    of = of or scenario()
    view = view or view_of(tmp_path)
    made = Situation(
        scenario=of,
        run_key=KEY,
        view=view,
        resolved=resolve(of, origin(tmp_path), view),
        allowed=("demo", "staging"),
        policy=DisasterRecoveryPolicy(version=1),
        store=store,
        moment=TUESDAY,
    )
    return replace(made, **changes)


def broken(results: list[GuardResult]) -> dict[str, str]:
    return {result.name: result.why for result in results if not result.ok}


def test_all_hold_for_what_is_shipped(tmp_path: Path, store: Store) -> None:
    for name in ("service_process_killed", "service_hung", "primary_database_lost", "model_store_lost"):
        assert broken(check_guards(situation(tmp_path, store, scenario(name)))) == {}


def test_an_environment_off_the_list(tmp_path: Path, store: Store) -> None:
    found = broken(check_guards(situation(tmp_path, store, allowed=("staging",))))
    assert list(found) == ["environment allowed"]
    assert "'demo' is not on the list" in found["environment allowed"]


def test_a_target_that_says_something_else(tmp_path: Path, store: Store) -> None:
    view = view_of(tmp_path, marker=Marker(service="fastvlm-demo", environment="staging"))
    found = broken(check_guards(situation(tmp_path, store, view=view)))
    assert list(found) == ["target is what the scenario says"]
    view = view_of(tmp_path, marker=Marker(service="checkout", environment="demo"))
    assert list(broken(check_guards(situation(tmp_path, store, view=view)))) == list(found)


def test_a_place_of_another_service(tmp_path: Path, store: Store) -> None:
    of, view = scenario("model_store_lost"), view_of(tmp_path)
    write_place_marker(Path(view.places["model_store"]), Marker(service="fastvlm-demo", environment="live"))
    assert list(broken(check_guards(situation(tmp_path, store, of, view)))) == [
        "target is what the scenario says"
    ]
    for marker in Path(view.places["model_store"]).glob(".fastvlm*"):
        marker.unlink()
    found = broken(check_guards(situation(tmp_path, store, of, view)))
    assert "could not be read" in found["target is what the scenario says"]


def production(tmp_path: Path) -> tuple[Scenario, ServiceView]:
    marker = Marker(service="fastvlm-demo", environment="production")
    return scenario(environment="production"), view_of(tmp_path, marker=marker)


def test_production_is_refused(tmp_path: Path, store: Store) -> None:
    of, view = production(tmp_path)
    found = broken(check_guards(situation(tmp_path, store, of, view, allowed=("production",))))
    assert list(found) == ["production"]
    assert needs_approval(of, view)


def test_a_scenario_that_calls_production_demo_is_refused_before_anything(
    tmp_path: Path, store: Store
) -> None:
    _, view = production(tmp_path)
    found = broken(check_guards(situation(tmp_path, store, scenario(), view)))
    assert {"environment allowed", "target is what the scenario says", "production"} == set(found)


@pytest.mark.parametrize(
    ("permit", "allowed"),
    [
        ({}, True),
        ({"scenario": "service_hung"}, False),
        ({"environment": "prod-eu"}, False),
        ({"until": date(2026, 11, 30)}, False),
        ({"until": date(2026, 12, 1)}, True),
    ],
)
def test_production_with_a_permit(
    tmp_path: Path, store: Store, permit: dict[str, Any], allowed: bool
) -> None:
    of, view = production(tmp_path)
    fields = {
        "scenario": "service_process_killed",
        "environment": "production",
        "until": date(2027, 1, 1),
        "reason": "decided",
    }
    policy = DisasterRecoveryPolicy(version=1, production=(Permit(**{**fields, **permit}),))
    at = situation(tmp_path, store, of, view, allowed=("production",), policy=policy)
    assert (broken(check_guards(at)) == {}) is allowed


def test_one_drill_at_a_time(tmp_path: Path, store: Store) -> None:
    leasing.take_lease(store, "another/run", timedelta(minutes=1))
    found = broken(check_guards(situation(tmp_path, store)))
    assert "another/run is running" in found["no other drill"]
    with pytest.raises(DrillRefusedError, match="another/run is running"):
        leasing.take_lease(store, KEY, timedelta(minutes=1))
    with pytest.raises(DrillRefusedError, match="another/run has it"):
        leasing.keep_lease(store, KEY, timedelta(minutes=1))
    assert leasing.give_lease_back(store, KEY) is False
    assert leasing.give_lease_back(store, "another/run") is True
    first = leasing.take_lease(store, KEY, timedelta(minutes=1))
    again = leasing.take_lease(store, KEY, timedelta(minutes=1))
    assert again.token == first.token
    assert broken(check_guards(situation(tmp_path, store))) == {}


def test_a_lease_that_ran_out_is_not_kept(store: Store) -> None:
    leasing.take_lease(store, KEY, timedelta(microseconds=1))
    with pytest.raises(DrillRefusedError, match="it has run out"):
        leasing.keep_lease(store, KEY, timedelta(minutes=1))


def test_a_fault_of_an_earlier_drill_is_left(tmp_path: Path, store: Store) -> None:
    row = {
        "fault_id": "drill-1",
        "run_key": "earlier/run",
        "host": "here",
        "fault": {},
        "time_to_live_seconds": 1.0,
        "armed_at": TUESDAY,
    }
    with store.write() as connection:
        connection.execute(faults.insert().values(row))
    found = broken(check_guards(situation(tmp_path, store)))
    assert "not taken back yet" in found["no fault left"]


FILL = {"fault": "fill_disk", "time_to_live_seconds": 9}
WINDOW = {"days": ["monday", "tuesday"], "start": "09:00", "end": "16:00", "timezone": "UTC"}


@pytest.mark.parametrize(
    ("moment", "zone", "holds"),
    [
        (TUESDAY, "UTC", True),
        (TUESDAY.replace(hour=16, minute=0), "UTC", False),
        (TUESDAY.replace(hour=15, minute=59), "UTC", True),
        (TUESDAY.replace(hour=8, minute=59), "UTC", False),
        (TUESDAY.replace(hour=8, minute=0), "Europe/Berlin", True),
        (TUESDAY + timedelta(days=1), "UTC", False),
    ],
)
def test_the_window(tmp_path: Path, store: Store, moment: datetime, zone: str, holds: bool) -> None:
    of = scenario(window={**WINDOW, "timezone": zone})
    found = broken(check_guards(situation(tmp_path, store, of, moment=moment)))
    assert (found == {}) is holds, found


def test_the_safety_lever(tmp_path: Path, store: Store) -> None:
    pull_lever(store, "stopped", reason="an incident", by="ada")
    found = broken(check_guards(situation(tmp_path, store)))
    assert "safety lever is pulled" in found["safety lever"]
    assert "ada" in read_lever(store).text
    pull_lever(store, "allowed", reason="over", by="ada")
    assert broken(check_guards(situation(tmp_path, store))) == {}


def test_a_database_that_cannot_be_read_is_no_permission(tmp_path: Path, store: Store) -> None:
    at = situation(tmp_path, store)
    with store.write() as connection:
        connection.exec_driver_sql("DROP TABLE drill_lever")
    found = broken(check_guards(at))
    assert "could not be read, so nothing may be broken" in found["safety lever"]


def test_the_last_healthy_replica_is_protected(tmp_path: Path, store: Store) -> None:
    view = view_of(tmp_path, instance("replica-1"), instance("replica-2", healthy=None))
    for left in (1, 0):  # whatever the file says
        of = scenario(blast_radius={"instances": 1, "healthy_left": left})
        found = broken(check_guards(situation(tmp_path, store, of, view)))
        assert "0 healthy ones would be left, and 1 have to be" in found["blast radius"]


def test_the_primary_is_hit_only_beside_a_healthy_standby(tmp_path: Path, store: Store) -> None:
    standby = instance("database-2", "database_standby", healthy=False)
    view = view_of(tmp_path, instance("database-1", "database_primary"), standby)
    found = broken(check_guards(situation(tmp_path, store, scenario("primary_database_lost"), view)))
    assert list(found) == ["blast radius"]


def test_what_all_replicas_read_needs_a_blast_radius_that_says_so(tmp_path: Path, store: Store) -> None:
    of = scenario("model_store_lost", blast_radius={"instances": 1, "healthy_left": 0})
    found = broken(check_guards(situation(tmp_path, store, of)))
    assert "2 instances would be hit" in found["blast radius"]


@pytest.mark.parametrize("conditions", [{"no_open_incidents": True}, {"error_budget_left": 0.25}])
def test_conditions_that_nothing_records_refuse(
    tmp_path: Path, store: Store, conditions: dict[str, Any]
) -> None:
    found = broken(check_guards(situation(tmp_path, store, scenario(conditions=conditions))))
    assert f"{next(iter(conditions))} cannot be read" in found["conditions"]


def test_a_target_that_changed_between_plan_and_fault(tmp_path: Path, store: Store) -> None:
    of, view = scenario(), view_of(tmp_path)
    plan = make_plan(of, origin(tmp_path), view, resolve(of, origin(tmp_path), view))
    assert same_target(plan, view).ok
    again = view_of(tmp_path, instance("replica-1", pid=4712), instance("replica-2"))
    assert "is not the one that was planned" in same_target(plan, again).why
    sick = view_of(tmp_path, instance("replica-1", healthy=False), instance("replica-2"))
    assert "is not healthy any more" in same_target(plan, sick).why
    assert not same_target(plan, None).ok
    assert planned_target(plan, view) == resolve(of, origin(tmp_path), view)
    assert plan.fault_id == fault_id(KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps__simulate_failure__instance": "replica-9"}, "no instance 'replica-9'"),
        ({"steps__simulate_failure__fault": "kill_container"}, "is no container but a process"),
        (
            {
                "steps__simulate_failure": {
                    "fault": "fill_disk",
                    "place": "model_store",
                    "time_to_live_seconds": 9,
                }
            },
            "is no file system of its own",
        ),
        (
            {"steps__simulate_failure": {**FILL, "place": "attic"}},
            "has no place 'attic'",
        ),
        (
            {
                "steps__simulate_failure": {
                    "fault": "truncate_file",
                    "place": "model_store",
                    "path": "nothing",
                    "time_to_live_seconds": 9,
                }
            },
            "has no file 'nothing' to hit",
        ),
        (
            {
                "steps__simulate_failure": {
                    "fault": "disturb_link",
                    "link": "moon",
                    "disturbance": "reset",
                    "time_to_live_seconds": 9,
                }
            },
            "no link 'moon'",
        ),
    ],
)
def test_a_target_that_is_not_there(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DrillRefusedError, match=message):
        resolve(scenario(**changes), origin(tmp_path), view_of(tmp_path))


def test_only_processes_of_this_machine_are_hit(tmp_path: Path) -> None:
    elsewhere = ProcessIdentity(pid=1, started=1, boot="another boot")
    away = Instance(name="replica-1", role="replica", address=None, identity=elsewhere, healthy=True)
    with pytest.raises(DrillRefusedError, match="runs on another machine"):
        resolve(scenario(), origin(tmp_path), view_of(tmp_path, away, instance("replica-2")))
    container = ContainerIdentity(id="c" * 64, started="now")
    boxed = Instance(name="replica-1", role="replica", address=None, identity=container, healthy=True)
    with pytest.raises(DrillRefusedError, match="is no process but a container"):
        resolve(scenario(), origin(tmp_path), view_of(tmp_path, boxed))


def test_a_link_out_of_a_place_is_not_followed(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    (tmp_path / "precious").write_text("precious")
    (Path(view.places["model_store"]) / "model.mlpackage").unlink()
    (Path(view.places["model_store"]) / "model.mlpackage").symlink_to(tmp_path / "precious")
    step = {
        "fault": "truncate_file",
        "place": "model_store",
        "path": "model.mlpackage",
        "time_to_live_seconds": 9,
    }
    with pytest.raises(DrillRefusedError, match="leads elsewhere"):
        resolve(scenario(steps__simulate_failure=step), origin(tmp_path), view)
