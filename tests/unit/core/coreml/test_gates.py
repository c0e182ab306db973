"""Gates without statistics: what moved, grew, drifted or lost its compression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.devices.interface import Placement
from fastvlm_ops.core.coreml.gates import (
    find_moves,
    judge_compression,
    judge_flops,
    judge_parity,
    judge_placement,
    judge_size,
)
from fastvlm_ops.core.coreml.verdicts import Verdict
from tests.unit.core.coreml.made_runs import INSPECTION, PARITY

RULES = CompareRules()
BEFORE = (
    Placement("stem", "ios17.conv", "ane", 0.30),
    Placement("mixer", "ios17.conv", "ane", 0.40),
    Placement("norm", "ios17.layer_norm", "ane", 0.25),
    Placement("cast", "ios17.cast", "cpu", 0.05),
)


def moved(operation: str, unit: str | None, **changes: Any) -> tuple[Placement, ...]:
    return tuple(replace(one, unit=unit, **changes) if one.operation == operation else one for one in BEFORE)


def test_an_operation_that_left_the_neural_engine_is_named_with_its_cost_share() -> None:
    found = judge_placement(BEFORE, moved("norm", "cpu"), RULES)
    assert found.verdict is Verdict.REGRESSION
    assert found.reason == "moved: norm (ios17.layer_norm, 25.0% of the cost) from Neural Engine to CPU"
    assert found.baseline_value == pytest.approx(0.05)
    assert found.value == pytest.approx(0.30)
    assert found.details["moved"][0]["operation"] == "norm"


def test_the_same_plan_is_ok() -> None:
    found = judge_placement(BEFORE, BEFORE, RULES)
    assert found.verdict is Verdict.OK
    assert found.details == {"moved": [], "counts": {"ane": 3, "cpu": 1}}


def test_a_move_to_the_neural_engine_is_an_improvement() -> None:
    assert judge_placement(BEFORE, moved("cast", "ane"), RULES).verdict is Verdict.IMPROVEMENT


def test_a_move_from_the_gpu_to_the_cpu_is_worse_too() -> None:
    before, after = moved("mixer", "gpu"), moved("mixer", "cpu")
    assert judge_placement(before, after, RULES).verdict is Verdict.REGRESSION


def test_a_move_that_costs_next_to_nothing_is_told_but_ok() -> None:
    found = judge_placement(BEFORE, moved("norm", "cpu", cost_share=0.002), RULES)
    assert found.verdict is Verdict.OK
    assert "norm" in found.reason


def test_a_move_of_unknown_cost_counts() -> None:
    found = judge_placement(BEFORE, moved("norm", "cpu", cost_share=None), RULES)
    assert found.verdict is Verdict.REGRESSION
    assert "unknown share" in found.reason


def test_renamed_operations_are_matched_by_kind_and_order() -> None:
    after = tuple(replace(one, operation=f"{one.operation}_v2") for one in moved("mixer", "gpu"))
    moves = find_moves(BEFORE, after)
    assert [(one.operation, one.before, one.after, one.is_new) for one in moves] == [
        ("mixer_v2", "ane", "gpu", False)
    ]


def test_an_operation_that_takes_anothers_place_on_the_cpu_is_new_and_worse() -> None:
    after = (*BEFORE[:2], Placement("topk_0", "ios17.topk", "cpu", 0.2), BEFORE[3])
    found = judge_placement(BEFORE, after, RULES)
    assert found.verdict is Verdict.REGRESSION
    assert "topk_0 (new, ios17.topk, 20.0% of the cost)" in found.reason


def test_an_operation_without_a_planned_unit_has_not_moved() -> None:
    assert find_moves(BEFORE, moved("norm", None)) == []
    assert find_moves(moved("norm", None), BEFORE) == []


def test_many_moves_are_counted_and_the_dearest_are_named() -> None:
    before = tuple(Placement(f"op{n}", "ios17.conv", "ane", 0.01 * n) for n in range(1, 10))
    found = judge_placement(before, tuple(replace(one, unit="cpu") for one in before), RULES)
    assert found.reason.startswith("moved: op9 (")
    assert found.reason.endswith("and 4 more")
    assert len(found.details["moved"]) == 9


@pytest.mark.parametrize("before", [None, ()])
def test_without_an_accepted_plan_nothing_is_concluded(before: Any) -> None:
    assert judge_placement(before, BEFORE, RULES).verdict is Verdict.INSUFFICIENT


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (4_480_000, Verdict.REGRESSION),
        (4_400_000, Verdict.OK),
        (3_700_000, Verdict.OK),
        (2_000_000, Verdict.IMPROVEMENT),
    ],
)
def test_a_package_that_grew_by_more_than_a_tenth_is_worse(after: int, verdict: Verdict) -> None:
    found = judge_size(4_000_000, after, RULES)
    assert found.verdict is verdict
    assert found.change == pytest.approx(after / 4_000_000 - 1)


def test_a_size_without_an_accepted_one_is_insufficient() -> None:
    assert judge_size(None, 4_000_000, RULES).verdict is Verdict.INSUFFICIENT


def test_operations_only_inform() -> None:
    found = judge_flops(1e9, 2e9)
    assert (found.verdict, found.gate, found.change) == (Verdict.OK, False, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "said"),
    [
        ({"psnr_db": 55.0}, {"psnr_db": 30.0}, Verdict.REGRESSION, "drifted: 55.0 dB before, 30.0 dB now"),
        ({"psnr_db": 80.0}, {"psnr_db": 60.0}, Verdict.REGRESSION, "drifted"),
        ({"psnr_db": 55.0}, {"psnr_db": 54.0}, Verdict.OK, "54.0 dB"),
        ({"psnr_db": 200.0}, {"psnr_db": 145.0}, Verdict.OK, "145.0 dB"),
        ({"psnr_db": 36.0}, {"psnr_db": 34.0}, Verdict.REGRESSION, "at least 35"),
        (None, {"psnr_db": 30.0}, Verdict.REGRESSION, "at least 35"),
        (None, {"psnr_db": 60.0}, Verdict.OK, "60.0 dB"),
        ({"psnr_db": 40.0}, {"psnr_db": 60.0}, Verdict.IMPROVEMENT, "closer"),
        ({"psnr_db": 55.0}, {"psnr_db": 55.0, "nan": 3}, Verdict.REGRESSION, "3 NaN"),
        ({"psnr_db": 55.0}, {"psnr_db": 55.0, "inf": 2}, Verdict.REGRESSION, "2 infinite"),
        ({"psnr_db": 55.0}, {"psnr_db": 0.0, "missing": ["logits"]}, Verdict.REGRESSION, "logits"),
    ],
)
def test_outputs_that_drift_overflow_or_are_missing(
    before: dict[str, Any] | None, after: dict[str, Any], verdict: Verdict, said: str
) -> None:
    found = judge_parity(None if before is None else {**PARITY, **before}, {**PARITY, **after}, RULES)
    assert found.verdict is verdict
    assert said in found.reason


def test_lost_compression_names_what_is_gone() -> None:
    found = judge_compression(INSPECTION, {**INSPECTION, "compression": {}, "compressed_share": 0.0})
    assert found.verdict is Verdict.REGRESSION
    assert "gone: constexpr_affine_dequantize" in found.reason
    assert (found.baseline_value, found.value) == (0.98, 0.0)


@pytest.mark.parametrize(
    ("before", "share", "verdict"),
    [
        (INSPECTION, 0.97, Verdict.OK),
        ({**INSPECTION, "compressed_share": 0.5}, 0.98, Verdict.IMPROVEMENT),
        (None, 0.98, Verdict.INSUFFICIENT),
    ],
)
def test_other_compression(before: dict[str, Any] | None, share: float, verdict: Verdict) -> None:
    assert judge_compression(before, {**INSPECTION, "compressed_share": share}).verdict is verdict
