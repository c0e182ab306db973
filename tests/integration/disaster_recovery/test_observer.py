"""The observer against a service that keeps a ledger of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.ledger import read_probes, read_writes
from fastvlm_ops.core.disaster_recovery.observation import (
    OBSERVER_LOG,
    ObserverConfig,
    read_observation,
    recorded_rows,
)
from fastvlm_ops.core.disaster_recovery.observing import (
    is_alive,
    look_at_rows,
    measure_drill,
    observed_to_the_end,
    start_observer,
    stop_observer,
    wait_for_steady_state,
)
from fastvlm_ops.core.programs.proc import ProcessId
from tests.drilled_service import DrilledService, Mode

pytestmark = pytest.mark.integration
TIMEOUT_SECONDS = 2.0  # on a busy machine, a right answer may take more than the usual second


@pytest.fixture
def service() -> Iterator[DrilledService]:
    found = DrilledService()
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "drill"
    stop_observer(tmp_path / "drill")


def config(service: DrilledService, seconds: float = 120) -> ObserverConfig:
    return ObserverConfig(
        url=service.url, prefix="drill-1", time_to_live_seconds=seconds, timeout_seconds=TIMEOUT_SECONDS
    )


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_outage_is_measured_as_the_service_itself_saw_it(service: DrilledService, folder: Path) -> None:
    start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    fault_ns, service.mode = time.monotonic_ns(), "failing"
    time.sleep(0.5)
    recovered_ns, service.mode = time.monotonic_ns(), "well"
    wait_for_steady_state(folder, 90)
    stop_observer(folder)
    look_at_rows(folder, service.url, "drill-1")
    found = measure_drill(folder, fault_ns)
    truth = next(when for when in service.served if when >= recovered_ns)
    assert found.rto_seconds == pytest.approx((truth - fault_ns) / 1e9, abs=0.2)
    failures = [one.answered_ns for one in read_probes(folder) if not one.ok]
    failures += [one.answered_ns for one in read_writes(folder)
                 if one.answered_ns is not None and one.outcome != "acknowledged"]  # fmt: skip
    first_ns = min(when for when in failures if when >= fault_ns)  # of requests and writes alike
    assert found.detection_seconds == (first_ns - fault_ns) / 1e9
    assert found.rpo_seconds == 0
    assert (found.problems, found.unknowns) == ((), ())
    assert observed_to_the_end(folder)
    acknowledged = {one.id for one in read_writes(folder) if one.outcome == "acknowledged"}
    assert acknowledged == {row for row, _ in service.committed}
    assert found.acknowledged + found.acknowledged_later == len(acknowledged)


def test_rows_that_the_service_loses_are_named_to_the_row(service: DrilledService, folder: Path) -> None:
    start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    fault_ns = time.monotonic_ns()
    before = [row for row, when in service.committed if when < fault_ns]
    time.sleep(0.5)
    stop_observer(folder)
    lost = before[-20::2]
    for row in lost:
        del service.rows[row]
    look_at_rows(folder, service.url, "drill-1")
    found = measure_drill(folder, fault_ns)
    # What was committed before the fault may have been acknowledged after it.
    assert {one.id for one in (*found.lost, *found.lost_later)} == set(lost)
    known = [one for one in read_writes(folder) if one.id in lost and (one.answered_ns or 0) <= fault_ns]
    assert [one.id for one in found.lost] == [one.id for one in known]
    oldest = max((fault_ns - one.sent_ns for one in known), default=0)
    assert found.rpo_seconds == pytest.approx(oldest / 1e9)


def test_what_is_wrong_with_an_answer_is_written_down(service: DrilledService, folder: Path) -> None:
    start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    modes: dict[Mode, str] = {
        "failing": "answered 500: ",
        "wrong": "answered otherwise: ",
        "hanging": "no answer in 2 s",
    }
    for mode, detail in modes.items():
        service.mode = mode
        wait_until(lambda: any(detail in one.detail and not one.ok for one in read_probes(folder)))  # noqa: B023
        with pytest.raises(InconclusiveError, match=r"no steady state within 0 s: (a|no) request"):
            wait_for_steady_state(folder, 0)


def test_requests_that_hang_hold_up_none_behind_them(service: DrilledService, folder: Path) -> None:
    start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    begun_ns, service.mode = time.monotonic_ns(), "hanging"
    time.sleep(2 * TIMEOUT_SECONDS)
    stop_observer(folder)
    hung = [one for one in read_probes(folder) if not one.ok and one.sent_ns > begun_ns]
    gaps = sorted(later.sent_ns - sooner.sent_ns for sooner, later in pairwise(hung))
    assert len(hung) > 10
    assert gaps[len(gaps) // 2] < 0.5e9  # each waits for two seconds


def test_a_write_of_which_nobody_said_whether_it_is_stored_is_in_flight(
    service: DrilledService, folder: Path
) -> None:
    start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    fault_ns, service.mode = time.monotonic_ns(), "cutting"
    wait_until(lambda: sum(one.answered_ns is not None and one.outcome == "in_flight"
                           for one in read_writes(folder)) > 3)  # fmt: skip
    service.close()  # and now nobody is reached any more
    wait_until(lambda: sum(one.outcome == "failed" for one in read_writes(folder)) > 3)
    stop_observer(folder)
    by_outcome = {one.id: one.outcome for one in read_writes(folder)}
    assert {row for row, outcome in by_outcome.items() if outcome == "failed"}.isdisjoint(service.rows)
    assert {row for row, outcome in by_outcome.items() if outcome == "acknowledged"} <= set(service.rows)
    found = measure_drill(folder, fault_ns)
    assert len(found.in_flight) > 3
    assert found.rpo_seconds is None  # nobody read the rows
    assert found.rto_seconds is None


def test_an_observer_that_was_killed_leaves_its_ledger_and_no_id_is_used_again(
    service: DrilledService, folder: Path
) -> None:
    first = start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    assert start_observer(folder, config(service)) == first  # as a retried task does
    first.process.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(folder))
    fault_ns = time.monotonic_ns()
    look_at_rows(folder, service.url, "drill-1")
    assert not observed_to_the_end(folder)
    assert measure_drill(folder, fault_ns).unknowns[-1].startswith("the observer did not run to the end")
    with (folder / "writes.csv").open("a") as file:
        file.write("99,cut short")
    time.sleep(2.1)  # until what it wrote is too old to tell of a steady state
    with pytest.raises(InconclusiveError, match="the observer of the drill does not run"):
        wait_for_steady_state(folder, 5)
    second = start_observer(folder, config(service))
    assert second != first
    wait_for_steady_state(folder, 90)
    stop_observer(folder)
    ids = [one.id for one in read_writes(folder)]
    assert len(ids) == len(set(ids))
    assert [row for row, _ in service.committed] == list(dict.fromkeys(row for row, _ in service.committed))
    assert [one.number for one in read_probes(folder)] == sorted({one.number for one in read_probes(folder)})


def test_it_ends_by_itself_and_says_so(service: DrilledService, folder: Path) -> None:
    start_observer(folder, config(service, seconds=1.0))
    wait_until(lambda: not is_alive(folder))
    found = read_observation(folder)
    assert found is not None
    assert found.ended_by == "time_to_live"
    assert found.ended_ns is not None
    assert not observed_to_the_end(folder)


def test_it_outlives_the_task_that_started_it(service: DrilledService, folder: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path;"
        "from fastvlm_ops.core.disaster_recovery.observation import ObserverConfig;"
        "from fastvlm_ops.core.disaster_recovery.observing import start_observer;"
        "start_observer(Path(sys.argv[1]), ObserverConfig.model_validate_json(sys.argv[2]));"
        "os.killpg(0, 9)"
    )
    task = subprocess.run(
        [sys.executable, "-c", code, folder, config(service).model_dump_json()],
        start_new_session=True,
        timeout=60,
    )
    assert task.returncode == -signal.SIGKILL
    wait_for_steady_state(folder, 90)
    found = read_observation(folder)
    assert found is not None
    process: ProcessId = found.process.process
    assert os.getsid(process.pid) == process.pid
    assert stop_observer(folder) is not None
    assert not process.alive


def test_nothing_is_left_running_and_nothing_was_complained_about(
    service: DrilledService, folder: Path
) -> None:
    assert stop_observer(folder) is None
    found = start_observer(folder, config(service))
    wait_for_steady_state(folder, 90)
    stop_observer(folder)
    assert not found.process.alive
    assert (folder / OBSERVER_LOG).read_text() == ""
    rows = recorded_rows(folder)  # once more, when the canary had ended
    assert rows is not None
    assert set(rows.rows) == set(service.rows)
