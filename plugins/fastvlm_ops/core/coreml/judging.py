"""What is said of a run: every metric of it held against the accepted baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import Any

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.changepoints import Night, find_change_points
from fastvlm_ops.core.coreml.comparing import Comparison, compare_metric, sessions_to_add
from fastvlm_ops.core.coreml.devices.interface import FailureCode, HardwareClass, Placement
from fastvlm_ops.core.coreml.epochs import epoch_of, what_changed
from fastvlm_ops.core.coreml.gates import (
    judge_compression,
    judge_flops,
    judge_parity,
    judge_placement,
    judge_size,
)
from fastvlm_ops.core.coreml.records import BaselineRecord, RunRecord
from fastvlm_ops.core.coreml.turns import judge_turns
from fastvlm_ops.core.coreml.verdicts import Finding, Judgement, Metric, Verdict

TIMES = (Metric.LATENCY_P50, Metric.LATENCY_P90, Metric.LOAD_COLD, Metric.LOAD_WARM)
STATISTICAL = (*TIMES, Metric.PEAK_MEMORY)

# The device's trouble, or the worker's: nothing is said of the model.
_NOT_THE_MODEL = frozenset(
    {
        FailureCode.NO_TOOLCHAIN,
        FailureCode.DEVICE_MISSING,
        FailureCode.DEVICE_DISCONNECTED,
        FailureCode.DEVELOPER_MODE_OFF,
        FailureCode.NOT_READY,
        FailureCode.SIGNING_FAILED,
        FailureCode.BUILD_FAILED,
        FailureCode.INSTALL_FAILED,
    }
)
# Of the sessions that were tried, so many may fail by the device's fault; by the model's, only a single one.
_FAILED_SHARE = 0.25
_HOT = frozenset({"serious", "critical"})


@dataclass(frozen=True)
class _Comparable:
    """The accepted runs that a candidate may be compared with.

    :param runs: of its epoch, oldest first
    :param reason: why there are none
    """

    runs: tuple[RunRecord, ...]
    reason: str = ""


def judge_run(
    candidate: RunRecord,
    baseline: BaselineRecord | None,
    rules: CompareRules,
    *,
    history: Sequence[Night] = (),
) -> list[Judgement]:
    """Return one judgement a metric. What neither side knows, as memory on some devices, is not judged.

    Judgements of all of a run's models and devices then go through
    :func:`~fastvlm_ops.core.coreml.false_discovery.control_false_discovery` together.

    :param candidate: the new run
    :param baseline: what was accepted before it, or None
    :param rules: what counts as worse
    :param history: p50 of the sessions of earlier nights, oldest first, without the candidate; for the trend
    """
    comparable = _comparable(candidate, baseline)
    findings: dict[Metric, Finding | None] = {Metric.STATUS: judge_status(candidate)}
    for metric in STATISTICAL:
        findings[metric] = _judge_statistical(metric, candidate, comparable, rules)
    accepted_run = None if baseline is None else baseline.newest.run_key
    findings[Metric.LATENCY_TREND] = judge_trend(candidate, history, accepted_run, rules)
    findings[Metric.LATENCY_TURNS] = None if candidate.turns is None else judge_turns(candidate.turns, rules)
    findings[Metric.PLACEMENT] = _judge_placement(candidate, comparable, rules)
    findings[Metric.PARITY] = _judge_parity(candidate, comparable, rules)
    findings |= _judge_package(candidate, None if baseline is None else baseline.newest, rules)
    return [
        _judgement(candidate, metric, finding) for metric, finding in findings.items() if finding is not None
    ]


def wanted_sessions(candidate: RunRecord, baseline: BaselineRecord | None, rules: CompareRules) -> int:
    """Return how many sessions more a first look asks for, so that a suspicion is confirmed or dropped.

    :param candidate: the run so far
    :param baseline: what was accepted before it, or None
    :param rules: what counts as worse
    """
    runs = _comparable(candidate, baseline).runs
    wanted = 0
    for metric in STATISTICAL if runs else ():
        before = _last_sessions(runs, metric, rules)
        found = candidate.values(metric)
        if before and found and _counts(candidate, metric):
            wanted = max(wanted, sessions_to_add(before, found, rules, effect=_effect(metric, rules)))
    return wanted


def judge_status(run: RunRecord) -> Finding:
    """Tell whether the run gave results, and if not, whether the device or the model is at fault.

    :param run: the run
    """
    failures = [one.failure for one in run.sessions if one.failure is not None]
    tried, good = len(run.sessions), len(run.good_sessions)
    details = {"sessions": tried, "failures": dict(Counter(str(one.code) for one in failures))}
    said = f"{good} of {tried} sessions gave results"
    cause = run.failure or (Counter(failures).most_common(1)[0][0] if failures else None)
    if cause is None and good:
        return Finding(verdict=Verdict.OK, value=float(good), reason=said, details=details)
    if cause is None:
        return Finding(verdict=Verdict.MISSING, value=0.0, reason="no session was run", details=details)
    reason = f"{said}; {cause.code}: {cause.detail}"
    innocent = cause.code in _NOT_THE_MODEL
    few = len(failures) == 1 or (innocent and len(failures) <= _FAILED_SHARE * tried)
    verdict = Verdict.MISSING if innocent else Verdict.FAILED
    if few and good and run.failure is None:
        verdict = Verdict.UNSTABLE
    return Finding(verdict=verdict, value=float(good), reason=reason, details=details)


def judge_trend(
    candidate: RunRecord, history: Sequence[Night], accepted_run: str | None, rules: CompareRules
) -> Finding | None:
    """Tell whether the nightly history makes it certain that the level changed since the last acceptance.

    It sees what a comparison with the last accepted sessions cannot: steps that are each too small. A change
    stands until a run after it is accepted.

    :param candidate: the new run
    :param history: p50 of the sessions of earlier nights, oldest first
    :param accepted_run: key of the run that was accepted last
    :param rules: what counts as a change
    """
    tonight = tuple(candidate.values(Metric.LATENCY_P50))
    if not tonight or not history:
        return None
    nights = [*history, Night(tonight, candidate.epoch, candidate.run_key)]
    accepted = [index for index, night in enumerate(history) if night.run_key == accepted_run]
    since = accepted[-1] if accepted else len(history) - 1
    changes = find_change_points(nights, rules)
    fresh = [one for one in changes if one.found_at > since]
    details = {"nights": len(nights), "change_points": [_fields(one) for one in changes]}
    change = fresh[-1].after / fresh[0].before - 1 if fresh else 0.0
    gate = _counts(candidate, Metric.LATENCY_TREND)
    if abs(change) < rules.minimum_effect:
        reason = f"no new change in {len(nights)} nights"
        return Finding(verdict=Verdict.OK, reason=reason, gate=gate, details=details)
    p_value = max(one.p_value for one in fresh) / 2  # one-sided, as all others are
    return Finding(
        verdict=Verdict.REGRESSION if change > 0 else Verdict.IMPROVEMENT,
        baseline_value=fresh[0].before,
        value=fresh[-1].after,
        change=change,
        p_value=p_value,
        confidence=1 - p_value,
        reason=f"{change:+.1%} for {len(nights) - fresh[0].index} nights now",
        gate=gate,
        details=details,
    )


def _comparable(candidate: RunRecord, baseline: BaselineRecord | None) -> _Comparable:
    if baseline is None:
        return _Comparable((), "nothing was accepted yet")
    runs = baseline.of_epoch(candidate.epoch)
    if runs:
        return _Comparable(runs)
    changed = what_changed(epoch_of(baseline.newest), epoch_of(candidate))
    return _Comparable((), f"new epoch: {changed or 'the device or its tools are not those of the baseline'}")


def _judge_statistical(
    metric: Metric, candidate: RunRecord, comparable: _Comparable, rules: CompareRules
) -> Finding | None:
    first, confirming = candidate.values_of_looks(metric)
    before = _last_sessions(comparable.runs, metric, rules)
    if not (first or confirming or before):
        return None
    gate = _counts(candidate, metric)
    if not before:
        reason = comparable.reason or "the accepted runs did not tell it"
        value = median([*first, *confirming])
        return Finding(verdict=Verdict.INSUFFICIENT, value=value, reason=reason, gate=gate)
    found = compare_metric(
        before,
        first,
        rules,
        confirming=confirming,
        effect=_effect(metric, rules),
        nights=[run.values(metric) for run in comparable.runs],
    )
    hot = sum(one.conditions.thermal_end in _HOT for one in candidate.good_sessions)
    if found.change is not None and hot > rules.unstable_share * len(candidate.good_sessions):
        reason = f"{hot} of {len(candidate.good_sessions)} sessions ended on a hot device: {found.reason}"
        found = replace(found, verdict=Verdict.UNSTABLE, reason=reason)
    return replace(_finding(found), gate=gate)


def _finding(found: Comparison) -> Finding:
    return Finding(
        verdict=found.verdict,
        baseline_value=found.baseline_value,
        value=found.candidate_value,
        change=found.change,
        p_value=found.p_value,
        confidence=None if found.p_value is None else 1 - found.p_value,
        reason=found.reason,
        details={
            "low": found.low,
            "high": found.high,
            "n_baseline": found.n_baseline,
            "n_candidate": found.n_candidate,
            "left_out": list(found.left_out),
        },
    )


def _last_sessions(runs: Sequence[RunRecord], metric: Metric, rules: CompareRules) -> list[float]:
    """Values of the last sessions of the accepted runs, oldest first."""
    return [value for run in runs for value in run.values(metric)][-rules.baseline_sessions :]


def _judge_placement(candidate: RunRecord, comparable: _Comparable, rules: CompareRules) -> Finding | None:
    after = _placement(candidate)
    before = next((found for run in reversed(comparable.runs) if (found := _placement(run))), ())
    if not after:
        return None
    if not before:
        reason = comparable.reason or "the accepted runs have no plan"
        return Finding(verdict=Verdict.INSUFFICIENT, reason=reason)
    return judge_placement(before, after, rules)


def _placement(run: RunRecord) -> tuple[Placement, ...]:
    """A run's plan, of its first session that has one."""
    return next((one.placement for one in run.good_sessions if one.placement), ())


def _judge_package(
    candidate: RunRecord, accepted: RunRecord | None, rules: CompareRules
) -> dict[Metric, Finding | None]:
    """What is judged whatever the device and its system: the package."""
    before = {} if accepted is None else accepted.inspection or {}
    after = candidate.inspection
    if not after:
        return {}
    return {
        Metric.SIZE: judge_size(before.get("size_bytes"), after.get("size_bytes"), rules),
        Metric.FLOPS: judge_flops(before.get("flops"), after.get("flops")),
        Metric.COMPRESSION: judge_compression(before or None, after),
    }


def _judge_parity(candidate: RunRecord, comparable: _Comparable, rules: CompareRules) -> Finding | None:
    """Drift is told within an epoch; NaN, and a PSNR that is too low, in any."""
    if candidate.parity is None:
        return None
    before = next((run.parity for run in reversed(comparable.runs) if run.parity is not None), None)
    return judge_parity(before, candidate.parity, rules)


def _effect(metric: Metric, rules: CompareRules) -> float:
    if metric in (Metric.LOAD_COLD, Metric.LOAD_WARM):
        return rules.load_effect
    return rules.memory_growth if metric is Metric.PEAK_MEMORY else rules.minimum_effect


def _counts(run: RunRecord, metric: Metric) -> bool:
    """Whether a verdict counts for the release: times on what is no Apple hardware only inform."""
    times = (*TIMES, Metric.LATENCY_TREND)
    return not (run.hardware_class == HardwareClass.LINUX_REFERENCE and metric in times)


def _fields(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _judgement(run: RunRecord, metric: Metric, finding: Finding) -> Judgement:
    return Judgement(run.device_name, run.model, run.compute_unit, metric, **_fields(finding))
