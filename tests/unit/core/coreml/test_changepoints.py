"""Change points of the nightly history: found soon, never where nothing changed, and never taken back."""

from __future__ import annotations

import numpy as np
import pytest

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.changepoints import Night, find_change_points
from tests.unit.core.coreml.made_runs import noisy

RULES = CompareRules()
STEP_AT = 20


def history(seed: int, levels: list[float], sessions: int = 8, **options: float) -> list[Night]:
    return [
        Night(tuple(noisy(1000 * seed + index, sessions, around=level, **options)))
        for index, level in enumerate(levels)
    ]


def test_a_step_is_found_within_four_nights_at_the_right_night() -> None:
    in_time, near = 0, 0
    for seed in range(20):
        found = find_change_points(history(seed, [10.0] * STEP_AT + [10.5] * 6), RULES)
        assert len(found) == 1
        in_time += found[0].found_at < STEP_AT + 4
        near += abs(found[0].index - STEP_AT) <= 1
        assert found[0].change == pytest.approx(0.05, abs=0.02)
    assert in_time >= 16
    assert near >= 18


def test_hundreds_of_unchanged_nights_raise_no_alarm() -> None:
    nights = history(1, [10.0] * 400)
    assert find_change_points(nights, RULES) == []


def test_throttled_sessions_are_no_change() -> None:
    throttled = [Night(tuple(noisy(index, 12, slow=0.25 if index % 3 else 0.0))) for index in range(80)]
    assert find_change_points(throttled, RULES) == []


def test_one_bad_night_is_no_change() -> None:
    levels = [10.0] * 20 + [13.0] + [10.0] * 10
    assert find_change_points(history(1, levels), RULES) == []


def test_two_steps_and_the_way_back_are_all_found() -> None:
    levels = [10.0] * 15 + [11.0] * 5 + [12.1] * 10 + [10.0] * 6
    found = find_change_points(history(1, levels), RULES)
    assert [one.index for one in found] == [15, 20, 30]
    assert [round(one.change, 1) for one in found] == [0.1, 0.1, -0.2]


def test_steps_that_are_each_too_small_add_up() -> None:
    levels = [10 * 1.01 ** max(0, night - 15) for night in range(26)]
    found = find_change_points(history(1, levels, noise=0.01), RULES)
    assert found
    assert found[0].change >= RULES.minimum_effect


def test_later_nights_take_nothing_back() -> None:
    nights = history(3, [10.0] * 12 + [10.6] * 8 + [10.0] * 12)
    told: list[tuple[int, int]] = []
    for count in range(len(nights) + 1):
        found = [(one.index, one.found_at) for one in find_change_points(nights[:count], RULES)]
        assert found[: len(told)] == told
        assert all(found_at == count - 1 for _, found_at in found[len(told) :])
        told = found
    assert len(told) == 2


def test_a_new_epoch_is_no_change() -> None:
    before, after = history(1, [10.0] * 12), history(2, [11.0] * 12)
    one_epoch = find_change_points([*before, *after], RULES)
    assert [one.index for one in one_epoch] == [12]
    renewed = [Night(night.values, "another") for night in after]
    assert find_change_points([*before, *renewed], RULES) == []


def test_indices_are_those_of_the_history_though_nights_are_missing() -> None:
    nights = history(1, [10.0] * 12 + [11.0] * 8)
    nights[3] = nights[14] = Night(())
    assert [one.index for one in find_change_points(nights, RULES)] == [12]


def test_a_smaller_change_is_found_where_a_smaller_effect_is_asked_for() -> None:
    nights = history(1, [10.0] * 20 + [10.2] * 12, noise=0.005)
    assert find_change_points(nights, RULES) == []
    assert [one.index for one in find_change_points(nights, RULES, effect=0.01)] == [20]


def test_nights_that_vary_by_themselves_are_no_changes() -> None:
    generator = np.random.default_rng(1)
    levels = (10 * np.exp(generator.normal(0, 0.04, 200))).tolist()
    # By the sessions alone every second night would be one: they are eight times more alike.
    assert len(find_change_points(history(1, levels, noise=0.005), RULES)) <= 1


def test_nights_that_agree_by_luck_are_no_surer_than_their_sessions() -> None:
    scattered = (8.5, 9.3, 10.0, 10.8, 11.7)
    after = tuple(value * 1.04 for value in scattered)
    assert find_change_points([Night(scattered)] * 10 + [Night(after)] * 2, RULES) == []


@pytest.mark.parametrize("nights", [[], history(1, [10.0]), [Night((10.0,))] * 30])
def test_short_or_constant_histories_have_no_change(nights: list[Night]) -> None:
    assert find_change_points(nights, RULES) == []
