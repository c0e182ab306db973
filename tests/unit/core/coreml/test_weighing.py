"""What the gate says of a problem."""

from __future__ import annotations

from typing import Any

import pytest

from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict
from fastvlm_ops.core.coreml.weighing import _hold_back, _problem, _problems

RUN = {"device": "phone", "model": "Encoder", "version": "2", "compute_unit": "ALL"}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            {"change": 0.0512, "p_value": 0.004, "confidence": 0.996},
            "latency_p50 +5.1%, confidence 99.6%: slower",
        ),
        (
            {"change": 0.4, "p_value": 1e-9, "confidence": 1 - 1e-9},
            "latency_p50 +40.0%, confidence above 99.9%: slower",
        ),
        ({"change": 0.12, "confidence": 1.0}, "latency_p50 +12.0%, exact: slower"),
        ({}, "latency_p50: slower"),
    ],
)
def test_it_names_all_that_is_known(known: dict[str, Any], said: str) -> None:
    judgement = Judgement(
        "phone",
        "Encoder",
        "ALL",
        Metric.LATENCY_P50,
        verdict=Verdict.REGRESSION,
        reason="slower",
        **known,
    )
    problem = _problem(judgement, [{**RUN, "device": "pad"}, RUN])
    assert problem == {
        "verdict": "REGRESSION",
        "run": "Encoder 2 on phone (ALL)",
        "text": f"REGRESSION: Encoder on phone (ALL): {said}",
    }


def test_what_a_policy_lets_pass_pushes_nothing_off_the_list() -> None:
    def judged(verdict: Verdict, device: str, *, gate: bool = True) -> Judgement:
        return Judgement(device, "Encoder", "ALL", Metric.STATUS, verdict=verdict, gate=gate)

    found = [judged(Verdict.MISSING, f"pad-{number}") for number in range(60)]
    found += [judged(Verdict.OK, "phone"), judged(Verdict.REGRESSION, "linux", gate=False)]
    found += [judged(Verdict.REGRESSION, "phone"), judged(Verdict.FAILED, "mac")]
    problems = _problems(found)
    assert [one.device for one in problems[:3]] == ["mac", "phone", "pad-0"]
    assert len(problems) == 62


@pytest.mark.parametrize(
    ("elsewhere", "green"), [("REGRESSION", False), ("FAILED", False), ("MISSING", True), ("UNSTABLE", True)]
)
def test_what_is_worse_on_one_device_is_a_baseline_on_none(elsewhere: str, green: bool) -> None:
    phone = {**RUN, "digest": "d", "verdict": elsewhere, "green": False, "reason": "slower"}
    linux = {**RUN, "device": "linux", "digest": "d", "verdict": "OK", "green": True, "reason": "fine"}
    other = {**linux, "model": "Decoder", "digest": "e"}
    held = _hold_back([phone, linux, other])
    assert [run["green"] for run in held] == [False, green, True]
    assert (held[1]["reason"] == "fine") is green
    assert held[0] == phone
