"""Faults of processes, databases and links, on real processes and through a real control."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery import faults
from fastvlm_ops.core.disaster_recovery.fault_types import DatabaseFault, LinkFault, ProcessFault
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.programs.proc import family, process_id
from fastvlm_ops.core.services.instances import ProcessIdentity
from tests.small_service import SmallService, end, members, start_session

# Starts children as fast as it can: whoever lists them is always late.
FORKING = """
import os, time
while True:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    time.sleep(0.001)
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SmallService]:
    roles = {"replica-1": "replica", "database-1": "database_primary", "database-2": "database_standby"}
    with SmallService(tmp_path, roles) as running:
        yield running


def fault_of(service: SmallService, how: str, instance: str = "replica-1") -> ProcessFault:
    return ProcessFault(
        how=how, control=service.address, instance=instance, identity=service.identity(instance)
    )


class Hit(list[ProcessIdentity]):
    """Keeps what a fault says that it is about to hit."""

    def __call__(self, hit: list[ProcessIdentity]) -> None:
        assert not any(one.process.stopped for one in hit[len(self) or 1 :])  # before, and not after
        self[:] = hit


def test_a_hang_is_of_all_processes_and_ends_for_all(service: SmallService) -> None:
    fault, hit = fault_of(service, "stop"), Hit()
    everyone = members(service.leaders["replica-1"])
    faults.inject(fault, hit)
    assert [one.process for one in hit] == everyone
    assert all(one.stopped for one in everyone)
    assert "processes are stopped" in (faults.is_left(fault, hit) or "")
    assert "SIGCONT to 3 of 3" in faults.revert(fault, hit)
    assert not any(one.stopped for one in everyone)
    assert all(one.alive for one in everyone)
    assert faults.is_left(fault, hit) is None
    assert "SIGCONT to 0 of 3" in faults.revert(fault, hit)
    assert service.asked == []


def test_a_hang_ends_for_what_its_dead_leader_had_started(service: SmallService) -> None:
    fault, hit = fault_of(service, "stop"), Hit()
    faults.inject(fault, hit)
    leader, *children = [one.process for one in hit]
    leader.signal(signal.SIGKILL)
    service.leaders["replica-1"].wait()
    assert all(one.stopped for one in children)
    assert faults.is_left(fault, hit)
    faults.revert(fault, hit)
    assert not any(one.stopped for one in children)
    assert faults.is_left(fault, hit) is None
    for one in children:
        one.signal(signal.SIGKILL)


def test_a_kill_is_of_all_processes_and_the_instance_is_started(service: SmallService) -> None:
    fault, hit = fault_of(service, "kill"), Hit()
    faults.inject(fault, hit)
    assert len(hit) == 3
    assert not any(one.process.alive for one in hit)
    assert faults.is_left(fault, hit) == "replica-1 does not run"
    assert faults.revert(fault, hit) == "replica-1 was started"
    assert service.asked == ["POST /instances/replica-1/start"]
    assert faults.is_left(fault, hit) is None
    assert "nothing had to be done" in faults.revert(fault, hit)


def test_a_kill_that_got_no_further_than_to_stop_them_lets_them_go_on(service: SmallService) -> None:
    fault, hit = fault_of(service, "kill"), Hit()
    faults.inject(fault.model_copy(update={"how": "stop"}), hit)
    assert "processes are stopped" in (faults.is_left(fault, hit) or "")
    assert "nothing had to be done" in faults.revert(fault, hit)
    assert all(one.process.alive and not one.process.stopped for one in hit)


def test_a_restart_is_a_restart(service: SmallService) -> None:
    fault = fault_of(service, "restart")
    faults.inject(fault)
    assert service.identity("replica-1") != fault.identity
    assert faults.is_left(fault) is None


@pytest.mark.parametrize("how", ["kill", "stop", "restart"])
def test_a_process_that_is_not_the_one_that_was_armed_is_not_touched(service: SmallService, how: str) -> None:
    fault = fault_of(service, how)
    other = fault.identity.model_copy(update={"started": fault.identity.started - 1})
    with pytest.raises(FaultError, match="not the one that was armed"):
        faults.inject(fault.model_copy(update={"identity": other}))
    another_boot = fault.identity.model_copy(update={"boot": "another"})
    with pytest.raises(FaultError, match="not the one that was armed"):
        faults.inject(fault.model_copy(update={"identity": another_boot}))
    assert not any(one.stopped for one in members(service.leaders["replica-1"]))
    assert service.identity("replica-1") == fault.identity


def test_a_number_that_is_anothers_by_now_gets_no_signal(service: SmallService) -> None:
    """It was hit and has ended; a process with its number was stopped since, by somebody else."""
    stranger = start_session()
    (leader, *_) = members(stranger)
    leader.signal(signal.SIGSTOP)
    while not leader.stopped:
        time.sleep(0.01)
    old = ProcessIdentity.of(leader).model_copy(update={"started": leader.started - 1})
    fault = fault_of(service, "stop").model_copy(update={"identity": old})
    assert faults.is_left(fault, [old]) is None
    assert "SIGCONT to 0" in faults.revert(fault, [old])
    assert leader.stopped
    end(stranger)


def test_nothing_is_left_out_that_is_just_being_started(service: SmallService) -> None:
    forking = subprocess.Popen([sys.executable, "-c", FORKING], start_new_session=True)
    try:
        while len(members(forking)) < 10:
            time.sleep(0.01)
        leader = process_id(forking.pid)
        assert leader is not None
        fault = fault_of(service, "stop").model_copy(update={"identity": ProcessIdentity.of(leader)})
        hit = Hit()
        faults.inject(fault, hit)
        assert set(family(leader)) == {one.process for one in hit}
        assert all(one.process.stopped for one in hit)
        faults.inject(fault.model_copy(update={"how": "kill"}))
        assert len(hit) >= 10
        assert not any(one.process.alive for one in hit)
        assert forking.wait() == -signal.SIGKILL
    finally:
        end(forking)


def test_it_does_not_hit_what_it_runs_under(service: SmallService) -> None:
    for pid in (os.getpid(), os.getppid()):
        me = process_id(pid)
        assert me is not None
        fault = fault_of(service, "stop").model_copy(update={"identity": ProcessIdentity.of(me)})
        with pytest.raises(FaultError, match="runs under"):
            faults.inject(fault)


def test_a_control_that_does_not_answer_is_said(service: SmallService) -> None:
    fault = fault_of(service, "kill")
    faults.inject(fault)
    service.hang_up()
    for act in (faults.revert, faults.is_left):
        with pytest.raises(FaultError, match="cannot be") as raised:
            act(fault)
        assert raised.value.retryable
    service.serve()
    faults.revert(fault)
    assert faults.is_left(fault) is None


def test_an_instance_that_is_not_known_any_more_is_said(service: SmallService) -> None:
    fault = fault_of(service, "kill").model_copy(update={"instance": "replica-9"})
    for act in (faults.revert, faults.is_left):
        with pytest.raises(FaultError, match="no instance 'replica-9'"):
            act(fault)


# -- databases ---------------------------------------------------------------------------------------------


def database_fault(service: SmallService) -> DatabaseFault:
    return DatabaseFault(
        control=service.address, instance="database-1", identity=service.identity("database-1")
    )


def test_a_primary_that_nothing_replaced_comes_back_as_primary(service: SmallService) -> None:
    fault, hit = database_fault(service), Hit()
    faults.inject(fault, hit)
    assert not any(one.process.alive for one in hit)
    assert faults.is_left(fault, hit) == "database-1 does not run"
    assert faults.revert(fault, hit) == "database-1 was started"
    assert service.asked == ["POST /instances/database-1/start"]
    assert faults.is_left(fault, hit) is None


@pytest.mark.parametrize("new_primary_runs", [True, False])
def test_a_primary_that_was_replaced_comes_back_as_standby(
    service: SmallService, new_primary_runs: bool
) -> None:
    fault, hit = database_fault(service), Hit()
    faults.inject(fault, hit)
    service.roles["database-2"] = "database_primary"
    if not new_primary_runs:  # it is down, but it is the one that has the newest data
        end(service.leaders["database-2"])
    assert faults.revert(fault, hit) == "database-1 was made a standby of database-2"
    assert service.asked == ["POST /instances/database-1/rejoin"]
    assert faults.is_left(fault, hit) is None


def test_a_second_primary_is_left_and_taken_back(service: SmallService) -> None:
    fault = database_fault(service)
    service.roles["database-2"] = "database_primary"
    assert faults.is_left(fault) == "there are two primaries: database-1 and database-2"
    faults.revert(fault)
    assert service.asked == ["POST /instances/database-1/stop", "POST /instances/database-1/rejoin"]
    assert faults.is_left(fault) is None


def test_a_promotion_while_the_old_primary_is_started_makes_no_second_one(
    service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = database_fault(service)
    faults.inject(fault)
    tell = service._tell

    def promoted_meanwhile(name: str, what: str) -> tuple[int, bytes]:
        if what == "start":
            service.roles["database-2"] = "database_primary"
        return tell(name, what)

    monkeypatch.setattr(service, "_tell", promoted_meanwhile)
    assert "then made a standby of database-2" in faults.revert(fault)
    assert [one.name for one in service.view().of_role("database_primary")] == ["database-2"]
    assert faults.is_left(fault) is None


# -- links -------------------------------------------------------------------------------------------------


def test_a_link_is_disturbed_and_soothed(service: SmallService) -> None:
    fault = LinkFault(control=service.address, link="replica-1", disturbance="black_hole")
    faults.inject(fault)
    assert service.disturbed == {"replica-1": "black_hole"}
    assert faults.is_left(fault) == "the link replica-1 is disturbed: black_hole"
    faults.revert(fault)
    assert service.disturbed == {}
    assert faults.is_left(fault) is None


def test_a_service_that_does_not_say_whether_a_link_is_disturbed_is_not_taken_for_well(
    service: SmallService,
) -> None:
    fault = LinkFault(control=service.address, link="replica-1", disturbance="reset")
    service.disturbed = None
    with pytest.raises(FaultError, match="does not say"):
        faults.is_left(fault)
    with pytest.raises(FaultError, match="no link 'replica-9'"):
        faults.is_left(fault.model_copy(update={"link": "replica-9"}))


def test_words_of_a_dry_run_touch_nothing(service: SmallService) -> None:
    for how in ("kill", "stop", "restart"):
        said = faults.describe(fault_of(service, how))
        assert str(service.identity("replica-1").pid) in said[0]
        assert said[1].startswith("taken back: ")
    faults.describe(database_fault(service))
    link = LinkFault(control=service.address, link="replica-1", disturbance="latency", latency_ms=70)
    assert "latency of 70 ms" in faults.describe(link)[0]
    assert service.asked == []
