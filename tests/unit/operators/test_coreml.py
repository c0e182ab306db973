"""The Core ML operators without a scheduler: what is asked, promoted, and told by the gate; retries."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from fastvlm_ops.core.config import load_coreml
from fastvlm_ops.core.coreml.devices.interface import Device, SessionPlan, SessionResult
from fastvlm_ops.core.coreml.devices.linux_reference import LinuxReferenceBackend
from fastvlm_ops.core.coreml.watching import packages_signature
from fastvlm_ops.core.coreml.weighing import accepted_models
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import coreml as tables
from fastvlm_ops.operators.coreml import (
    ApprovePromotionOperator,
    BenchmarkModelOperator,
    DiscoverModelsOperator,
    InspectModelOperator,
    PlanBenchmarksOperator,
    PromoteBaselineOperator,
    RegressionGateOperator,
)
from fastvlm_ops.operators.coreml.verdicts import request_text
from fastvlm_ops.triggers.watching import SIGNATURE_KEY
from tests.coreml_stack import Models
from tests.unit.operators.support import Context, failure


def run_of(model: str = "VisionEncoder", device: str = "phone", **changes: Any) -> dict[str, Any]:
    return {
        "device": device,
        "model": model,
        "version": "2",
        "digest": "d" * 64,
        "compute_unit": "ALL",
        "hardware_class": "iphone",
        "verdict": "REGRESSION",
        "complete": True,
        "green": False,
        "reason": "latency_p50 REGRESSION",
        **changes,
    }


GREEN = run_of(model="TextDecoder", verdict="OK", green=True, reason="nothing got worse")
RED, MISSING = run_of(), run_of(device="pad", verdict="MISSING", complete=False)
COMPARED = {
    "run_key": "dag/run",
    "verdicts": {"OK": 1, "REGRESSION": 1},
    "runs": [GREEN, RED, MISSING],
    "left_out": [],
    "problems": [],
}


def approve(promote: str, compared: Any = COMPARED) -> ApprovePromotionOperator:
    return ApprovePromotionOperator(task_id="approve", compared=compared, promote=promote)


@pytest.mark.parametrize(
    ("promote", "compared"),
    [("green", COMPARED), ("none", COMPARED), ("ask", {**COMPARED, "runs": [GREEN, MISSING]})],
)
def test_nobody_is_asked_without_need(promote: str, compared: Any) -> None:
    answer = approve(promote, compared).execute(Context())
    assert (answer["needed"], answer["approved"], answer["by"]) == (False, False, None)


def test_the_question_names_what_was_measured_and_is_not_green() -> None:
    text = request_text(COMPARED)
    assert "| VisionEncoder | 2 | phone | ALL | **REGRESSION** | latency_p50 REGRESSION |" in text
    assert "TextDecoder" not in text
    assert "pad" not in text, "what was not measured cannot be compared with"
    many = {**COMPARED, "runs": [RED] * 60}
    assert "and 10 more" in request_text(many)


@pytest.mark.parametrize(
    ("event", "approved", "by"),
    [
        ({"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "Ada"}}, True, "Ada"),
        ({"chosen_options": ["Reject"], "responded_by_user": {"id": "1", "name": "Ada"}}, False, "Ada"),
        ({"chosen_options": ["Reject"], "responded_by_user": None, "timedout": True}, False, None),
    ],
)
def test_an_answer_is_taken_and_skips_nothing(event: dict[str, Any], approved: bool, by: str | None) -> None:
    answer_at = datetime(2026, 1, 4, tzinfo=UTC)
    event = {"timedout": False, "params_input": {}, "responded_at": answer_at, **event}
    answer = approve("ask").execute_complete(Context(), event)
    assert (answer["needed"], answer["approved"], answer["by"]) == (True, approved, by)


def test_a_model_is_accepted_on_every_device_or_not_at_all() -> None:
    runs = [run_of(device="phone"), run_of(device="pad")]
    names = {f"VisionEncoder 2 on {device} (ALL)" for device in ("phone", "pad")}
    weighed = {"runs": runs, "left_out": []}
    assert [one["model"] for one in accepted_models(weighed, names)] == ["VisionEncoder"]
    assert accepted_models(weighed, {"VisionEncoder 2 on pad (ALL)"}) == []
    assert accepted_models({**weighed, "left_out": ["mac"]}, names) == []


def problem(verdict: str, text: str) -> dict[str, str]:
    return {"verdict": verdict, "run": "VisionEncoder 2 on phone (ALL)", "text": text}


def gate(**changes: Any) -> RegressionGateOperator:
    values = {
        "discovered": [{"model": "VisionEncoder", "version": "2"}],
        "inspected": [{"model": "VisionEncoder"}],
        "compared": {**COMPARED, "problems": []},
        "promoted": {"accepted": [], "models": []},
        **changes,
    }
    return RegressionGateOperator(task_id="gate", **values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"discovered": None}, "no model was found"),
        ({"compared": None}, "nothing was compared"),
        ({"compared": {**COMPARED, "runs": []}}, "nothing was compared"),
        ({"inspected": []}, "VisionEncoder 2: its package is refused"),
        ({"compared": {**COMPARED, "problems": [problem("FAILED", "it crashed")]}}, "it crashed"),
        ({"compared": {**COMPARED, "problems": [problem("MISSING", "gone")]}}, "gone"),
        ({"promoted": None}, "the baseline was not promoted"),
    ],
)
def test_the_gate_fails_unless_all_is_known_and_well(models: Models, changes: Any, said: str) -> None:
    assert said in failure(gate(**changes))


def test_the_gate_opens(models: Models) -> None:
    assert gate().execute(Context()) == {"verdicts": COMPARED["verdicts"], "models": []}
    models.define(missing_devices="warn")
    worse = {**COMPARED, "problems": [problem("REGRESSION", "slower")]}
    gate(compared=worse, promoted={"accepted": ["VisionEncoder 2 on phone (ALL)"], "models": []}).execute(
        Context()
    )
    missing = {**COMPARED, "problems": [problem("MISSING", "gone")]}
    gate(compared=missing).execute(Context())


def test_what_cannot_be_told_apart_or_is_not_there_is_said_where_it_is_looked_into(models: Models) -> None:
    (models.folder / "VisionEncoder-v2 (copy).mlpackage").mkdir()
    shutil.rmtree(models.folder / "TextDecoder-v1.mlpackage")
    context = Context()
    odd, absent = DiscoverModelsOperator(task_id="discover").execute(context)
    assert context.stored == {}, "a run that saw not all of it lets the watcher tell it again"
    said = failure(InspectModelOperator(task_id="inspect", package=odd))
    assert "v2 (copy).mlpackage: '2 (copy)' cannot be a version" in said
    said = failure(InspectModelOperator(task_id="inspect", package=absent))
    assert "there is no package of the model" in said


def test_the_watcher_is_told_what_was_looked_at(models: Models) -> None:
    context = Context()
    DiscoverModelsOperator(task_id="discover", models=["TextDecoder"]).execute(context)
    assert context.stored == {}, "the other model is still to be looked at"
    DiscoverModelsOperator(task_id="discover").execute(context)
    root = models.folder.parent
    assert context.stored == {SIGNATURE_KEY: packages_signature(load_coreml(models.include), root)}


def test_a_device_is_planned_with_its_own_units(models: Models) -> None:
    device = {"name": "linux-reference", "backend": "linux-reference", "compute_units": ["CPU_AND_NE"]}
    models.define(devices=[device, {"name": "second", "backend": "linux-reference"}])
    inspected = [{"model": "TextDecoder", "version": "1", "digest": "d" * 64}]

    def plan(device: str, **more: Any) -> Any:
        operator = PlanBenchmarksOperator(task_id="plan", device=device, models=inspected, **more)
        return operator.execute(Context())

    entry = {"model": "TextDecoder", "version": "1", "digest": "d" * 64, "compute_unit": "CPU_AND_NE"}
    assert plan("linux-reference") == [entry]
    assert plan("second", devices=["linux-reference"]) == []
    operator = PlanBenchmarksOperator(task_id="plan", device="second", models=inspected, devices=["pad"])
    assert "none named 'pad'" in failure(operator)
    nothing = PlanBenchmarksOperator(task_id="plan", device="second", models=[])
    assert "no package could be inspected" in failure(nothing)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packages of all sessions that were run."""
    run, packages = LinuxReferenceBackend.run_session, []

    def run_session(self: Any, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        packages.append(plan.package.name)
        return run(self, device, plan, scratch)

    monkeypatch.setattr(LinuxReferenceBackend, "run_session", run_session)
    return packages


@pytest.fixture
def planned(models: Models) -> dict[str, Any]:
    (entry,) = DiscoverModelsOperator(task_id="discover", models=["TextDecoder"]).execute(Context())
    inspected = InspectModelOperator(task_id="inspect", package=entry).execute(Context())
    operator = PlanBenchmarksOperator(task_id="plan", device="linux-reference", models=[inspected])
    (one,) = operator.execute(Context())
    return one


def benchmark(planned: Any, context: Context | None = None) -> Any:
    operator = BenchmarkModelOperator(task_id="run", device="linux-reference", planned=planned)
    return operator.execute(context or Context())


def test_an_attempt_after_one_that_was_recorded_measures_nothing(
    planned: dict[str, Any], sessions: list[str], tmp_path: Path
) -> None:
    first, again = benchmark(planned), benchmark(planned)
    assert (first["reused"], again["reused"]) == (False, True)
    assert {**first, "reused": None} == {**again, "reused": None}
    assert sessions == ["TextDecoder-v1.mlpackage"] * 2
    assert first["sessions"] == 2
    assert benchmark(planned, Context(run_id="other"))["reused"] is False
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}") as store, store.read() as connection:
        assert connection.execute(select(func.count()).select_from(tables.runs)).scalar_one() == 2
        assert connection.execute(select(func.count()).select_from(tables.sessions)).scalar_one() == 4


def test_another_package_on_the_worker_is_not_measured(
    planned: dict[str, Any], models: Models, sessions: list[str]
) -> None:
    operator = BenchmarkModelOperator(
        task_id="run", device="linux-reference", planned={**planned, "digest": "0" * 64}
    )
    assert "is another one on this worker" in failure(operator)
    operator.planned = {**planned, "version": "7"}
    assert "version 7 of TextDecoder is not there on this worker" in failure(operator)
    assert sessions == []


def test_damaged_golden_outputs_are_no_reason_to_go_without(
    planned: dict[str, Any], models: Models, sessions: list[str]
) -> None:
    (models.folder / "TextDecoder.golden" / "outputs.npz").write_bytes(b"damaged")
    operator = BenchmarkModelOperator(task_id="run", device="linux-reference", planned=planned)
    assert "outputs.npz" in failure(operator)
    assert sessions == []


def test_nothing_is_promoted_where_the_form_says_so(models: Models) -> None:
    operator = PromoteBaselineOperator(task_id="promote", compared=COMPARED, decision=None, promote="none")
    assert operator.execute(Context()) == {"accepted": [], "models": []}
