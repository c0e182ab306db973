"""A run judged as a whole: each metric against the accepted runs, and what is said where nothing compares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.changepoints import Night
from fastvlm_ops.core.coreml.devices.interface import (
    Conditions,
    Failure,
    FailureCode,
    HardwareClass,
    Placement,
)
from fastvlm_ops.core.coreml.epochs import Epoch, epoch_of, what_changed
from fastvlm_ops.core.coreml.false_discovery import control_false_discovery, passes
from fastvlm_ops.core.coreml.judging import STATISTICAL, judge_run, judge_status, wanted_sessions
from fastvlm_ops.core.coreml.records import BaselineRecord, RunRecord, session_value
from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict
from tests.unit.core.coreml.made_runs import INSPECTION, PARITY, PHONE, TOOLCHAIN, failed, noisy, run, session

RULES = CompareRules()
ON_NE = (Placement("stem", "ios17.conv", "ane", 0.7), Placement("norm", "ios17.layer_norm", "ane", 0.3))
ON_CPU = (ON_NE[0], replace(ON_NE[1], unit="cpu"))


def accepted(*, nights: int = 4, **options: Any) -> BaselineRecord:
    return BaselineRecord(tuple(run(noisy(n, 12), run_key=f"night {n}", **options) for n in range(nights)))


def judged(candidate: RunRecord, baseline: BaselineRecord | None, **options: Any) -> dict[Metric, Judgement]:
    found = judge_run(candidate, baseline, RULES, **options)
    assert len({one.metric for one in found}) == len(found)
    return {one.metric: one for one in found}


def verdicts(found: dict[Metric, Judgement]) -> dict[Metric, Verdict]:
    return {metric: one.verdict for metric, one in found.items()}


def test_an_unchanged_version_is_ok_in_everything() -> None:
    found = judged(run(noisy(90, 12), placement=ON_NE), accepted(placement=ON_NE))
    assert set(verdicts(found).values()) == {Verdict.OK}
    assert set(found) == set(Metric) - {Metric.PEAK_MEMORY, Metric.LATENCY_TREND, Metric.LATENCY_TURNS}


def test_a_slower_version_is_named_with_change_and_confidence() -> None:
    found = judged(run(noisy(90, 12, around=10.7)), accepted())[Metric.LATENCY_P50]
    assert found.verdict is Verdict.REGRESSION
    assert found.stops_release
    assert (found.device, found.model, found.compute_unit) == ("phone", "VisionEncoder", "CPU_AND_NE")
    assert found.change == pytest.approx(0.07, abs=0.02)
    assert found.confidence is not None
    assert found.confidence > 0.99
    assert found.baseline_value == pytest.approx(10, abs=0.2)
    assert found.value == pytest.approx(10.7, abs=0.3)
    assert "12 sessions against" in found.reason


def test_loading_and_memory_have_effects_of_their_own() -> None:
    medians = noisy(90, 12)
    heavy = run(medians)
    heavy = replace(
        heavy,
        sessions=tuple(
            session(n, value, load_cold_ms=480 * noise, peak_memory_bytes=round(1.3e8 * noise))
            for n, (value, noise) in enumerate(zip(medians, noisy(91, 12, around=1), strict=True))
        ),
    )
    light = accepted()
    light = BaselineRecord(
        tuple(
            replace(
                one, sessions=tuple(replace(s, peak_memory_bytes=round(1e8 + s.index)) for s in one.sessions)
            )
            for one in light.runs
        )
    )
    found = verdicts(judged(heavy, light))
    assert found[Metric.LOAD_COLD] is Verdict.REGRESSION
    assert found[Metric.PEAK_MEMORY] is Verdict.REGRESSION
    assert found[Metric.LATENCY_P50] is Verdict.OK
    slower_load = run([value * 1.08 for value in medians])  # loads by as much: less than 15 %
    assert verdicts(judged(slower_load, light))[Metric.LOAD_COLD] is Verdict.OK


def test_a_metric_that_the_device_no_longer_tells_is_insufficient_not_ok() -> None:
    baseline = accepted()
    told = BaselineRecord(
        tuple(
            replace(one, sessions=tuple(replace(s, peak_memory_bytes=100) for s in one.sessions))
            for one in baseline.runs
        )
    )
    found = judged(run(noisy(90, 12)), told)
    assert found[Metric.PEAK_MEMORY].verdict is Verdict.INSUFFICIENT


def test_a_moved_operation_is_a_regression_though_latency_is_equal() -> None:
    found = judged(run(noisy(90, 12), placement=ON_CPU), accepted(placement=ON_NE))
    assert found[Metric.LATENCY_P50].verdict is Verdict.OK
    assert found[Metric.PLACEMENT].verdict is Verdict.REGRESSION
    assert "norm (ios17.layer_norm, 30.0% of the cost)" in found[Metric.PLACEMENT].reason


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"parity": {**PARITY, "psnr_db": 30.0}}, Metric.PARITY),
        ({"parity": {**PARITY, "nan": 4}}, Metric.PARITY),
        ({"inspection": {**INSPECTION, "size_bytes": 4_480_000}}, Metric.SIZE),
        ({"inspection": {**INSPECTION, "compressed_share": 0.0}}, Metric.COMPRESSION),
    ],
)
def test_each_kind_of_regression_is_a_verdict_of_its_own(changes: dict[str, Any], metric: Metric) -> None:
    found = judged(run(noisy(90, 12), **changes), accepted())
    assert [one for one in found if found[one].verdict is Verdict.REGRESSION] == [metric]


def test_without_a_baseline_only_what_is_wrong_in_itself_is_judged() -> None:
    found = judged(run(noisy(90, 12), placement=ON_NE, parity={**PARITY, "nan": 1}), None)
    assert verdicts(found) == {
        **dict.fromkeys(found, Verdict.INSUFFICIENT),
        Metric.STATUS: Verdict.OK,
        Metric.PARITY: Verdict.REGRESSION,
    }
    assert "nothing was accepted yet" in found[Metric.LATENCY_P50].reason
    assert found[Metric.LATENCY_P50].value == pytest.approx(10, abs=0.3)


def test_a_new_system_starts_an_epoch_and_is_no_regression() -> None:
    updated = replace(PHONE, os_version="18.2", os_build="22C152")
    slower = run(
        noisy(90, 12, around=13), device=updated, placement=ON_CPU, parity={**PARITY, "psnr_db": 40.0}
    )
    found = judged(slower, accepted(placement=ON_NE))
    assert Verdict.REGRESSION not in verdicts(found).values()
    for metric in (Metric.LATENCY_P50, Metric.LOAD_COLD, Metric.PLACEMENT):
        assert found[metric].verdict is Verdict.INSUFFICIENT
        assert found[metric].reason == "new epoch: OS 18.1 → 18.2"
    assert wanted_sessions(slower, accepted(), RULES) == 0


def test_runs_of_the_epoch_are_used_though_the_newest_accepted_is_of_another() -> None:
    updated = run(noisy(80, 12, around=20), device=replace(PHONE, os_version="18.2"))
    baseline = BaselineRecord((*accepted().runs, updated))
    assert judged(run(noisy(90, 12)), baseline)[Metric.LATENCY_P50].verdict is Verdict.OK


def test_times_on_linux_only_inform() -> None:
    linux = replace(PHONE, hardware_class=HardwareClass.LINUX_REFERENCE)
    found = judged(run(noisy(90, 12, around=12), device=linux), accepted(device=linux))
    assert found[Metric.LATENCY_P50].verdict is Verdict.REGRESSION
    assert not found[Metric.LATENCY_P50].stops_release
    assert found[Metric.SIZE].gate
    assert wanted_sessions(run(noisy(90, 12, around=12), device=linux), accepted(device=linux), RULES) == 0


def test_sessions_on_a_hot_device_are_unstable() -> None:
    hot = run(noisy(90, 12, around=12), conditions=Conditions(thermal_end="serious"))
    found = judged(hot, accepted())[Metric.LATENCY_P50]
    assert found.verdict is Verdict.UNSTABLE
    assert "12 of 12 sessions ended on a hot device" in found.reason


def test_a_suspected_run_asks_for_sessions_and_they_decide() -> None:
    baseline, first = accepted(), noisy(90, 12, around=10.6)
    assert wanted_sessions(run(noisy(91, 12)), baseline, RULES) == 0
    assert wanted_sessions(run(first), baseline, RULES) == 12
    confirmed = run([*first, *noisy(92, 12, around=10.6)], confirming_from=12)
    dropped = run([*first, *noisy(92, 12)], confirming_from=12)
    assert judged(confirmed, baseline)[Metric.LATENCY_P50].verdict is Verdict.REGRESSION
    assert judged(dropped, baseline)[Metric.LATENCY_P50].verdict is Verdict.OK


def test_the_last_sessions_are_the_baseline() -> None:
    old, new = (run(noisy(seed, 40, around=level)) for seed, level in ((1, 8), (2, 10)))
    found = judged(run(noisy(90, 12)), BaselineRecord((old, new)))[Metric.LATENCY_P50]
    assert found.verdict is Verdict.OK
    assert found.details["n_baseline"] == 40


def test_accepted_nights_that_differ_by_themselves_are_not_held_against_a_run() -> None:
    levels = (10, 10.5, 9.7, 10.4, 9.75, 10.2, 9.9)
    runs = tuple(run(noisy(n, 12, 0.01, around=level)) for n, level in enumerate(levels))
    found = judged(run(noisy(90, 12, 0.01, around=10.7)), BaselineRecord(runs))[Metric.LATENCY_P50]
    assert found.verdict is Verdict.UNSTABLE
    assert "by themselves" in found.reason


def statuses(*codes: FailureCode | None, failure: Failure | None = None) -> Verdict:
    sessions = [session(n, 10) if code is None else failed(n, code) for n, code in enumerate(codes)]
    return judge_status(replace(run([]), sessions=tuple(sessions), failure=failure)).verdict


def test_a_device_that_could_not_be_had_is_missing_and_a_model_that_gave_nothing_has_failed() -> None:
    assert statuses(failure=Failure(FailureCode.DEVICE_MISSING, "not there")) is Verdict.MISSING
    assert statuses(failure=Failure(FailureCode.SIGNING_FAILED, "no team")) is Verdict.MISSING
    assert statuses(None, None, failure=Failure(FailureCode.DEVICE_DISCONNECTED, "gone")) is Verdict.MISSING
    assert statuses(*[FailureCode.LOAD_FAILED] * 3) is Verdict.FAILED
    assert statuses(*[None] * 10, *[FailureCode.APP_CRASHED] * 2) is Verdict.FAILED
    assert statuses() is Verdict.MISSING


def test_a_single_failed_session_is_told_and_does_not_stop() -> None:
    assert statuses(*[None] * 11, FailureCode.APP_CRASHED) is Verdict.UNSTABLE
    assert statuses(*[None] * 10, *[FailureCode.DEVICE_DISCONNECTED] * 2) is Verdict.UNSTABLE
    assert statuses(*[None] * 5, *[FailureCode.DEVICE_DISCONNECTED] * 7) is Verdict.MISSING
    found = judge_status(replace(run(noisy(1, 3)), failure=Failure(FailureCode.NO_ANSWER, "after 120 s")))
    assert found.verdict is Verdict.FAILED
    assert found.reason == "3 of 3 sessions gave results; no_answer: after 120 s"


def test_what_a_broken_run_measured_is_still_judged() -> None:
    broken = run(noisy(90, 6, around=12), failure=Failure(FailureCode.DEVICE_DISCONNECTED, "unplugged"))
    found = verdicts(judged(broken, accepted()))
    assert found[Metric.STATUS] is Verdict.MISSING
    assert found[Metric.LATENCY_P50] is Verdict.REGRESSION


def creeping(count: int) -> list[RunRecord]:
    levels = [10 * 1.008 ** max(0, night - 12) for night in range(count)]
    return [run(noisy(n, 12, 0.01, around=level), run_key=f"n{n}") for n, level in enumerate(levels)]


def nights(runs: Sequence[RunRecord]) -> list[Night]:
    return [Night(tuple(one.values(Metric.LATENCY_P50)), one.epoch, one.run_key) for one in runs]


def test_a_creeping_regression_is_found_by_the_trend_and_stands_until_accepted() -> None:
    runs = creeping(24)
    found_at = 0
    for night in range(8, 24):
        baseline = BaselineRecord(tuple(runs[max(0, night - 4) : night]))
        found = judged(runs[night], baseline, history=nights(runs[:night]))
        assert found[Metric.LATENCY_P50].verdict is Verdict.OK
        if found[Metric.LATENCY_TREND].verdict is Verdict.REGRESSION:
            found_at = night
            break
    assert found_at > 12
    # The next night, nothing of it being accepted, says it again; once accepted, it is the new level.
    following = runs[found_at + 1]
    before = BaselineRecord((runs[found_at - 1],))
    again = judged(following, before, history=nights(runs[: found_at + 1]))
    assert again[Metric.LATENCY_TREND].verdict is Verdict.REGRESSION
    since = BaselineRecord((runs[found_at],))
    after = judged(following, since, history=nights(runs[: found_at + 1]))
    assert after[Metric.LATENCY_TREND].verdict is Verdict.OK
    assert after[Metric.LATENCY_TREND].details["change_points"]


def test_false_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    assert (
        passes([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.2, 0.3, 0.4, 0.5], 0.05)
        == [True] * 2 + [False] * 8
    )
    assert passes([0.03, 0.02, 0.04], 0.05) == [True] * 3  # the largest that stands carries the others
    assert passes([0.06], 0.05) == [False]
    assert passes([], 0.05) == []


def made(metric: Metric, verdict: Verdict, p_value: float | None) -> Judgement:
    return Judgement("phone", "VisionEncoder", "ALL", metric, verdict=verdict, p_value=p_value)


def test_a_change_that_many_tests_make_likely_is_taken_back_and_what_is_exact_is_not() -> None:
    quiet = [made(Metric.LATENCY_P90, Verdict.OK, 0.4)] * 98
    loud = [
        made(Metric.LATENCY_P50, Verdict.REGRESSION, 0.009),
        made(Metric.LOAD_COLD, Verdict.REGRESSION, 1e-6),
        made(Metric.SIZE, Verdict.REGRESSION, None),
        made(Metric.LATENCY_TREND, Verdict.REGRESSION, 1e-4),
    ]
    weak, strong, exact, trend = control_false_discovery([*loud, *quiet], 0.01)[:4]
    assert weak.verdict is Verdict.OK
    assert weak.details["verdict_alone"] == "REGRESSION"
    assert "100 tests" in weak.reason
    assert strong == loud[1]
    assert exact == loud[2]
    assert trend == loud[3]


def test_a_test_that_chose_its_side_counts_twice() -> None:
    assert (
        control_false_discovery([made(Metric.LATENCY_P50, Verdict.REGRESSION, 0.006)], 0.01)[0].verdict
        is Verdict.OK
    )
    held = control_false_discovery([made(Metric.LATENCY_P50, Verdict.REGRESSION, 0.004)], 0.01)
    assert held[0].verdict is Verdict.REGRESSION


def test_among_unchanged_runs_hardly_any_reports_a_change() -> None:
    reported = 0
    for seed in range(40):
        baseline = BaselineRecord(tuple(run(noisy(100 * seed + n, 12)) for n in range(4)))
        found = judge_run(run(noisy(100 * seed + 50, 12)), baseline, RULES)
        reported += any(
            one.verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT)
            for one in control_false_discovery(found, RULES.false_discovery_rate)
        )
    assert reported == 0


def test_an_epoch_is_the_same_for_the_same_and_tells_what_changed() -> None:
    before = Epoch.of(PHONE.as_dict(), TOOLCHAIN, "ALL")
    assert before == Epoch.of(PHONE.as_dict(), dict(reversed(TOOLCHAIN.items())), "ALL")
    assert epoch_of(run([], compute_unit="ALL")).key == before.key
    changes = {
        "OS 18.1 (22B83) → 18.1 (22B91)": Epoch.of(
            replace(PHONE, os_build="22B91").as_dict(), TOOLCHAIN, "ALL"
        ),
        "xcode 16.1 → 16.2": Epoch.of(PHONE.as_dict(), {**TOOLCHAIN, "xcode": "16.2"}, "ALL"),
        "runner none → 2": Epoch.of(PHONE.as_dict(), {**TOOLCHAIN, "runner": "2"}, "ALL"),
        "compute unit ALL → CPU_ONLY": Epoch.of(PHONE.as_dict(), TOOLCHAIN, "CPU_ONLY"),
        "device iPhone16,1 → iPhone17,1": Epoch.of(
            replace(PHONE, model="iPhone17,1").as_dict(), TOOLCHAIN, "ALL"
        ),
        "another iPhone16,1": Epoch.of(replace(PHONE, identifier_hash="b2").as_dict(), TOOLCHAIN, "ALL"),
    }
    for said, after in changes.items():
        assert what_changed(before, after) == said
    assert len({before.key, *(after.key for after in changes.values())}) == len(changes) + 1


def test_records_and_judgements_survive_json() -> None:
    candidate = replace(
        run(noisy(1, 3), placement=ON_NE, confirming_from=2),
        failure=Failure(FailureCode.NO_ANSWER, "after 120 s"),
    )
    assert RunRecord.from_dict(json.loads(json.dumps(candidate.as_dict()))) == candidate
    found = judge_run(run(noisy(90, 12), placement=ON_CPU), accepted(placement=ON_NE), RULES)
    assert [Judgement.from_dict(json.loads(json.dumps(one.as_dict()))) for one in found] == found


def test_a_session_gives_one_value_a_metric() -> None:
    one = session(0, 10, samples_ms=tuple(float(n) for n in range(1, 12)), load_warm_ms=(3.0, 9.0, 4.0))
    assert session_value(one, Metric.LATENCY_P50) == 6
    assert session_value(one, Metric.LATENCY_P90) == 10
    assert session_value(one, Metric.LOAD_WARM) == 4
    assert session_value(replace(one, samples_ms=()), Metric.LATENCY_P50) is None
    assert session_value(one, Metric.PEAK_MEMORY) is None
    with pytest.raises(ValueError, match="size"):
        session_value(one, Metric.SIZE)
    assert set(STATISTICAL) < set(Metric)


def test_a_baseline_without_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="without runs"):
        BaselineRecord(())
