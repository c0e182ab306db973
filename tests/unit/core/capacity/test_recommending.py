"""What is recommended: the kit's thresholds, made safe; every acceptance case of a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.capacity.recommending import Recommendation, ScalingRules, ServiceState, recommend
from fastvlm_ops.core.capacity.required import Required
from fastvlm_ops.core.capacity.rules import Thresholds
from fastvlm_ops.core.config.capacity import RESOURCES

AS_OF = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = ScalingRules()
AT_ONCE = ScalingRules(agreeing_runs=1, cool_down_days=0)
OK = dict.fromkeys(RESOURCES, "ok")


def state(replicas: int | None = 4, as_of: datetime = AS_OF, **changes: Any) -> ServiceState:
    values: dict[str, Any] = {"capacities": dict.fromkeys(RESOURCES, 100.0), "statuses": OK}
    values |= {"history_days": dict.fromkeys(RESOURCES, 90.0)}
    return ServiceState("kit", as_of, replicas, **(values | changes))


def need(now: float | None, peak: float | None = None, risk: float | None = None) -> Required:
    peak = now if peak is None else peak
    return Required(now, peak, None, peak if risk is None else risk)


def needs(
    cpu: float | None = 50, memory: float | None = 50, requests: float | None = 50
) -> dict[Any, Required]:
    return {"cpu": need(cpu), "memory": need(memory), "requests": need(requests)}


def asked(
    wants: Mapping[Any, Required], *, rules: ScalingRules = AT_ONCE, past: Any = (), **changes: Any
) -> Any:
    return recommend(state(**changes), wants, past, rules)


# The kit's thresholds.


@pytest.mark.parametrize(
    ("wants", "action"),
    [
        (needs(cpu=70), "none"),
        (needs(cpu=70.1), "scale_up"),
        (needs(memory=80), "none"),
        (needs(memory=80.1), "scale_up"),
        (needs(requests=80), "none"),
        (needs(requests=80.1), "scale_up"),
        (needs(29, 39, 29), "scale_down"),
        (needs(30, 30, 20), "none"),
        (needs(20, 40, 20), "none"),
        (needs(20, 30, 30), "none"),
    ],
)
def test_thresholds_of_the_seed(wants: Any, action: str) -> None:
    assert asked(wants).action == action


def test_what_is_to_be_expected_counts_like_what_is_used_now() -> None:
    hot = asked(needs() | {"cpu": need(30, 75)})
    assert (hot.action, hot.replicas_wanted, hot.trigger) == ("scale_up", 5, "cpu")
    assert "CPU at 30 % now, 75 % to be expected, above 70 %" in hot.reason


def test_the_worst_case_has_to_fit_into_what_there_is_and_no_more() -> None:
    """The threshold is the room for what is to be expected: the worst case needs none on top of it."""
    assert asked(needs() | {"cpu": need(34, 72, 105)}, replicas=3).replicas_wanted == 4  # 72 % / 63 %
    wide = asked(needs() | {"cpu": need(34, 72, 160)}, replicas=3)
    assert wide.replicas_wanted == 5  # 160 %
    assert "5 replicas are needed, to have room for 160 % in the worst case" in wide.reason
    calm = needs(20, 20, 20)
    assert asked(calm | {"cpu": need(10, 20, 50)}, replicas=4).replicas_wanted == 2
    assert asked(calm | {"cpu": need(10, 20, 60)}, replicas=4).replicas_wanted == 3
    assert asked(calm | {"cpu": need(10, 20, 99)}, replicas=4).action == "none"


def test_the_worst_case_of_a_short_history_says_only_that_little_is_known() -> None:
    short = asked(needs() | {"cpu": need(34, 72, 300)}, replicas=3, statuses=OK | {"cpu": "short"})
    assert short.replicas_wanted == 4


def test_a_risk_alone_adds_nothing_and_is_said() -> None:
    assert "watched" not in asked(needs() | {"cpu": need(40, 60, 90)}).reason
    watched = asked(needs() | {"cpu": need(40, 60, 110)})
    assert watched.action == "none"
    assert "watched, since the worst case is more than there is: CPU 110 %" in watched.reason


def test_requests_are_judged_by_the_share_of_what_there_is() -> None:
    wants = needs() | {"requests": need(170)}
    capacities = {"cpu": 100.0, "memory": 100.0, "requests": 200.0}
    assert asked(wants, capacities=capacities).action == "scale_up"
    assert asked(wants, capacities=capacities | {"requests": 220.0}).action == "none"


# As many as are needed, in bounded steps.


@pytest.mark.parametrize(
    ("replicas", "cpu", "wanted", "capped"),
    [
        (4, 71, 5, False),  # ceil(4 * 71 / 63)
        (4, 100, 7, False),
        (4, 200, 8, False),  # 13 are needed, the step is at most times 2, and they are also above the most
        (2, 200, 4, False),
        (1, 75, 2, False),
        (9, 90, 10, True),
        (10, 75.6, 10, True),
        (12, 90, 12, True),
    ],
)
def test_scales_up_to_what_is_needed(replicas: int, cpu: float, wanted: int, capped: bool) -> None:
    found = asked(needs(cpu=cpu), replicas=replicas)
    assert found.replicas_wanted == wanted
    assert found.action == ("scale_up" if wanted > replicas else "none")
    assert found.capped is (capped or found.replicas_needed > 10)


def test_twelve_needed_and_ten_the_most_is_capped_and_flagged() -> None:
    found = asked(needs(cpu=75.6), replicas=10)
    assert (found.action, found.replicas_needed, found.capped) == ("none", 12, True)
    assert "12 replicas are needed; 10 is the most" in found.reason
    assert "replicas.maximum" in found.reason


@pytest.mark.parametrize(
    ("replicas", "load", "wanted"), [(10, 5, 5), (5, 5, 3), (3, 5, 2), (2, 5, 1), (10, 28, 5), (4, 29, 3)]
)
def test_scales_down_by_half_at_most(replicas: int, load: float, wanted: int) -> None:
    found = asked(needs(load, load, load), replicas=replicas)
    assert (found.action, found.replicas_wanted) == ("scale_down", wanted)


def test_one_replica_with_little_to_do_stays() -> None:
    found = asked(needs(1, 1, 1), replicas=1)
    assert (found.action, found.replicas_wanted) == ("none", 1)
    assert "least" in found.reason


def test_fewer_than_the_least_are_made_more() -> None:
    found = asked(needs(), replicas=1, rules=ScalingRules(minimum=2))
    assert (found.action, found.replicas_wanted) == ("scale_up", 2)


def test_no_scale_down_that_would_at_once_be_hot() -> None:
    """Memory per replica does not halve: at 39 % of two replicas, one alone may have 78 %."""
    found = asked(needs(20, 39, 20), replicas=2)
    assert (found.action, found.replicas_wanted) == ("none", 2)
    assert "memory would at once be high" in found.reason
    assert asked(needs(20, 32, 20), replicas=2).action == "scale_down"


@given(
    st.integers(1, 14),
    st.lists(st.floats(0, 150), min_size=9, max_size=9),
    st.integers(1, 4),
    st.integers(4, 12),
    st.floats(0.5, 1),
)
def test_a_change_is_bounded_and_does_not_undo_itself(
    replicas: int, loads: list[float], minimum: int, maximum: int, share: float
) -> None:
    rules = replace(AT_ONCE, minimum=minimum, maximum=maximum, target_share=share)
    wants = {name: Required(loads[n], loads[n + 3], None, loads[n + 6]) for n, name in enumerate(RESOURCES)}
    found = asked(wants, replicas=replicas, rules=rules)
    assert found.replicas_wanted is not None
    if found.action == "scale_up":
        assert replicas < found.replicas_wanted <= max(maximum, minimum)
        assert found.replicas_wanted <= replicas * 2 or replicas < minimum
    elif found.action == "scale_down":
        assert max(minimum, replicas / 2) <= found.replicas_wanted < replicas
        by = replicas / found.replicas_wanted
        for name, one in wants.items():
            expected = max(one.current_usage, one.forecasted_peak) * by  # type: ignore[type-var]
            assert expected <= rules.thresholds[name].up * rules.settled_share + 1e-6
            assert max(expected, one.required_risk * by) <= 100 + 1e-6
        hotter = {name: replace(one, current_usage=one.current_usage * by) for name, one in wants.items()}
        assert asked(hotter, replicas=found.replicas_wanted, rules=rules).action in ("none", "scale_down")
    else:
        assert found.action == "none"
        assert found.replicas_wanted == replicas
    assert found == asked(wants, replicas=replicas, rules=rules)
    assert not found.capped or found.replicas_needed > maximum  # type: ignore[operator]


# Nothing taken away on thin data.

LOW = needs(10, 10, 10)


@pytest.mark.parametrize("status", ["short", "stale", "failed", "no_data"])
@pytest.mark.parametrize("resource", RESOURCES)
def test_no_scale_down_on_thin_data(resource: str, status: str) -> None:
    found = asked(LOW, statuses=OK | {resource: status})
    assert found.action == "none"
    assert f"({status})" in found.reason


@pytest.mark.parametrize(
    ("wants", "changes"),
    [
        (LOW | {"memory": Required(None, None, None, None)}, {}),
        (LOW | {"memory": Required(10, None, None, None)}, {}),
        ({"cpu": LOW["cpu"], "memory": LOW["memory"]}, {}),
        (LOW, {"statuses": {"cpu": "ok", "memory": "ok"}}),
        (LOW, {"history_days": {"cpu": 90, "memory": 13, "requests": 90}}),
        (LOW, {"history_days": {}}),
        (LOW, {"capacities": {"cpu": 100.0, "memory": 100.0, "requests": None}}),
        (LOW, {"capacities": {"cpu": 100.0, "memory": 100.0, "requests": 0.0}}),
        (LOW, {"capacities": {"cpu": 100.0, "requests": 100.0}}),
    ],
)
def test_no_scale_down_where_something_is_not_known(wants: Any, changes: Any) -> None:
    found = asked(wants, **changes)
    assert found.action == "none"
    assert "not yet" in found.reason


def test_what_is_hot_is_hot_whatever_else_is_unknown() -> None:
    found = asked({"cpu": need(90)}, statuses={"cpu": "short"}, history_days={"cpu": 1})
    assert (found.action, found.trigger) == ("scale_up", "cpu")


@pytest.mark.parametrize(
    ("wants", "changes", "action"),
    [
        (LOW, {"statuses": dict.fromkeys(RESOURCES, "stale")}, "stale"),
        ({}, {"statuses": {"cpu": "stale", "memory": "no_data"}}, "stale"),
        ({}, {"statuses": {}}, "insufficient_data"),
        (needs(None, None, None), {"statuses": dict.fromkeys(RESOURCES, "no_data")}, "insufficient_data"),
        (needs(90), {"replicas": None}, "insufficient_data"),
        (needs(90), {"replicas": 0}, "insufficient_data"),
    ],
)
def test_what_is_not_known_is_said(wants: Any, changes: Any, action: str) -> None:
    found = asked(wants, **changes)
    assert found.action == action
    assert found.replicas_wanted is None
    assert not found.capped


# Agreement, cool-down, answers.


def run_days(loads: list[Any], replicas: int, *, rules: ScalingRules = RULES) -> list[Recommendation]:
    """A run a day, in which what is recommended is done; loads are those of one replica."""
    past: list[Recommendation] = []
    for number, load in enumerate(loads):
        wants = load if isinstance(load, dict) else needs(*(load / replicas,) * 3)
        found = recommend(state(replicas, AS_OF + number * DAY), wants, past, rules)
        past.append(found)
        if found.action in ("scale_up", "scale_down"):
            replicas = found.replicas_wanted or replicas
    return past


def actions(past: list[Recommendation]) -> list[str]:
    return [one.action for one in past]


def test_three_runs_in_a_row_have_to_agree() -> None:
    past = run_days([40.0] * 3, 4)
    assert actions(past) == ["none", "none", "scale_down"]
    assert "1 of 3 runs in a row agree" in past[0].reason
    assert past[0].wants_fewer
    broken = run_days([40.0, 40.0, 200.0, 40.0, 40.0, 40.0], 4)
    assert actions(broken) == ["none"] * 5 + ["scale_down"]


def test_runs_that_are_far_apart_do_not_agree() -> None:
    past = [recommend(state(as_of=AS_OF - days * DAY), LOW, (), RULES) for days in (7, 8, 9)]
    assert "1 of 3" in asked(LOW, past=past, rules=RULES).reason
    assert asked(LOW, past=[replace(one, as_of=one.as_of + 6 * DAY) for one in past], rules=RULES).action == (
        "scale_down"
    )


def test_the_most_careful_of_the_runs_that_agree_counts() -> None:
    past = [
        Recommendation("kit", AS_OF - days * DAY, "none", 10, wanted, "…")
        for days, wanted in ((1, 5), (2, 8), (3, 9))
    ]
    found = asked(LOW, past=past, replicas=10, rules=RULES)
    assert (found.action, found.replicas_wanted) == ("scale_down", 8)


@pytest.mark.parametrize("answer", ["approved", "rejected"])
def test_after_an_answer_it_waits(answer: Any) -> None:
    past = [
        Recommendation("kit", AS_OF - days * DAY, "scale_down", 4, 2, "…", applied_state=state_)
        for days, state_ in ((1, "planned"), (2, answer), (3, "planned"))
    ]
    assert "2 d ago" in asked(LOW, past=past, rules=RULES).reason
    later = [replace(one, as_of=one.as_of - DAY) for one in past]
    later.append(Recommendation("kit", AS_OF - DAY, "none", 4, 2, "…"))
    assert asked(LOW, past=later, rules=RULES).action == "scale_down"


def test_after_a_change_it_waits_whoever_made_it() -> None:
    past = [Recommendation("kit", AS_OF - days * DAY, "none", 4, 2, "…") for days in (1, 2, 3)]
    past += [Recommendation("kit", AS_OF - 4 * DAY, "none", 2, 2, "…")]
    assert asked(LOW, past=past, rules=RULES).action == "scale_down"
    assert asked(LOW, past=past, rules=replace(RULES, cool_down_days=4)).action == "none"


def test_scaling_up_does_not_wait() -> None:
    past = run_days([40.0] * 3, 4)
    assert past[-1].action == "scale_down"
    assert (
        asked(needs(cpu=95), past=past, rules=RULES, as_of=AS_OF + 3 * DAY, replicas=2).action == "scale_up"
    )


def test_later_runs_and_other_services_are_not_looked_at() -> None:
    past = run_days([40.0] * 2, 4)
    now = AS_OF + 2 * DAY
    wanted = asked(LOW, past=past, rules=RULES, as_of=now)
    others = [replace(one, service="other", applied_state="rejected") for one in past]
    later = [replace(one, as_of=now + n * DAY, applied_state="rejected") for n, one in enumerate(past)]
    assert asked(LOW, past=[*later, *past[::-1], *others], rules=RULES, as_of=now) == wanted
    assert wanted.action == "scale_down"


def test_memory_that_replicas_do_not_relieve_is_no_spiral() -> None:
    past = run_days([needs(20, 90, 20)] * 10, 2)
    assert actions(past) == ["scale_up"] + ["none"] * 9
    assert "more memory" in past[-1].reason


def test_what_was_too_few_is_not_tried_again_for_two_weeks() -> None:
    past = run_days([40.0] * 3 + [150.0] + [40.0] * 20, 2)
    assert actions(past)[2:4] == ["scale_down", "scale_up"]
    assert "as many were too few" in past[10].reason
    assert past.index(next(one for one in past[4:] if one.action == "scale_down")) == 3 + 14


# Thirty days without flapping.


def demand(level: float, seed: int) -> np.ndarray:
    """Fifty-eight days by the hour: days, weeks, noise that hangs together, and bursts."""
    generator, hours = np.random.default_rng(seed), np.arange(58 * 24)
    shape = 1 + 0.35 * np.sin(hours / 24 * 2 * np.pi) + 0.1 * np.sin(hours / 168 * 2 * np.pi)
    noise = np.convolve(generator.standard_normal(hours.size), np.ones(6) / 6**0.5, "same")
    bursts = (generator.random(hours.size) < 0.002) * generator.exponential(0.5, hours.size)
    return level * np.clip(shape + 0.1 * noise + bursts, 0, None) / 1.4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [50, 60, 70, 105, 120, 135, 140, 180, 250, 280])
def test_thirty_days_have_at_most_two_changes(level: float, seed: int) -> None:
    series = demand(level, seed)
    past: list[Recommendation] = []
    replicas = 3
    for day in range(30):
        known = series[: (28 + day) * 24] / replicas
        peaks = [float(np.quantile(known[-28 * 24 :], 0.95)), float(known[-28 * 24 :].max())]
        wants: dict[Any, Required] = {
            name: Required(float(known[-1 - (day * 7) % 24]), peaks[0], None, peaks[1]) for name in RESOURCES
        }
        past.append(recommend(state(replicas, AS_OF + day * DAY), wants, past, RULES))
        if past[-1].action in ("scale_up", "scale_down"):
            replicas = past[-1].replicas_wanted or replicas
    changes = [(one.action, one.replicas_now, one.replicas_wanted) for one in past if "scale" in one.action]
    assert len(changes) <= 2, changes


@given(st.floats(10, 400), st.integers(0, 2**32 - 1), st.floats(0, 0.25))
def test_whatever_the_noise_it_turns_round_once_at_most_in_two_weeks(
    level: float, seed: int, noise: float
) -> None:
    loads = level * np.clip(1 + noise * np.random.default_rng(seed).standard_normal(14), 0, None)
    moves = [action for action in actions(run_days(list(loads), 4)) if action.startswith("scale")]
    assert sum(one == "scale_up" and other == "scale_down" for one, other in pairwise(moves)) == 0


# What is refused.


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"minimum": 0}, "replicas"),
        ({"minimum": 5, "maximum": 4}, "replicas"),
        ({"target_share": 0}, "target_share"),
        ({"largest_step": 1}, "largest_step"),
        ({"agreeing_runs": 0}, "agreeing_runs"),
        ({"thresholds": {"cpu": Thresholds(70, 30)}}, "memory"),
    ],
)
def test_rules_that_cannot_be_right_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ScalingRules(**values)


@pytest.mark.parametrize("values", [(30, 70), (70, 70), (70, 0), (101, 30)])
def test_thresholds_that_cannot_be_right_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        Thresholds(*values)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        state(as_of=datetime(2026, 1, 1))
