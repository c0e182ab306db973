"""Sessions compared with the accepted ones: what is called worse, what is not, and when nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.comparing import FEWEST_SESSIONS, compare_metric, sessions_to_add
from fastvlm_ops.core.coreml.ranks import shift
from fastvlm_ops.core.coreml.spread import find_near, variation_of_nights
from fastvlm_ops.core.coreml.verdicts import Verdict
from tests.unit.core.coreml.made_runs import noisy

RULES = CompareRules()
SEEDS = range(40)


def looked_twice(seed: int, step: float, **options: float) -> Verdict:
    """As a run does it: sessions are added where the first look asks for them."""
    baseline = noisy(3 * seed, 40, **options)
    first, spare = ([value * (1 + step) for value in noisy(3 * seed + n, 12, **options)] for n in (1, 2))
    more = spare[: sessions_to_add(baseline, first, RULES)]
    return compare_metric(baseline, first, RULES, confirming=more).verdict


def share(verdict: Verdict, step: float, **options: float) -> float:
    return sum(looked_twice(seed, step, **options) is verdict for seed in SEEDS) / len(SEEDS)


def test_an_unchanged_model_raises_no_alarm() -> None:
    assert share(Verdict.OK, 0.0) == 1.0


def test_five_per_cent_more_is_found_at_three_per_cent_noise() -> None:
    assert share(Verdict.REGRESSION, 0.05) >= 0.9


def test_five_per_cent_less_is_an_improvement() -> None:
    assert share(Verdict.IMPROVEMENT, -0.05) >= 0.9


def test_twenty_per_cent_throttled_sessions_hide_nothing_and_feign_nothing() -> None:
    assert share(Verdict.OK, 0.0, slow=0.2) >= 0.95
    assert share(Verdict.REGRESSION, 0.0, slow=0.2) == 0.0
    assert share(Verdict.REGRESSION, 0.05, slow=0.2) >= 0.9


def test_forty_per_cent_throttled_sessions_are_unstable() -> None:
    assert share(Verdict.UNSTABLE, 0.0, slow=0.4) >= 0.95
    assert share(Verdict.REGRESSION, 0.0, slow=0.4) == 0.0


def test_a_change_below_the_smallest_effect_is_none_however_certain() -> None:
    found = compare_metric(noisy(1, 40, 0.001), noisy(2, 12, 0.001, around=10.2), RULES)
    assert found.verdict is Verdict.OK
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.change == pytest.approx(0.02, abs=0.001)


def test_the_same_change_counts_where_the_effect_that_is_asked_for_is_smaller() -> None:
    found = compare_metric(noisy(1, 40, 0.001), noisy(2, 12, 0.001, around=10.2), RULES, effect=0.015)
    assert found.verdict is Verdict.REGRESSION


def test_a_large_but_uncertain_change_is_none() -> None:
    found = compare_metric(noisy(1, 40, 0.06), [10.9, 9.6, 11.4, 10.1, 10.2], RULES)
    assert found.change is not None
    assert found.change > RULES.minimum_effect
    assert found.verdict is Verdict.OK


def test_sessions_that_are_all_slower_are_worse_not_throttled() -> None:
    found = compare_metric(noisy(1, 40), noisy(2, 12, around=12.5), RULES)
    assert found.verdict is Verdict.REGRESSION
    assert found.left_out == (0, 0)


def test_a_candidate_of_mostly_throttled_sessions_is_unstable_not_worse() -> None:
    candidate = [*noisy(2, 9, around=12.5), *noisy(3, 3)]
    assert compare_metric(noisy(1, 40), candidate, RULES).verdict is Verdict.UNSTABLE


def test_a_candidate_that_alone_is_throttled_is_unstable() -> None:
    found = compare_metric(noisy(1, 100), noisy(2, 60, slow=0.45), RULES)
    assert found.left_out == (0, 27)
    assert found.verdict is Verdict.UNSTABLE


def test_values_too_scattered_to_tell_are_unstable_not_ok() -> None:
    found = compare_metric(noisy(1, 20, 0.4), noisy(2, 5, 0.4), RULES)
    assert found.verdict is Verdict.UNSTABLE
    assert "scattered" in found.reason


@pytest.mark.parametrize(("before", "after"), [(0, 12), (FEWEST_SESSIONS - 1, 12), (40, 0), (40, 4)])
def test_too_few_sessions_are_insufficient(before: int, after: int) -> None:
    found = compare_metric(noisy(1, before), noisy(2, after, around=20), RULES)
    assert found.verdict is Verdict.INSUFFICIENT
    assert str(min(before, after)) in found.reason
    assert found.p_value is None


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_value_that_is_no_time_is_not_compared(wrong: float) -> None:
    found = compare_metric(noisy(1, 40), [*noisy(2, 11), wrong], RULES)
    assert found.verdict is Verdict.INSUFFICIENT
    assert "above 0" in found.reason


def test_the_added_sessions_can_take_an_alarm_back() -> None:
    baseline, first = noisy(1, 40), noisy(2, 12, around=10.6)
    assert compare_metric(baseline, first, RULES).verdict is Verdict.REGRESSION
    found = compare_metric(baseline, first, RULES, confirming=noisy(3, 12, around=10))
    assert found.verdict is Verdict.OK
    again = compare_metric(baseline, first, RULES, confirming=noisy(4, 12, around=10.6))
    assert again.verdict is Verdict.REGRESSION
    assert again.n_candidate == 24


def test_what_all_sessions_say_together_is_no_alarm_where_the_added_ones_deny_it() -> None:
    found = compare_metric(noisy(1, 40), noisy(2, 12, around=10.7), RULES, confirming=noisy(3, 6, around=10))
    assert found.change is not None
    assert found.change > RULES.minimum_effect
    assert found.p_value is not None
    assert found.p_value < RULES.p_value
    assert found.verdict is Verdict.OK
    assert "did not confirm" in found.reason


def test_two_looks_that_contradict_each_other_are_unstable() -> None:
    found = compare_metric(noisy(1, 40), noisy(2, 12, around=11.5), RULES, confirming=noisy(3, 12, around=10))
    assert found.verdict is Verdict.UNSTABLE


def test_sessions_are_asked_for_only_where_something_is_suspected() -> None:
    assert sessions_to_add(noisy(1, 40), noisy(2, 12, around=10.0), RULES) == 0
    assert sessions_to_add(noisy(1, 40), noisy(2, 12, around=10.6), RULES) == 12
    assert sessions_to_add(noisy(1, 40), noisy(2, 12, around=9.4), RULES) == 12


def test_sessions_are_asked_for_where_throttled_ones_or_too_few_allow_no_verdict() -> None:
    assert sessions_to_add(noisy(1, 40, slow=0.4), noisy(2, 12, slow=0.4), RULES) == 12
    assert sessions_to_add(noisy(1, 40, slow=0.3), noisy(2, 12), RULES) == 12  # nearly as many
    assert sessions_to_add(noisy(1, 40), noisy(2, 3), RULES) == 2
    assert sessions_to_add([], noisy(2, 12), RULES) == 0  # more of the candidate make no baseline


def test_nights_that_differ_by_themselves_are_no_regression() -> None:
    nights = [
        noisy(seed, 12, 0.01, around=level) for seed, level in enumerate((10, 10.5, 9.7, 10.4, 9.75, 10.2))
    ]
    baseline, tonight = [value for night in nights for value in night], noisy(9, 12, 0.01, around=10.6)
    assert compare_metric(baseline, tonight, RULES).verdict is Verdict.REGRESSION
    found = compare_metric(baseline, tonight, RULES, nights=nights)
    assert found.verdict is Verdict.UNSTABLE
    assert "by themselves" in found.reason


def test_nights_that_agree_do_not_hide_a_regression() -> None:
    nights = [noisy(seed, 12) for seed in range(6)]
    baseline, tonight = [value for night in nights for value in night][-40:], noisy(9, 12, around=10.7)
    assert compare_metric(baseline, tonight, RULES, nights=nights).verdict is Verdict.REGRESSION


def test_how_much_nights_differ_is_estimated_from_them() -> None:
    generator = np.random.default_rng(4)
    levels = generator.normal(0, 0.05, 60)
    nights = [generator.normal(level, 0.03, 12) for level in levels]
    wanted = norm.isf(0.01) * 0.05 * np.sqrt(1 + 1 / 60)
    assert variation_of_nights(nights, 0.0, 0.01) == pytest.approx(wanted, rel=0.15)
    with_sessions = variation_of_nights(nights, 0.05, 0.01)
    assert with_sessions == pytest.approx(norm.isf(0.01) * np.hypot(0.05, 0.05), rel=0.15)
    against_one = variation_of_nights(nights, 0.0, 0.01, compared=12)
    assert against_one == pytest.approx(norm.isf(0.01) * 0.05 * np.sqrt(2), rel=0.15)
    assert variation_of_nights(nights[:5], 0.0, 0.01) == 0.0


def test_ranks_are_those_of_scipy_exactly_where_nothing_is_tied() -> None:
    before, after = np.array(noisy(1, 9)), np.array(noisy(2, 7, around=10.2))
    wanted = mannwhitneyu(after, before, alternative="greater", method="exact")
    found = shift(before, after, 0.01)
    assert found.estimate > 0
    assert found.p_value == pytest.approx(wanted.pvalue)


def test_the_interval_covers_the_true_change_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(300):
        found = shift(np.log(noisy(2 * seed, 20)), np.log(noisy(2 * seed + 1, 12, around=11)), 0.05)
        covered += found.low <= np.log(1.1) <= found.high
    assert 0.86 <= covered / 300 <= 0.94  # 90 %: 5 % beyond each end


def test_far_sessions_are_told_apart_by_their_own_group() -> None:
    fast, slow = np.log(noisy(1, 12)), np.log(noisy(2, 12, around=20))
    slow[3] += 0.3
    near = find_near((fast, slow), 0.09)
    assert near[0].all()
    assert np.flatnonzero(~near[1]).tolist() == [3]
