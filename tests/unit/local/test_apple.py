"""The stand-in for Apple's toolchain by itself: scripts, faults, time, placement."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.apple import AppleScript, AppleToolchain, Fault, FaultKind, ScriptedDevice, Timing
from fastvlm_ops.local.apple.predicting import Clock, plan, preferred_unit

DESCRIPTION: dict[str, Any] = {
    "name": "Model-v1",
    "operations": [
        {"outputs": ["a"], "kind": "conv", "set": "ios17", "work": 6.4e6, "elements": 100_000},
        {"outputs": ["b", "c"], "kind": "split", "set": "ios17", "work": 1e5, "elements": 100_000},
        {"outputs": ["d"], "kind": "topk", "set": "ios17", "work": 1e3, "elements": 1000},
    ],
}


def test_a_script_comes_back_from_json() -> None:
    script = AppleScript(
        devices=(ScriptedDevice(), ScriptedDevice(name="other", developer_mode=False, simulated=True)),
        timings=(Timing(model="M", samples_ms=(1.0, 2.0)), Timing(median_ms=3.0, noise=0.1)),
        cpu_operations=("x",),
        faults=(Fault(FaultKind.SLOW_ANSWER, device="other", model="M", after=2, times=1, seconds=3.5),),
        macos=("14.5", "23F79"),
        battery=50,
    )
    assert AppleScript.from_dict(json.loads(json.dumps(script.as_dict()))) == script


def test_a_fault_comes_up_when_and_where_it_should(tmp_path: Path) -> None:
    toolchain = AppleToolchain(tmp_path)
    fault = Fault(FaultKind.LOAD, device="phone", model="Model", after=1, times=2)
    toolchain.install(AppleScript(faults=(fault,)))
    state = toolchain.state
    assert state.fault(FaultKind.LOAD, "other", "Model-v1") is None
    assert state.fault(FaultKind.LOAD, "phone", "Else-v1") is None
    assert state.fault(FaultKind.PREDICT, "phone", "Model-v1") is None
    found = [state.fault(FaultKind.LOAD, "phone", "Model-v1") for _ in range(5)]
    assert found == [None, fault, fault, None, None]


def times(script: AppleScript, session: int, count: int = 50) -> list[int]:
    clock = Clock(DESCRIPTION, "ALL", script, "phone", session)
    return [clock.predict_ns() for _ in range(count)]


def test_times_are_those_of_the_script() -> None:
    assert times(AppleScript(timings=(Timing(samples_ms=(1.0, 2.5)),)), 0, 3) == [
        1_000_000,
        2_500_000,
        1_000_000,
    ]
    steady = AppleScript(timings=(Timing(model="Model", median_ms=4.0), Timing(median_ms=9.0)))
    assert set(times(steady, 0)) == {4_000_000}
    noisy = AppleScript(timings=(Timing(median_ms=4.0, session_noise=0.05, noise=0.02),))
    assert times(noisy, 1) == times(noisy, 1)
    sessions = [statistics.median(times(noisy, session)) for session in range(200)]
    assert statistics.median(sessions) == pytest.approx(4e6, rel=0.02)
    assert statistics.stdev(sessions) / 4e6 == pytest.approx(0.05, rel=0.25)


def test_work_on_the_cpu_takes_longer() -> None:
    fast = Clock(DESCRIPTION, "CPU_AND_NE", AppleScript(), "phone", 0).predict_ns()
    slow = Clock(DESCRIPTION, "CPU_ONLY", AppleScript(), "phone", 0).predict_ns()
    assert slow > 3 * fast


def test_what_cannot_run_on_the_neural_engine_costs_its_way_to_the_cpu() -> None:
    script = AppleScript(cpu_operations=("c",))
    planned = {one["outputs"][0]: (place, cost) for one, place, cost in plan(DESCRIPTION, "ALL", script)}
    assert {name: place for name, (place, _) in planned.items()} == {"a": "ane", "b": "cpu", "d": "cpu"}
    assert sum(cost for _, cost in planned.values()) == pytest.approx(1)
    before = {one["outputs"][0]: cost for one, _, cost in plan(DESCRIPTION, "ALL", AppleScript(cpu_kinds=()))}
    assert planned["b"][1] > 10 * before["b"]


@pytest.mark.parametrize(
    ("unit", "place"), [("ALL", "ane"), ("CPU_AND_NE", "ane"), ("CPU_AND_GPU", "gpu"), ("CPU_ONLY", "cpu")]
)
def test_operations_run_where_they_may(unit: str, place: str) -> None:
    assert preferred_unit(DESCRIPTION["operations"][0], unit, AppleScript()) == place


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sw_vers", "-productVersion"], "15.1"),
        (["xcodebuild", "-version"], "Xcode 16.1\nBuild version 16B40"),
        (["sysctl", "-n", "hw.model"], "Mac14,2"),
    ],
)
def test_programs_are_found_first(tmp_path: Path, arguments: list[str], said: str) -> None:
    toolchain = AppleToolchain(tmp_path)
    environment = {**os.environ, **toolchain.install()}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
    assert toolchain.calls() == [arguments]


def test_what_xcrun_does_not_have_is_an_error(tmp_path: Path) -> None:
    environment = {**os.environ, **AppleToolchain(tmp_path).install()}
    done = subprocess.run(["xcrun", "metal"], env=environment, capture_output=True, text=True)
    assert done.returncode == 72
    assert 'unable to find utility "metal"' in done.stderr
