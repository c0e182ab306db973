"""Which runs become a baseline without anybody being asked."""

from __future__ import annotations

from typing import Any

import pytest

from fastvlm_ops.core.coreml.devices.interface import Failure, FailureCode
from fastvlm_ops.core.coreml.promoting import standing_of, worst_of
from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict
from tests.coreml_made import run


def said(verdict: Verdict, metric: Metric = Metric.LATENCY_P50, **more: Any) -> Judgement:
    return Judgement("phone", "VisionEncoder", "ALL", metric, verdict=verdict, reason="new epoch", **more)


KNOWN, OTHER = {run().digest}, {"e" * 64}


@pytest.mark.parametrize(
    ("judged", "accepted", "green"),
    [
        ([said(Verdict.OK)], OTHER, True),
        ([said(Verdict.OK), said(Verdict.IMPROVEMENT)], OTHER, True),
        ([said(Verdict.OK), said(Verdict.REGRESSION, Metric.SIZE)], KNOWN, False),
        ([said(Verdict.UNSTABLE)], KNOWN, False),
        ([said(Verdict.FAILED, Metric.STATUS)], set(), False),
        ([said(Verdict.INSUFFICIENT)], set(), True),  # the very first
        ([said(Verdict.INSUFFICIENT)], KNOWN, True),  # the same package after an update of the system
        ([said(Verdict.INSUFFICIENT)], OTHER, False),  # a new package at the same time: it could hide behind
        ([said(Verdict.UNSTABLE, gate=False), said(Verdict.OK)], OTHER, True),
    ],
)
def test_green(judged: list[Judgement], accepted: set[str], green: bool) -> None:
    standing = standing_of(run(), judged, accepted)
    assert standing.green is green
    assert standing.reason


def test_what_was_not_measured_in_full_is_never_green() -> None:
    cut = run(failure=Failure(FailureCode.DEVICE_DISCONNECTED, "the cable"))
    assert not standing_of(cut, [said(Verdict.OK)], KNOWN).green
    assert not standing_of(run(sessions=()), [said(Verdict.OK)], KNOWN).green


def test_the_reason_names_what_is_red() -> None:
    judged = [said(Verdict.REGRESSION, Metric.SIZE), said(Verdict.UNSTABLE, Metric.LATENCY_P90)]
    assert standing_of(run(), judged, KNOWN).reason == "size REGRESSION, latency_p90 UNSTABLE"
    unknown = [said(Verdict.INSUFFICIENT), said(Verdict.INSUFFICIENT, Metric.LOAD_COLD)]
    assert "latency_p50: new epoch; load_cold: new epoch" in standing_of(run(), unknown, OTHER).reason


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([Verdict.OK, Verdict.REGRESSION, Verdict.UNSTABLE], Verdict.REGRESSION),
        ([Verdict.OK, Verdict.MISSING], Verdict.MISSING),
        ([Verdict.IMPROVEMENT, Verdict.OK], Verdict.IMPROVEMENT),
        ([Verdict.INSUFFICIENT, Verdict.UNSTABLE], Verdict.UNSTABLE),
    ],
)
def test_one_word_for_all(verdicts: list[Verdict], worst: Verdict) -> None:
    assert worst_of([said(verdict) for verdict in verdicts]) is worst


def test_what_only_informs_does_not_colour_the_whole() -> None:
    assert worst_of([said(Verdict.REGRESSION, gate=False), said(Verdict.OK)]) is Verdict.OK
