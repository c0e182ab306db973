"""The benchmark of regression verdicts: its sessions, and the rules that stand beside ours."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coreml import in_order, resampled
from benchmarks.coreml_simulation import (
    alarms_percentage,
    alarms_perfherder,
    draw_history,
    draw_trial,
    judge_percentage,
    judge_perfherder,
    shares,
)
from fastvlm_ops.core.coreml.verdicts import Verdict

SIZES = (40, 12)


def test_a_step_is_put_onto_both_looks_and_onto_nothing_else() -> None:
    still, stepped = (draw_trial(np.random.default_rng(3), SIZES, 0.03, step=step) for step in (0.0, 0.05))
    np.testing.assert_array_equal(stepped.baseline, still.baseline)
    np.testing.assert_allclose(stepped.candidate / still.candidate, 1.05)
    np.testing.assert_allclose(stepped.spare / still.spare, 1.05)
    assert (len(still.baseline), len(still.candidate), len(still.spare)) == (40, 12, 12)


def test_so_many_sessions_are_throttled_as_asked() -> None:
    values = draw_trial(np.random.default_rng(3), (4000, 12), 0.01, throttled=0.4).baseline
    assert (values > 11.5).mean() == pytest.approx(0.4, abs=0.03)


def test_nights_that_differ_are_the_baseline() -> None:
    trial = draw_trial(np.random.default_rng(3), SIZES, 0.001, nights_differ=0.05)
    assert len(trial.nights) == 12
    np.testing.assert_array_equal(np.concatenate(trial.nights)[-40:], trial.baseline)
    assert np.std([np.log(np.median(night)) for night in trial.nights]) == pytest.approx(0.05, rel=0.5)


def test_the_other_rules_see_what_is_plain() -> None:
    plain = draw_trial(np.random.default_rng(3), SIZES, 0.005, step=0.2)
    same = draw_trial(np.random.default_rng(4), SIZES, 0.005)
    for judge in (judge_percentage, judge_perfherder):
        assert judge(plain) is Verdict.REGRESSION
        assert judge(same) is Verdict.OK


def test_the_percentage_calls_the_night_and_perfherder_the_twelfth_after_it() -> None:
    history = draw_history(np.random.default_rng(3), 60, 12, noise=0.005, step=0.2, at=30)
    assert alarms_percentage(history) == [30]
    assert alarms_perfherder(history) == [41]


def test_sessions_as_they_came_are_read_once_in_order_and_never_ahead() -> None:
    medians = np.arange(1.0, 200.0)
    trials = list(in_order(medians))
    for trial in trials:
        seen = np.concatenate([*trial.nights, trial.candidate, trial.spare])
        np.testing.assert_array_equal(np.diff(seen), 1)
        np.testing.assert_array_equal(trial.baseline, np.concatenate(trial.nights)[-40:])
    assert trials[-1].spare[-1] >= len(medians) - 2


def test_sessions_in_random_order_are_the_same_sessions() -> None:
    medians = np.arange(1.0, 200.0)
    for trial in resampled(medians, 3):
        seen = np.concatenate([*trial.nights, trial.candidate, trial.spare])
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(medians)
        assert not np.all(np.diff(seen) == 1)


def test_shares_are_per_cent() -> None:
    assert shares([Verdict.OK, Verdict.OK, Verdict.OK, Verdict.UNSTABLE]) == {"OK": 75.0, "UNSTABLE": 25.0}
