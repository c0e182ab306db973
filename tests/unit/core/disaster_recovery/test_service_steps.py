"""Probes, checks and actions of a service, each with what it must find, must not find, and cannot tell."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.config.disaster_recovery_steps import (
    CanaryProbe,
    CanaryRowsEqual,
    FaultVisible,
    HttpProbe,
    InstanceOutOfRotation,
    InstancesHealthy,
    InstancesProbe,
    ReleaseFault,
    RequestsSucceed,
    RestartInstance,
    ServiceSays,
    WaitForInstance,
)
from fastvlm_ops.core.disaster_recovery.fault_entries import new_entry, read_entry, write_entry
from fastvlm_ops.core.disaster_recovery.fault_types import FileFault, LinkFault, ProcessFault
from fastvlm_ops.core.disaster_recovery.holding import arm
from fastvlm_ops.core.disaster_recovery.ledger import (
    PROBE_COLUMNS,
    PROBES_FILE,
    WRITE_COLUMNS,
    WRITES_FILE,
    ProbeRecord,
    WriteRecord,
    probe_row,
    write_row,
)
from fastvlm_ops.core.disaster_recovery.observation import Observation, write_observation
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.probes import run_probe
from fastvlm_ops.core.disaster_recovery.service_requests import payload_hash, payload_of
from fastvlm_ops.core.disaster_recovery.steps import run_action, run_check
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import Instance, Marker, ProcessIdentity, ServiceView
from tests.drilled_service import DrilledService

FAULT_ID = "drill-1"
AT_ONCE = 0.01


@dataclass
class Control:
    """Says what it is told to say of two replicas, which are real processes."""

    view_: ServiceView
    restarted: list[str] = field(default_factory=list)
    problem: str = ""
    address: str = "unix:/nowhere"

    def view(self) -> ServiceView:
        if self.problem:
            raise ServiceControlError(self.problem, retryable=True)
        return self.view_

    def restart(self, name: str) -> None:
        if self.problem:
            raise ServiceControlError(self.problem)
        self.restarted.append(name)
        self.change(name, identity=identity_of(start()))

    def change(self, name: str, **changes: Any) -> None:
        instances = tuple(
            one.model_copy(update=changes) if one.name == name else one for one in self.view_.instances
        )
        self.view_ = self.view_.model_copy(update={"instances": instances})


STARTED: list[subprocess.Popen[bytes]] = []


def start() -> subprocess.Popen[bytes]:
    STARTED.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
    return STARTED[-1]


def identity_of(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = process_id(process.pid)
    assert found is not None
    return ProcessIdentity.of(found)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service() -> Iterator[DrilledService]:
    found = DrilledService()
    yield found
    found.close()


@dataclass
class Drill:
    """A drill whose fault hit replica-1."""

    plan: DrillPlan
    at: Surroundings
    control: Control
    hit: subprocess.Popen[bytes]

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder)

    def check(self, step: Any) -> tuple[str, str]:
        result = run_check(step, self.plan, self.at)
        return result["status"], result["detail"]

    def act(self, step: Any) -> tuple[str, str]:
        result = run_action(step, self.plan, self.at)
        return result["status"], result["detail"]

    def faulted(self, fault: Any, *, took_seconds: float = 0) -> None:
        """Note a fault as injected just now.

        :param took_seconds: how long injecting it took
        """
        self.plan = self.plan.model_copy(update={"fault": fault})
        file = arm(
            self.at.drill_dir,
            new_entry(fault_id=FAULT_ID, run_key=self.plan.run_key, fault=fault, time_to_live_seconds=60),
        )
        entry = read_entry(file)
        hit = (fault.identity,) if isinstance(fault, ProcessFault) else ()
        changed = entry.changed(
            state="injected",
            hit=hit,
            fault_at=entry.armed_at,
            fault_monotonic_ns=time.monotonic_ns() - round(took_seconds * 1e9),
            injected_monotonic_ns=time.monotonic_ns(),
            expires_at=entry.armed_at,
            expires_monotonic_ns=time.monotonic_ns() + 60 * 10**9,
        )
        write_entry(file, changed)

    def fault(self, how: Any = "kill") -> ProcessFault:
        return ProcessFault(
            how=how, control="unix:/nowhere", instance="replica-1", identity=identity_of(self.hit)
        )

    def observed(self, probes: list[ProbeRecord] = [], writes: list[WriteRecord] = []) -> None:  # noqa: B006
        """Write a ledger, by an observer that lives."""
        for name, columns, rows in (
            (PROBES_FILE, PROBE_COLUMNS, map(probe_row, probes)),
            (WRITES_FILE, WRITE_COLUMNS, map(write_row, writes)),
        ):
            with (self.folder / name).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        now = time.monotonic_ns()
        process = identity_of(start())
        url = self.plan.url or ""
        seen = Observation(process=process, url=url, prefix=FAULT_ID, started_ns=now, heartbeat_ns=now)
        write_observation(self.folder, seen)


@pytest.fixture
def drill(tmp_path: Path, service: DrilledService) -> Drill:
    service.mode = "well"
    service.rows.clear()
    folder = tmp_path / "drills" / "runs" / FAULT_ID
    folder.mkdir(parents=True)
    hit, other = start(), start()
    instances = tuple(
        Instance(name=name, role="replica", address=None, identity=identity_of(process), healthy=True)
        for name, process in (("replica-1", hit), ("replica-2", other))
    )
    marker = Marker(service="s", environment="demo")
    view = ServiceView(
        marker=marker, instances=instances, url=service.url, places={}, links=("replica-1",), disturbed={}
    )
    control = Control(view)
    plan = DrillPlan(
        run_key="d/r",
        fault_id=FAULT_ID,
        scenario="x",
        definition={"objectives": {"rto_seconds": 60, "rpo_seconds": 0}},
        definition_hash="0",
        include_hash="0",
        dry_run=False,
        environment="demo",
        control=control.address,
        url=service.url,
        fault=None,
        time_to_live_seconds=60,
        instances_before=("replica-1", "replica-2"),
        folder=str(folder),
        host="here",
        planned_at="2026-11-30T12:00:00+00:00",
    )
    at = Surroundings(
        control=control,  # type: ignore[arg-type]
        store=None,  # type: ignore[arg-type]
        open_repository=None,
        open_repository_through=None,
        database_dsn=None,
        components=lambda: None,  # type: ignore[arg-type, return-value]
        kit_dir=None,
        postgresql_bin_dir=None,
        scratch=tmp_path / "scratch",
        drill_dir=tmp_path / "drills",
        say=lambda _: None,
        as_of=datetime.now(UTC),
    )
    return Drill(plan, at, control, hit)


def probed(*ok: bool, since: float = 60.0) -> list[ProbeRecord]:
    """Requests that will have been sent after the check began."""
    now = time.monotonic_ns() + round(since * 1e9)
    return [
        ProbeRecord(n, now + n, now + n + 1, good, 200 if good else None, "" if good else "no answer")
        for n, good in enumerate(ok)
    ]


# -- is the fault there? ------------------------------------------------------------------------------


def test_a_killed_process_is_seen_to_be_gone(drill: Drill) -> None:
    drill.faulted(drill.fault())
    step = FaultVisible(check="fault_visible", within_seconds=AT_ONCE)
    status, detail = drill.check(step)
    assert status == "failed"
    assert detail == f"not within 0.01 s: replica-1 is healthy; hit was process {drill.hit.pid}"
    drill.hit.kill()
    drill.hit.wait()
    assert drill.check(step)[0] == "failed"  # the service itself does not say so yet
    drill.control.change("replica-1", identity=None, healthy=False, detail="does not run")
    assert drill.check(step) == (
        "passed",
        f"replica-1 is not healthy (does not run); hit was process {drill.hit.pid}",
    )


def test_a_hanging_process_is_seen_by_the_kernel_and_by_the_service(drill: Drill) -> None:
    drill.faulted(drill.fault("stop"))
    step = FaultVisible(check="fault_visible", within_seconds=AT_ONCE)
    drill.control.change("replica-1", healthy=False, detail="no answer")
    assert drill.check(step)[0] == "failed"  # the service says so, and the process runs
    drill.hit.send_signal(signal.SIGSTOP)
    status, detail = drill.check(replace_within(step, 5))
    assert status == "passed"
    assert "replica-1 is not healthy (no answer)" in detail
    drill.control.change("replica-1", healthy=True)
    assert drill.check(step)[0] == "failed"


def test_a_disturbed_link_is_seen_where_the_service_says_it_is(drill: Drill) -> None:
    drill.faulted(LinkFault(control="unix:/nowhere", link="replica-1", disturbance="reset"))
    step = FaultVisible(check="fault_visible", within_seconds=AT_ONCE)
    assert drill.check(step) == ("failed", "not within 0.01 s: the link replica-1: passes all on")
    drill.control.view_ = drill.control.view_.model_copy(update={"disturbed": {"replica-1": "reset"}})
    assert drill.check(step) == ("passed", "the link replica-1: reset")
    drill.control.view_ = drill.control.view_.model_copy(update={"disturbed": None})
    assert drill.check(step) == (
        "inconclusive",
        "could not be told: the service does not say which of its links are disturbed",
    )


def test_without_a_fault_nothing_can_be_told_of_it(drill: Drill) -> None:
    assert drill.check(FaultVisible(check="fault_visible", within_seconds=AT_ONCE)) == (
        "inconclusive",
        "could not be told: nothing is broken in this drill, so that there is no fault to look at",
    )


def test_a_service_that_does_not_answer_leaves_it_open(drill: Drill) -> None:
    drill.faulted(drill.fault())
    drill.control.problem = "the supervisor does not answer"
    for step in (
        FaultVisible(check="fault_visible", within_seconds=AT_ONCE),
        InstanceOutOfRotation(check="instance_out_of_rotation", within_seconds=AT_ONCE),
        InstancesHealthy(check="instances_healthy", within_seconds=AT_ONCE),
    ):
        assert drill.check(step) == ("inconclusive", "could not be told: the supervisor does not answer")


def replace_within(step: FaultVisible, seconds: float) -> FaultVisible:
    return step.model_copy(update={"within_seconds": seconds})


# -- are users served? ----------------------------------------------------------------------------------

SUCCEED = RequestsSucceed(check="requests_succeed", consecutive=3, within_seconds=AT_ONCE)


def test_requests_in_a_row(drill: Drill) -> None:
    drill.observed(probed(False, True, True, True))
    assert drill.check(SUCCEED) == ("passed", "3 requests in a row were answered rightly")
    drill.observed(probed(True, True, True, False, True, True))
    assert drill.check(SUCCEED) == (
        "failed",
        "not within 0.01 s: 2 of 3 in a row were answered rightly; the last that was not: no answer",
    )


def test_a_request_that_is_not_answered_yet_ends_a_row(drill: Drill) -> None:
    probes = [one for one in probed(True, True, True, True) if one.number != 2]
    drill.observed(probes)
    assert drill.check(SUCCEED) == ("failed", "not within 0.01 s: 1 of 3 in a row were answered rightly")


def test_requests_of_before_say_nothing(drill: Drill) -> None:
    drill.observed(probed(True, True, True, True, since=-1))
    status, detail = drill.check(SUCCEED)
    assert (status, detail) == ("inconclusive", "could not be told: the observer has seen no answer yet")


def test_a_dead_observer_says_nothing(drill: Drill) -> None:
    drill.observed(probed(True, True, True, True))
    STARTED[-1].kill()
    STARTED[-1].wait()
    status, detail = drill.check(SUCCEED)
    assert status == "inconclusive"
    assert detail.startswith("could not be told: the observer of the drill does not run")


def test_out_of_rotation(drill: Drill) -> None:
    drill.faulted(drill.fault("stop"))
    step = InstanceOutOfRotation(check="instance_out_of_rotation", within_seconds=AT_ONCE)
    assert drill.check(step) == ("failed", "not within 0.01 s: replica-1 is healthy, and is sent requests")
    drill.control.change("replica-1", healthy=None)
    assert drill.check(step)[0] == "inconclusive"
    drill.control.change("replica-1", healthy=False, detail="no answer")
    assert drill.check(step) == ("passed", "replica-1 is not healthy (no answer)")


def test_what_replaced_the_one_that_was_hit_may_be_in_rotation(drill: Drill) -> None:
    drill.faulted(drill.fault())
    drill.hit.kill()
    drill.hit.wait()
    drill.control.change("replica-1", identity=identity_of(start()))
    step = InstanceOutOfRotation(check="instance_out_of_rotation", within_seconds=AT_ONCE)
    assert drill.check(step) == (
        "passed",
        "what was hit is gone, and another one is in its place: replica-1 is healthy",
    )


def test_what_the_service_says(drill: Drill, service: DrilledService) -> None:
    def step(status: int) -> ServiceSays:
        return ServiceSays(check="service_says", path="/readyz", status=status, within_seconds=AT_ONCE)

    assert drill.check(step(200)) == ("passed", "/readyz answered 200")
    assert drill.check(step(503)) == (
        "failed",
        'not within 0.01 s: /readyz answered 200, expected 503: {"ready": true}',
    )
    drill.plan = drill.plan.model_copy(update={"url": "http://127.0.0.1:1"})
    status, detail = drill.check(step(503))
    assert status == "failed"
    assert detail.startswith("not within 0.01 s: /readyz was not answered, expected 503: ")


# -- is all back? -----------------------------------------------------------------------------------------


def test_instances_that_were_healthy_have_to_be_again(drill: Drill) -> None:
    step = InstancesHealthy(check="instances_healthy", within_seconds=AT_ONCE)
    assert drill.check(step) == ("passed", "all 2 that were healthy before are: replica-1, replica-2")
    drill.control.change("replica-2", healthy=None)
    assert drill.check(step) == (
        "failed",
        "not within 0.01 s: replica-2: replica-2 may be healthy or not",
    )
    only = drill.control.view_.instances[:1]
    drill.control.view_ = drill.control.view_.model_copy(update={"instances": only})
    assert drill.check(step)[1] == "not within 0.01 s: replica-2: is no instance any more"


def test_waiting_for_an_instance_means_another_process(drill: Drill) -> None:
    drill.faulted(drill.fault())
    step = WaitForInstance(action="wait_for_instance", within_seconds=AT_ONCE)
    assert drill.act(step) == ("failed", "not within 0.01 s: replica-1 is still what was hit")
    drill.control.change("replica-1", identity=identity_of(start()), healthy=False)
    assert drill.act(step)[0] == "failed"
    drill.control.change("replica-1", healthy=True)
    assert drill.act(step) == ("passed", "replica-1 is healthy")


def test_restarting_is_told_and_waited_for(drill: Drill) -> None:
    drill.faulted(drill.fault("stop"))
    step = RestartInstance(action="restart_instance", within_seconds=5)
    assert drill.act(step) == ("passed", "replica-1 is healthy")
    assert drill.control.restarted == ["replica-1"]
    assert [what for _, what in drill.at.done] == ["restart replica-1"]


def test_releasing_a_fault(drill: Drill, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "model").write_bytes(b"weights")
    fault = FileFault(how="delete", place=str(place), path="model", kept=str(tmp_path / "kept"))
    from fastvlm_ops.core.disaster_recovery import faults

    drill.faulted(fault)
    faults.inject(fault)
    visible = FaultVisible(check="fault_visible", within_seconds=AT_ONCE)
    assert drill.check(visible)[0] == "passed"
    status, _ = drill.act(ReleaseFault(action="release_fault", within_seconds=5))
    assert status == "passed"
    assert (place / "model").read_bytes() == b"weights"
    assert drill.check(visible)[0] == "failed"


# -- the canary -------------------------------------------------------------------------------------------


def written(
    drill: Drill, service: DrilledService, count: int = 6, *, took_seconds: float = 0
) -> list[WriteRecord]:
    """Writes acknowledged in the last moment before the fault, which is noted as injected now."""
    now = time.monotonic_ns()
    found = []
    for number in range(count):
        row = f"{FAULT_ID}-{number}"
        service.rows[row] = payload_of(row)
        sent = now - (count - number) * 10_000_000
        found.append(
            WriteRecord(number, row, payload_hash(payload_of(row)), sent, "acknowledged", sent + 1_000_000)
        )
    drill.faulted(drill.fault(), took_seconds=took_seconds)
    return found


EQUAL = CanaryRowsEqual(check="canary_rows_equal", within_seconds=AT_ONCE)


def test_all_rows_are_there(drill: Drill, service: DrilledService) -> None:
    drill.observed(writes=written(drill, service))
    assert drill.check(EQUAL) == (
        "passed",
        "all acknowledged writes are there as they were written, 6 so far",
    )


def test_one_missing_row_is_named(drill: Drill, service: DrilledService) -> None:
    drill.observed(writes=written(drill, service))
    del service.rows["drill-1-5"]
    status, detail = drill.check(EQUAL)
    assert status == "failed"
    assert detail.endswith(" s is over the objective of 0 s: lost are drill-1-5")


def test_a_row_that_goes_missing_while_the_fault_is_injected_is_within_the_objective(
    drill: Drill, service: DrilledService
) -> None:
    drill.plan = drill.plan.model_copy(
        update={"definition": {"objectives": {"rto_seconds": 60, "rpo_seconds": 60}}}
    )
    drill.observed(writes=written(drill, service, took_seconds=0.5))
    del service.rows["drill-1-5"]
    assert drill.check(EQUAL) == (
        "passed",
        "1 of 6 acknowledged writes are lost, which the RPO allows: drill-1-5",
    )


def test_one_altered_byte_is_found_whatever_may_be_lost(drill: Drill, service: DrilledService) -> None:
    drill.plan = drill.plan.model_copy(
        update={"definition": {"objectives": {"rto_seconds": 60, "rpo_seconds": 60}}}
    )
    drill.observed(writes=written(drill, service))
    payload = service.rows["drill-1-3"]
    service.rows["drill-1-3"] = ("0" if payload[0] != "0" else "1") + payload[1:]
    assert drill.check(EQUAL) == (
        "failed",
        "1 acknowledged writes have other contents now: drill-1-3",
    )
    del service.rows["drill-1-3"]
    assert drill.check(EQUAL) == (
        "passed",
        "1 of 6 acknowledged writes are lost, which the RPO allows: drill-1-3",
    )


def test_a_dead_canary_leaves_it_open(drill: Drill, service: DrilledService) -> None:
    old = [replace(one, answered_ns=one.sent_ns - 2 * 10**9) for one in written(drill, service)]
    drill.observed(writes=old)
    status, detail = drill.check(EQUAL)
    assert status == "inconclusive"
    assert detail.startswith("RPO was not measured: no write was acknowledged in the last 1 s")


def test_rows_that_cannot_be_read_leave_it_open(drill: Drill, service: DrilledService) -> None:
    drill.observed(writes=written(drill, service))
    drill.plan = drill.plan.model_copy(update={"url": "http://127.0.0.1:1"})
    status, detail = drill.check(EQUAL)
    assert status == "inconclusive"
    assert detail.startswith("could not be told: the canary's rows cannot be read: ConnectError")


# -- probes -------------------------------------------------------------------------------------------------


def probe(drill: Drill, what: Any) -> tuple[bool, str]:
    outcome = run_probe(what, drill.plan, drill.at)
    return outcome.ok, outcome.detail


def test_a_request_is_a_probe(drill: Drill, service: DrilledService) -> None:
    ready = HttpProbe(probe="http", path="/readyz", within_ms=5000)
    ok, detail = probe(drill, ready)
    assert ok
    assert detail.startswith("/readyz answered 200 in ")
    service.mode = "failing"
    ok, detail = probe(drill, ready)
    assert not ok
    assert detail.endswith(' ms, expected 200: {"error": "told to fail"}')
    service.mode = "hanging"
    ok, detail = probe(drill, HttpProbe(probe="http", path="/readyz", within_ms=50))
    assert not ok
    assert detail.startswith("/readyz was not answered within 50 ms")


def test_healthy_instances_are_a_probe(drill: Drill) -> None:
    two = InstancesProbe(probe="instances", role="replica", healthy=2)
    assert probe(drill, two) == (True, "2 of 2 of role replica are healthy")
    drill.control.change("replica-2", healthy=None)
    assert probe(drill, two) == (
        False,
        "1 of 2 of role replica are healthy, expected at least 2 (replica-2: not known)",
    )
    drill.control.problem = "it does not answer"
    assert probe(drill, two) == (False, "the instances probe could not be told: it does not answer")


def test_the_canary_is_a_probe(drill: Drill, service: DrilledService) -> None:
    ok, detail = probe(drill, CanaryProbe(probe="canary"))
    assert (ok, detail.startswith("the canary probe could not be told: the ledger")) == (False, True)
    drill.observed(writes=written(drill, service))
    assert probe(drill, CanaryProbe(probe="canary")) == (
        True,
        "the canary's row drill-1-5 is there as written",
    )
    service.rows["drill-1-5"] = "something else"
    assert probe(drill, CanaryProbe(probe="canary")) == (
        False,
        "the canary's row drill-1-5 was acknowledged and is not there as written",
    )
    drill.observed(writes=[])
    assert not probe(drill, CanaryProbe(probe="canary"))[0]
