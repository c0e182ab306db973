"""All that is said of one run of the DAG: a judgement a metric, and one verdict for each model and device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.baselines import Subject, accepted_digests, history, load_baseline_of, subject_of
from fastvlm_ops.core.coreml.changepoints import Night
from fastvlm_ops.core.coreml.devices.interface import Failure, FailureCode
from fastvlm_ops.core.coreml.false_discovery import control_false_discovery
from fastvlm_ops.core.coreml.judging import judge_run
from fastvlm_ops.core.coreml.promoting import standing_of, worst_of
from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.storing import RunId, load_run, record_verdicts, runs_of
from fastvlm_ops.core.coreml.verdicts import Judgement, Verdict

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import CompareRules
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore

#: By device, what was planned: model, version, digest and compute unit of each; None where nothing could be.
Plans = Mapping[str, Sequence[Mapping[str, Any]] | None]
_LISTED = 50


def weigh_run(
    store: Store, artefacts: ArtefactStore, rules: CompareRules, *, run_key: str, plans: Plans
) -> dict[str, Any]:
    """Judge all that a run has measured, and record it. What was planned and has no result is judged too.

    :param store: the operations database
    :param artefacts: where the samples are
    :param rules: what counts as worse
    :param run_key: ``<dag id>/<run id>``
    :param plans: what should have been measured
    :returns: small JSON: ``runs`` with a verdict each, ``verdicts`` how many there are of each, ``left_out``
        which devices had nothing to run, ``problems`` a text for each that stops a release, or is MISSING
    """
    measured = list(_measured(store, artefacts, run_key, plans))
    judged = []
    for record, golden_id in measured:
        baseline = load_baseline_of(store, artefacts, record, rules, golden_id=golden_id)
        judged += judge_run(record, baseline, rules, history=_nights(store, record))
    judged = control_false_discovery(judged, rules.false_discovery_rate)
    record_verdicts(store, run_key, judged)
    runs = _hold_back([_summary(store, record, judged) for record, _ in measured])
    return {
        "run_key": run_key,
        "verdicts": dict(sorted(Counter(run["verdict"] for run in runs).items())),
        "runs": runs,
        "left_out": [device for device, planned in plans.items() if not planned],
        "problems": [_problem(one, runs) for one in _problems(judged)[:_LISTED]],
    }


def name_of(run: Mapping[str, Any]) -> str:
    """Return how a person calls a run.

    :param run: of ``runs`` of :func:`weigh_run`
    """
    return f"{run['model']} {run['version']} on {run['device']} ({run['compute_unit']})"


def accepted_models(weighed: Mapping[str, Any], accepted: set[str]) -> list[dict[str, str]]:
    """Return the models that are accepted on every device: one that objects, or was left out, is enough.

    :param weighed: result of :func:`weigh_run`
    :param accepted: names of the runs that are accepted
    """
    models: list[dict[str, str]] = []
    if weighed["left_out"]:
        return models
    runs = weighed["runs"]
    for name in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == name]
        if all(name_of(run) in accepted for run in own):
            models.append({"model": name, "version": own[0]["version"], "digest": own[0]["digest"]})
    return models


def _measured(
    store: Store, artefacts: ArtefactStore, run_key: str, plans: Plans
) -> Iterator[tuple[RunRecord, str]]:
    """What was measured, and what should have been; each with the id of its golden outputs."""
    rows = {RunId.of_row(row): row for row in runs_of(store, run_key)}
    for device, planned in plans.items():
        for one in planned or ():
            row = rows.get(RunId(run_key, device, one["model"], one["compute_unit"]))
            if row is None:
                yield _absent(run_key, device, one), ""
            else:
                yield load_run(store, artefacts, row), row["golden_id"] or ""


def _nights(store: Store, record: RunRecord) -> list[Night]:
    """All that was measured before a run, oldest first."""
    began = datetime.fromisoformat(record.started_at)
    return [
        Night(point.latency_p50_ms, point.epoch, point.run.run_key)
        for point in history(store, subject_of(record))
        if point.measured_at < began and point.run.run_key != record.run_key
    ]


def _absent(run_key: str, device: str, planned: Mapping[str, Any]) -> RunRecord:
    """What was planned, and of which its task has left nothing."""
    detail = f"the task benchmark_{device} ended without a result; see its log"
    return RunRecord(
        run_key=run_key,
        device={"name": device},
        model=planned["model"],
        version=planned["version"],
        digest=planned["digest"],
        compute_unit=planned["compute_unit"],
        epoch="",
        hardware_class="",
        failure=Failure(FailureCode.INTERNAL, detail),
        started_at=datetime.now(UTC).isoformat(),
    )


def _summary(store: Store, record: RunRecord, judged: Sequence[Judgement]) -> dict[str, Any]:
    subject = subject_of(record)
    own = [one for one in judged if Subject(one.device, one.model, one.compute_unit) == subject]
    standing = standing_of(record, own, accepted_digests(store, subject, without=record.run_key))
    return {
        "device": subject.device,
        "model": subject.model,
        "version": record.version,
        "digest": record.digest,
        "compute_unit": subject.compute_unit,
        "hardware_class": record.hardware_class,
        "verdict": str(worst_of(own)),
        "complete": record.failure is None and bool(record.good_sessions),
        "green": standing.green,
        "reason": standing.reason,
    }


def _hold_back(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let no run of a package be green that is worse, or failed, on another device or unit."""
    worse = {
        run["digest"]: name_of(run) for run in runs if run["verdict"] in (Verdict.REGRESSION, Verdict.FAILED)
    }
    return [
        {**run, "green": False, "reason": f"worse elsewhere: {worse[run['digest']]}"}
        if run["green"] and run["digest"] in worse
        else run
        for run in runs
    ]


def _problems(judged: Sequence[Judgement]) -> list[Judgement]:
    """What stops a release, and what is missing, which a policy may let pass: so that comes last."""
    order = [Verdict.FAILED, Verdict.REGRESSION, Verdict.MISSING]
    found = [one for one in judged if one.gate and one.verdict in order]
    return sorted(found, key=lambda one: order.index(one.verdict))


def _problem(judgement: Judgement, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the gate says of it: model, device, metric, size of the change, confidence."""
    where = ("device", "model", "compute_unit")
    run = next(one for one in runs if all(one[name] == getattr(judgement, name) for name in where))
    change = "" if judgement.change is None else f" {judgement.change:+.1%}"
    return {
        "verdict": str(judgement.verdict),
        "run": name_of(run),
        "text": f"{judgement.verdict}: {judgement.model} on {judgement.device} ({judgement.compute_unit}):"
        f" {judgement.metric}{change}{_confidence(judgement)}: {judgement.reason}",
    }


def _confidence(judgement: Judgement) -> str:
    """As a person reads it: what is not exact is never certain."""
    if judgement.confidence is None:
        return ""
    if judgement.p_value is None:
        return ", exact"
    above = judgement.confidence > 0.999
    return ", confidence above 99.9%" if above else f", confidence {judgement.confidence:.1%}"
