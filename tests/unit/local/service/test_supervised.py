"""One process that is kept running, with real processes that are killed, hang and do not start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.programs.proc import session_members
from fastvlm_ops.local.processes import Processes
from fastvlm_ops.local.service.supervised import Part, Supervised

SLEEPER = "import time; time.sleep(60)"
DELAY_SECONDS = 0.3


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.stop(patience_seconds=0)


def supervised(processes: Processes, code: str = SLEEPER) -> Supervised:
    part = Part("one", "other", None, [sys.executable, "-c", code], dict(os.environ))
    return Supervised(part, processes, processes.folder / "one.log", DELAY_SECONDS)


def watch(one: Supervised, processes: Processes, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        processes.reap()
        one.watch()
        time.sleep(0.02)


def wait_for_start(one: Supervised, processes: Processes) -> float:
    """Watch until it runs, and return how long that took."""
    began = time.monotonic()
    while one.identity is None:
        assert time.monotonic() < began + 30
        watch(one, processes, 0.02)
    return time.monotonic() - began


def test_what_was_killed_is_started_again_later(processes: Processes) -> None:
    one = supervised(processes)
    one.start()
    first = one.identity
    assert first is not None
    one.start()
    assert one.identity == first, "it runs already"
    first.signal(signal.SIGKILL)
    while first.alive:
        time.sleep(0.01)
    assert wait_for_start(one, processes) >= DELAY_SECONDS - 0.05
    assert one.identity not in {None, first}


def test_what_dies_at_once_is_started_less_and_less_often(processes: Processes) -> None:
    one = supervised(processes, "print('x', flush=True)")
    one.start()
    watch(one, processes, 4)
    starts = (processes.folder / "one.log").read_text().count("x")
    assert 1 < starts <= 5, "0.3, 0.6, 1.2 and 2.4 s lie between"


def test_what_was_stopped_stays_so(processes: Processes) -> None:
    one = supervised(processes)
    one.start()
    first = one.identity
    for _ in range(2):
        asyncio.run(one.stop())
    assert one.identity is None
    assert not first.alive  # type: ignore[union-attr]
    watch(one, processes, 3 * DELAY_SECONDS)
    assert one.identity is None
    one.start()
    assert one.identity is not None


@pytest.mark.parametrize("hangs", [True, False])
def test_what_hangs_and_what_it_leaves_behind_is_killed(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr("fastvlm_ops.local.service.supervised._PATIENCE_SECONDS", 60 if hangs else 0.5)
    code = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print('ready', flush=True); time.sleep(60)"
    )
    one = supervised(processes, code)
    one.start()
    while "ready" not in (processes.folder / "one.log").read_text():
        time.sleep(0.02)
    leader = one.identity
    assert leader is not None
    if hangs:
        leader.signal(signal.SIGSTOP)
        while not leader.stopped:
            time.sleep(0.01)
    members = list(session_members(leader))
    assert len(members) == 2
    asyncio.run(asyncio.wait_for(one.stop(), 30))
    assert processes.alive() == []
    assert not any(member.alive for member in members)


def test_another_supervisor_takes_over_what_runs(processes: Processes) -> None:
    before = supervised(processes)
    before.start()
    after = supervised(Processes(processes.folder))
    after.adopt(before.identity)
    after.start()
    assert after.identity == before.identity
    asyncio.run(after.stop())
    assert before.identity is None
    nothing = supervised(processes)
    nothing.adopt(None)
    assert nothing.identity is None
