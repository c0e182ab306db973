"""A new version beside the accepted one, in turns."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.judging import judge_run
from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.turns import BLOCKS, Turns, iterations_for, judge_turns
from fastvlm_ops.core.coreml.verdicts import Metric, Verdict
from tests.coreml_made import run

RULES = CompareRules()


def turns(ratio: float, *, blocks: int = BLOCKS, noise: float = 0.012, seed: int = 1) -> Turns:
    """The machine's own ups and downs, of a quarter, fall on both; a block's own noise does not."""
    chance = np.random.default_rng(seed)
    machine = 10 * np.exp(chance.normal(0, 0.25, blocks))
    pairs = np.stack([machine, machine * ratio], axis=1) * np.exp(chance.normal(0, noise, (blocks, 2)))
    return Turns("1", "a" * 64, tuple(map(tuple, pairs.tolist())))


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.0, Verdict.OK),
        (1.03, Verdict.OK),  # such a difference equal models can have
        (1.08, Verdict.REGRESSION),
        (0.9, Verdict.IMPROVEMENT),
    ],
)
def test_what_the_machine_does_falls_on_both(ratio: float, verdict: Verdict) -> None:
    found = judge_turns(turns(ratio), RULES)
    assert found.verdict is verdict
    assert found.change == pytest.approx(ratio - 1, abs=0.02)
    assert not found.gate, "it is no Apple hardware"
    assert "in 20 blocks in turns with the accepted version 1" in found.reason


def test_of_equal_models_hardly_any_is_called_worse() -> None:
    said = [judge_turns(turns(1.0, noise=0.03, seed=seed), RULES).verdict for seed in range(200)]
    assert set(said) == {Verdict.OK}


@pytest.mark.parametrize("pairs", [(), ((1.0, 1.0),) * 7, ((1.0, float("nan")),) * 20, ((0.0, 1.0),) * 20])
def test_too_little_is_no_verdict(pairs: tuple[tuple[float, float], ...]) -> None:
    assert judge_turns(Turns("1", "a", pairs), RULES).verdict is Verdict.INSUFFICIENT


def test_blocks_that_are_all_equal_are_no_change() -> None:
    assert judge_turns(Turns("1", "a", ((2.0, 2.0),) * 20), RULES).verdict is Verdict.OK


@pytest.mark.parametrize(("milliseconds", "iterations"), [(0.0, 15), (10, 15), (500, 3), (4700, 1)])
def test_turns_take_about_a_minute(milliseconds: float, iterations: int) -> None:
    assert iterations_for(milliseconds) == iterations


def test_they_are_kept_with_the_run_and_judged_with_it() -> None:
    record = replace(run(), turns=turns(1.2))
    assert RunRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    (found,) = (one for one in judge_run(record, None, RULES) if one.metric is Metric.LATENCY_TURNS)
    assert (found.verdict, found.stops_release) == (Verdict.REGRESSION, False)
    assert not any(one.metric is Metric.LATENCY_TURNS for one in judge_run(run(), None, RULES))


def test_runs_of_before_there_were_turns_are_read() -> None:
    values = run().as_dict()
    del values["turns"]
    assert RunRecord.from_dict(values) == run()
