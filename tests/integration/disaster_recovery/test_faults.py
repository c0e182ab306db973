"""Faults end, however what injected them dies: the holder, the task, both, the reaper, the machine.

A worker here is a process in a session of its own that has a fault injected, as a task does, and then does
what the test says. What is hit are real processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    locked,
    new_entry,
    read_entry,
    timestamp,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.fault_types import FileFault, LinkFault, ProcessFault
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError, FaultError
from fastvlm_ops.core.disaster_recovery.holding import arm, holders, inject, release
from fastvlm_ops.core.disaster_recovery.reaper import reap
from fastvlm_ops.core.programs.proc import ProcessId, process_id, session_members
from tests.small_service import SmallService, members

pytestmark = pytest.mark.integration

LIVE_SECONDS = 1.0
#: "A few seconds" after the time to live, on a machine that does other things too.
FEW_SECONDS = 10.0
WORKER = """
import sys, time
from pathlib import Path
from fastvlm_ops.core.disaster_recovery.holding import inject
inject(Path(sys.argv[1]))
print("injected", flush=True)
if sys.argv[2] == "fail":
    raise RuntimeError("the task fails")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallService]:
    with SmallService(tmp_path_factory.mktemp("service"), {"replica-1": "replica"}) as running:
        yield running


@pytest.fixture
def drills(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for file in (tmp_path / "faults").glob("*.json"):
        for holder in holders(file):
            holder.signal(signal.SIGKILL)


def hang(service: SmallService) -> ProcessFault:
    """A fault that stops a replica: what is there of it can be seen in every process."""
    if not service.runs("replica-1"):
        service._tell("replica-1", "start")
    identity = service.identity("replica-1")
    return ProcessFault(how="stop", control=service.address, instance="replica-1", identity=identity)


def armed(drills: Path, fault, seconds: float = LIVE_SECONDS, fault_id: str = "f1") -> Path:
    entry = new_entry(fault_id=fault_id, run_key="drill/run", fault=fault, time_to_live_seconds=seconds)
    return arm(drills, entry)


def start_worker(file: Path, then: str = "wait") -> subprocess.Popen[str]:
    """Start a task, with a supervisor above it that leads their session; returns when it has injected."""
    task = [sys.executable, "-c", WORKER, str(file), then]
    supervisor = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & wait $!', "sh", *task],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "injected\n"
    return supervisor


def end_worker(supervisor: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.communicate()


def members_of(leader: subprocess.Popen[str]) -> list[ProcessId]:
    found = process_id(leader.pid)
    assert found is not None
    return list(session_members(found))


def holder_of(file: Path) -> ProcessId:
    holder = read_entry(file).holder
    assert holder is not None
    return holder.process


def everyone(file: Path) -> list[ProcessId]:
    entry = read_entry(file)
    assert isinstance(entry.fault, ProcessFault)
    return [one.process for one in entry.hit] or [entry.fault.identity.process]


def is_hit(file: Path) -> bool:
    return any(one.stopped for one in everyone(file))


def wait_until_gone(file: Path) -> float:
    """Wait until nothing is stopped any more; returns for how long something was, since the fault."""
    entry = read_entry(file)
    assert entry.fault_monotonic_ns is not None
    deadline = time.monotonic() + LIVE_SECONDS + FEW_SECONDS
    processes = everyone(file)
    while any(one.stopped for one in processes):
        assert time.monotonic() < deadline, "the fault is still there"
        time.sleep(0.002)
    lasted = (time.monotonic_ns() - entry.fault_monotonic_ns) / 1e9
    assert all(one.alive for one in processes)
    return lasted


def closed(file: Path) -> FaultEntry:
    deadline = time.monotonic() + FEW_SECONDS
    while not (entry := read_entry(file)).is_closed:
        assert time.monotonic() < deadline, entry
        time.sleep(0.01)
    return entry


# As `fastvlm-ops reap-faults` runs it, without the seconds that Airflow's settings take to read.
REAPER = """
import json, signal, sys, threading
from pathlib import Path
from fastvlm_ops.core.disaster_recovery.reaping import Reaping, ReaperBusyError
def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)
reaping = Reaping(Path(sys.argv[1]), None, Path(sys.argv[2]), say)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=reaping.stopping.set).start())
try:
    sys.exit(not reaping.once()) if sys.argv[3:] else reaping.run()
except ReaperBusyError:
    sys.exit(4)
"""


class Reaper:
    """The supervised reaper, as a process."""

    def __init__(self, drills: Path) -> None:
        self.metrics = drills / "metrics"
        self.metrics.mkdir()
        self.arguments = [sys.executable, "-c", REAPER, str(drills), str(self.metrics)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        return process

    def kill_and_restart(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.process = self._start()

    def stop(self) -> list[dict[str, str]]:
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def reaper(drills: Path) -> Iterator[Reaper]:
    running = Reaper(drills)
    yield running
    running.process.kill()
    running.process.communicate()


# -- the ways to die, of what the drill consists of ---------------------------------------------------------


def test_the_task_fails(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file, "fail")
    assert is_hit(file)
    wait_until_gone(file)
    assert closed(file).undone_by == "time_to_live"
    end_worker(worker)


def test_nobody_does_anything_as_in_a_paused_dag(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    wait_until_gone(file)
    assert closed(file).undone_by == "time_to_live"
    end_worker(worker)


def test_the_task_is_killed(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    (task,) = [one for one in members_of(worker) if one.pid != worker.pid]
    task.signal(signal.SIGKILL)
    assert is_hit(file)
    wait_until_gone(file)
    assert closed(file).undone_by == "time_to_live"
    end_worker(worker)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_the_task_and_its_supervisor_are_killed(service: SmallService, drills: Path, number: int) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    os.killpg(worker.pid, number)  # all of their process group, which their session is too
    worker.communicate()
    assert is_hit(file)
    assert holder_of(file).alive
    wait_until_gone(file)
    assert closed(file).undone_by == "time_to_live"


def test_the_run_is_marked_failed_and_another_task_releases(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service), seconds=600)
    worker = start_worker(file)
    end_worker(worker)
    entry = release(file, 30)
    assert (entry.state, entry.undone_by) == ("undone", "holder")
    assert not is_hit(file)
    assert release(file, 30) == entry  # a teardown that is retried


def test_the_injector_is_killed(service: SmallService, drills: Path, reaper: Reaper) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    holder_of(file).signal(signal.SIGKILL)
    assert is_hit(file)
    wait_until_gone(file)
    assert closed(file).undone_by == "reaper"
    assert [one["event"] for one in reaper.stop()].count("taken_back") == 1
    end_worker(worker)


def test_the_worker_is_gone_with_all_it_had(service: SmallService, drills: Path, reaper: Reaper) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    holder = holder_of(file)
    end_worker(worker)
    holder.signal(signal.SIGKILL)
    wait_until_gone(file)
    assert closed(file).undone_by == "reaper"


def test_the_reaper_is_killed_as_well_and_started_again(
    service: SmallService, drills: Path, reaper: Reaper
) -> None:
    file = armed(drills, hang(service))
    worker = start_worker(file)
    holder_of(file).signal(signal.SIGKILL)
    end_worker(worker)
    reaper.kill_and_restart()
    wait_until_gone(file)
    assert closed(file).undone_by == "reaper"


def test_the_holder_hangs(service: SmallService, drills: Path) -> None:
    """It is the reaper's then; when it goes on, it touches nothing."""
    file = armed(drills, hang(service))
    inject(file)
    holder = holder_of(file)
    holder.signal(signal.SIGSTOP)
    time.sleep(LIVE_SECONDS)
    (result,) = reap(drills, grace_seconds=0)
    if result.outcome == "busy":  # stopped while it had the lock: it is killed, and the next look takes over
        (result,) = reap(drills, grace_seconds=0)
    assert result.outcome == "taken_back"
    assert not is_hit(file)
    everyone(file)[0].signal(signal.SIGSTOP)  # by somebody else, since
    try:
        holder.signal(signal.SIGCONT)
        while holder.alive:
            time.sleep(0.01)
        assert is_hit(file)
        assert read_entry(file).undone_by == "reaper"
    finally:
        everyone(file)[0].signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda one: one.name)
def test_a_signal_ends_the_fault(service: SmallService, drills: Path, number: signal.Signals) -> None:
    file = armed(drills, hang(service), seconds=600)
    inject(file)
    holder = holder_of(file)
    holder.signal(number)
    assert closed(file).undone_by == "signal"
    assert not is_hit(file)
    while holder.alive:
        time.sleep(0.01)


# -- its time to live --------------------------------------------------------------------------------------


def test_the_time_to_live_is_kept_within_a_fifth_of_a_second(service: SmallService, drills: Path) -> None:
    lasted = []
    for number in range(3):
        file = armed(drills, hang(service), fault_id=f"f{number}")
        entry = inject(file)
        assert entry.fault_monotonic_ns is not None
        assert entry.injected_monotonic_ns is not None
        assert entry.fault_monotonic_ns < entry.injected_monotonic_ns < time.monotonic_ns()
        lasted.append(wait_until_gone(file))
        closed(file)
    print(f"\ntime to live {LIVE_SECONDS} s: lasted {', '.join(f'{one:.3f}' for one in lasted)} s")
    assert max(abs(one - LIVE_SECONDS) for one in lasted) <= 0.2


# -- holder, task and reaper, one against another -----------------------------------------------------------


def test_many_inject_and_one_holder_does(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service), seconds=600)
    entries: list[FaultEntry] = []
    threads = [threading.Thread(target=lambda: entries.append(inject(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries) == 4
    assert len({entry.holder for entry in entries}) == 1
    deadline = time.monotonic() + FEW_SECONDS
    while len(holders(file)) > 1:  # those that were refused have ended
        assert time.monotonic() < deadline
        time.sleep(0.01)
    release(file)


def test_many_take_back_and_it_is_done_once(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service), seconds=600)
    inject(file)
    entries: list[FaultEntry] = []
    threads = [threading.Thread(target=lambda: entries.append(release(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries) == 4
    assert len({entry.undone_at for entry in entries}) == 1
    assert not is_hit(file)


def test_a_holder_that_comes_late_injects_nothing(service: SmallService, drills: Path) -> None:
    """Its start took so long that the task gave up, and the teardown called the fault off."""
    file = armed(drills, hang(service), seconds=600)
    results: list[str] = []

    def late() -> None:
        try:
            inject(file, 30)
        except FaultError as error:
            results.append(str(error))

    with locked(file, 5):
        thread = threading.Thread(target=late)
        thread.start()
        while not holders(file):  # it waits for the lock now, or soon
            time.sleep(0.01)
        entry = read_entry(file).changed(state="never_injected", undone_at=timestamp(), undone_by="task")
        write_entry(file, entry)
    thread.join()
    assert "called off" in results[0] or "could not be injected" in results[0]
    while holders(file):
        time.sleep(0.01)
    assert not is_hit(file)
    assert read_entry(file) == entry


def test_a_process_number_that_was_given_to_another_since(service: SmallService, drills: Path) -> None:
    fault = hang(service)
    other = fault.identity.model_copy(update={"started": fault.identity.started - 1})
    file = armed(drills, fault.model_copy(update={"identity": other}))
    with pytest.raises(FaultError, match="not the one that was armed"):
        inject(file)
    assert closed(file).undone_by == "holder"
    assert not any(one.stopped for one in members(service.leaders["replica-1"]))


def test_a_fault_that_cannot_be_taken_back_yet_is_tried_until_it_can(
    service: SmallService, drills: Path
) -> None:
    fault = LinkFault(control=service.address, link="replica-1", disturbance="reset")
    file = armed(drills, fault)
    inject(file)
    assert service.disturbed == {"replica-1": "reset"}
    service.hang_up()
    with pytest.raises(FaultError, match="could not be taken back") as raised:
        release(file, 1)
    assert raised.value.retryable
    assert "cannot be asked" in (read_entry(file).problem or "")
    service.serve()
    entry = closed(file)
    assert entry.state == "undone"
    assert service.disturbed == {}


def test_the_machine_was_started_anew(service: SmallService, drills: Path) -> None:
    """What died with it is closed, though its control is not there; what is on disk, and what a supervisor
    remembers, is taken back.
    """
    place, kept = drills / "place", drills / "kept"
    place.mkdir()
    (place / "model").write_bytes(b"weights")
    on_disk = FileFault(how="delete", place=str(place), path="model", kept=str(kept))
    link = LinkFault(control=service.address, link="replica-1", disturbance="reset")
    killed = hang(service).model_copy(update={"how": "kill", "control": "unix:/nowhere/control.sock"})
    faults = {"disk": on_disk, "link": link, "kill": killed}
    files = [armed(drills, fault, 600, name) for name, fault in faults.items()]
    service.disturbed = {"replica-1": "reset"}
    inject(files[0])
    holder_of(files[0]).signal(signal.SIGKILL)
    for file in files:
        past = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
        entry = read_entry(file).changed(
            boot="00000000-0000-0000-0000-000000000000",
            state="injected",
            fault_at=past,
            expires_at=past,
            expires_monotonic_ns=time.monotonic_ns() + 10**15,  # of the other boot: says nothing in this one
        )
        write_entry(file, entry)
    assert not (place / "model").exists()
    results = {result.fault_id: result for result in reap(drills)}
    assert results["disk"].outcome == "taken_back"
    assert results["link"].outcome == "taken_back"
    assert service.disturbed == {}
    assert results["kill"].outcome == "closed"
    assert (place / "model").read_bytes() == b"weights"
    assert all(read_entry(file).undone_by == "reaper" for file in files)
    assert reap(drills) == []


def test_what_is_of_another_machine_or_not_over_is_left_alone(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service), seconds=600)
    entry = read_entry(file)
    write_entry(file, entry.changed(host="another"))
    with pytest.raises(FaultError):
        inject(file, 5)
    assert "not here" in file.with_suffix(".log").read_text()
    assert reap(drills) == []
    write_entry(file, entry)
    inject(file)
    assert reap(drills) == []
    assert is_hit(file)
    release(file)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "removed"])
def test_a_holder_takes_back_though_its_entry_was_damaged(
    service: SmallService, drills: Path, damage: str
) -> None:
    file = armed(drills, hang(service), seconds=600)
    inject(file)
    processes, whole = everyone(file), file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(whole[:100] if damage == "truncated" else b"\0" * 100)
        with pytest.raises(EntryError):
            read_entry(file)
        (result,) = reap(drills, grace_seconds=0)
        assert result.outcome == "unreadable"
        assert "will take it back" in result.detail
    assert all(one.stopped for one in processes)
    entry = release(file, 30)  # finds the holder by what the kernel knows of it
    assert not any(one.stopped for one in processes)
    assert entry.state == "undone"
    assert "damaged" in (entry.problem or "")


def test_a_damaged_entry_without_a_holder_is_reported_each_time(service: SmallService, drills: Path) -> None:
    file = armed(drills, hang(service))
    inject(file)
    holder, whole = holder_of(file), file.read_bytes()
    holder.signal(signal.SIGKILL)
    file.write_bytes(whole[:-30])
    time.sleep(LIVE_SECONDS)
    for _ in range(2):
        (result,) = reap(drills, grace_seconds=0)
        assert (result.outcome, result.ok) == ("unreadable", False)
    with pytest.raises(EntryError, match="by hand"):
        release(file, 1)
    file.write_bytes(whole)  # by hand
    (result,) = reap(drills, grace_seconds=0)
    assert result.outcome == "taken_back"
    assert not is_hit(file)


def test_killed_at_any_moment_of_the_injection(service: SmallService, drills: Path) -> None:
    """The holder dies while it starts, while it writes, or while it hits; the reaper makes all good."""
    place = drills / "place"
    place.mkdir()
    names = [f"model-{number}" for number in range(20)]
    for name in names:
        (place / name).write_bytes(name.encode())
    dice = random.Random(7)
    states = set()
    for number in range(6):
        on_disk = FileFault(how="delete", place=str(place), path="", kept=str(drills / f"kept-{number}"))
        file = armed(drills, on_disk if number % 2 else hang(service), 0.2, f"f{number}")
        log, wait = file.with_suffix(".log"), dice.random() * 0.03
        thread = threading.Thread(target=_try, args=(file,))
        thread.start()
        while read_entry(file).state == "armed":
            time.sleep(0.001)
        time.sleep(wait)
        for holder in holders(file):
            holder.signal(signal.SIGKILL)
        thread.join()
        states.add(read_entry(file).state)
        time.sleep(0.2)
        results = reap(drills, grace_seconds=0)
        assert [result.outcome for result in results] in (["taken_back"], []), (results, log.read_text())
        assert read_entry(file).state == "undone"
        assert sorted(os.listdir(place)) == sorted(names)
        assert not (drills / f"kept-{number}").exists()
        assert not any(one.stopped for one in members(service.leaders["replica-1"]))
    print(f"\nkilled in the states {sorted(states)}")


def _try(file: Path) -> None:
    with contextlib.suppress(FaultError):
        inject(file, 5)


# -- the reaper as a process -------------------------------------------------------------------------------


def test_one_reaper_a_machine_and_what_it_says(service: SmallService, drills: Path, reaper: Reaper) -> None:
    assert subprocess.run(reaper.arguments, timeout=120).returncode == 4
    (drills / "faults" / "odd.json").write_text("garbage")
    metrics = reaper.metrics / "fastvlm_drill_faults.prom"
    deadline = time.monotonic() + FEW_SECONDS
    while not metrics.exists() or "entries_unreadable 1.0" not in metrics.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.5)
    said = [one for one in reaper.stop() if one["event"] == "unreadable"]
    assert [one["fault_id"] for one in said] == ["odd"]  # once a minute, not twice a second
    assert subprocess.run([*reaper.arguments, "once"], timeout=120).returncode == 1
    (drills / "faults" / "odd.json").unlink()
    assert subprocess.run([*reaper.arguments, "once"], timeout=120).returncode == 0
