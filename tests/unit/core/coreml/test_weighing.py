"""What the gate says of a problem."""

from __future__ import annotations

from typing import Any

import pytest

from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict
from fastvlm_ops.core.coreml.weighing import _problem, _problems

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
