"""PASS only with evidence of everything; the other verdicts with their exact reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.disaster_recovery.fault_types import LinkFault
from fastvlm_ops.core.disaster_recovery.measuring import LostWrite, Measures
from fastvlm_ops.core.disaster_recovery.plan import STEPS, DrillPlan, StepResult
from fastvlm_ops.core.disaster_recovery.verdicts import Ending, judge, over_objective

DEFINITION: dict[str, Any] = {
    "objectives": {"rto_seconds": 60, "rpo_seconds": 0},
    "steady_state": [{"probe": "http", "path": "/readyz"}],
    "steps": {
        "simulate_failure": {"fault": "disturb_link"},
        "verify_failover": [{"check": "fault_visible"}, {"check": "requests_succeed"}],
        "restore_service": [{"action": "release_fault"}],
        "validate_recovery": [{"check": "instances_healthy"}, {"check": "canary_rows_equal"}],
    },
}
PLAN = DrillPlan(
    run_key="disaster_recovery_x/manual",
    fault_id="f",
    scenario="x",
    definition=DEFINITION,
    definition_hash="0",
    include_hash="0",
    dry_run=False,
    environment="demo",
    control="unix:control.sock",
    url="http://127.0.0.1:1",
    fault=LinkFault(control="unix:control.sock", link="replica-1", disturbance="reset"),
    time_to_live_seconds=60,
    instances_before=("replica-1", "replica-2"),
    folder="drill",
    host="here",
    planned_at="2026-11-30T12:00:00+00:00",
)
TEST = PLAN.model_copy(
    update={
        "fault": None,
        "definition": {
            "objectives": {"rto_seconds": 3600, "rpo_seconds": 604_800},
            "steps": {
                "restore_service": [{"action": "restore_to_scratch"}],
                "validate_recovery": [{"check": "components_sound"}],
            },
        },
    }
)
MEASURES = Measures(rto_seconds=1.25, detection_seconds=0.1, failover_seconds=1.15, rpo_seconds=0.0)
ENDING = Ending(fault="undone", steady_again=True, observed=True)


def passed(step: str, plan: DrillPlan = PLAN) -> StepResult:
    parts = plan.definition["steps"].get(step)
    names = [next(iter(part.values())) for part in parts] if isinstance(parts, list) else [step]
    checks = tuple({"name": name, "status": "passed"} for name in names)
    return StepResult(step=step, status="passed", summary="well", checks=checks)


ALL = [passed(step) for step in STEPS]


def with_step(result: StepResult) -> list[StepResult]:
    return [result if one.step == result.step else one for one in ALL]


def failed(step: str, *problems: str, status: str = "failed") -> StepResult:
    return StepResult.model_validate(
        {"step": step, "status": status, "summary": f"{step} is bad", "problems": problems}
    )


def test_all_is_well() -> None:
    assert judge(PLAN, ALL, MEASURES, ENDING) == (
        "PASS",
        "RTO 1.2 s of at most 60 s, RPO 0.0 s of at most 0 s; every step passed",
    )


def test_a_restore_test_needs_no_fault_and_no_observer() -> None:
    steps = [passed(step, TEST) for step in ("guard", "restore_service", "validate_recovery")]
    measures = Measures(rto_seconds=61, rpo_seconds=10_800)
    assert judge(TEST, steps, measures, Ending(fault="never_injected")) == (
        "PASS",
        "RTO 61.0 s of at most 3600 s, RPO 10800.0 s of at most 604800 s; every step passed",
    )
    verdict, reason = judge(TEST, steps[:2], measures, Ending(fault="never_injected"))
    assert (verdict, reason) == ("INCONCLUSIVE", "validate_recovery did not run")


@pytest.mark.parametrize(
    ("value", "objective", "text"),
    [
        (61.0, 60, "RTO 61.0 s is over the objective of 60 s"),
        (60.04, 60, "RTO 60.04 s is over the objective of 60 s"),
        (60.0000004, 60, "RTO 60.0000004 s is over the objective of 60 s"),
        (1.5, 0.25, "RTO 1.5 s is over the objective of 0.25 s"),
        (60.0, 60, None),
        (0.0, 0, None),
    ],
)
def test_over_an_objective(value: float, objective: float, text: str | None) -> None:
    assert over_objective("RTO", value, objective) == text
    verdict, reason = judge(
        PLAN.model_copy(
            update={"definition": {**DEFINITION, "objectives": {"rto_seconds": objective, "rpo_seconds": 0}}}
        ),
        ALL,
        MEASURES.model_copy(update={"rto_seconds": value}),
        ENDING,
    )
    assert (verdict, reason if text else None) == ("FAIL" if text else "PASS", text)


def test_lost_writes_are_over_an_objective_of_zero() -> None:
    lost = LostWrite(id="f-1", sent_seconds=-0.02, acknowledged_seconds=-0.01, what="missing")
    measures = MEASURES.model_copy(update={"rpo_seconds": 0.02, "lost": (lost,)})
    assert judge(PLAN, ALL, measures, ENDING) == (
        "FAIL",
        "RPO 0.02 s is over the objective of 0 s: 1 acknowledged write lost",
    )


def test_losses_within_the_objective_pass_and_are_said() -> None:
    lost = tuple(
        LostWrite(id=f"f-{n}", sent_seconds=-1.5, acknowledged_seconds=-1.4, what="missing") for n in (1, 2)
    )
    plan = PLAN.model_copy(
        update={"definition": {**DEFINITION, "objectives": {"rto_seconds": 60, "rpo_seconds": 5}}}
    )
    measures = MEASURES.model_copy(update={"rpo_seconds": 1.5, "lost": lost})
    assert judge(plan, ALL, measures, ENDING) == (
        "PASS",
        "RTO 1.2 s of at most 60 s, RPO 1.5 s of at most 5 s, 2 acknowledged writes lost; every step passed",
    )


Change = tuple[list[StepResult], Measures | None, Ending]
CASES: dict[str, tuple[Change, str, str]] = {
    "fault left": (
        (
            ALL,
            MEASURES,
            Ending(fault="left", detail="replica-1 is stopped", steady_again=True, observed=True),
        ),
        "FAIL",
        "the fault is still there: replica-1 is stopped",
    ),
    "fault left though aborted": (
        (
            with_step(failed("verify_failover", "too bad", status="aborted")),
            MEASURES,
            Ending(fault="left", detail="x"),
        ),
        "FAIL",
        "the fault is still there: x; too bad",
    ),
    "fault unknown": (
        (ALL, MEASURES, Ending(fault="unknown", detail="no answer", steady_again=True, observed=True)),
        "INCONCLUSIVE",
        "it is not known whether the fault is undone: no answer",
    ),
    "never injected": (
        (ALL, MEASURES, Ending(fault="never_injected", steady_again=True, observed=True)),
        "INCONCLUSIVE",
        "the fault was never injected",
    ),
    "refused": (
        ([failed("guard", "the target says that it is production", status="refused")], None, ENDING),
        "REFUSED",
        "the target says that it is production",
    ),
    "refused just before": (
        (
            [passed("guard"), failed("simulate_failure", status="refused"), passed("undo_fault")],
            None,
            Ending(fault="never_injected"),
        ),
        "REFUSED",
        "simulate_failure is bad",
    ),
    "aborted": (
        (
            [*ALL[:2], failed("verify_failover", "canary failed for 5 s", status="aborted"), ALL[-1]],
            MEASURES.model_copy(update={"rto_seconds": None, "problems": ("the service did not recover",)}),
            ENDING,
        ),
        "ABORTED",
        "canary failed for 5 s",
    ),
    "aborted and not undone cleanly": (
        (
            [failed("verify_failover", "bad", status="aborted"), failed("undo_fault", "the observer stays")],
            None,
            Ending(fault="unknown"),
        ),
        "ABORTED",
        "bad; undo_fault failed: the observer stays; it is not known whether the fault is undone",
    ),
    "a step failed": (
        (with_step(failed("validate_recovery", "row 7 differs", "row 9 is missing")), MEASURES, ENDING),
        "FAIL",
        "validate_recovery failed: row 7 differs; row 9 is missing",
    ),
    "a step failed and another is unclear": (
        ([failed("verify_failover")], None, ENDING),
        "FAIL",
        "verify_failover failed: verify_failover is bad",
    ),
    "a step is inconclusive": (
        (with_step(failed("restore_service", "no answer", status="inconclusive")), MEASURES, ENDING),
        "INCONCLUSIVE",
        "restore_service is inconclusive: no answer",
    ),
    "a step did not run": ((ALL[:-1], MEASURES, ENDING), "INCONCLUSIVE", "undo_fault did not run"),
    "a step has no evidence": (
        (with_step(StepResult(step="undo_fault", status="passed", summary="well")), MEASURES, ENDING),
        "INCONCLUSIVE",
        "undo_fault has no evidence",
    ),
    "a check has no evidence": (
        (
            with_step(
                passed("verify_failover").model_copy(
                    update={"checks": ({"name": "requests_succeed", "status": "passed"},)}
                )
            ),
            MEASURES,
            ENDING,
        ),
        "INCONCLUSIVE",
        "verify_failover has no evidence of fault_visible",
    ),
    "a passed step with a failed check": (
        (
            with_step(
                passed("restore_service").model_copy(
                    update={"checks": ({"name": "release_fault", "status": "failed"},)}
                )
            ),
            MEASURES,
            ENDING,
        ),
        "INCONCLUSIVE",
        "restore_service passed, but its release_fault is failed;"
        " restore_service has no evidence of release_fault",
    ),
    "nothing measured": ((ALL, None, ENDING), "INCONCLUSIVE", "RTO and RPO were not measured"),
    "RPO not measured": (
        (
            ALL,
            MEASURES.model_copy(
                update={"rpo_seconds": None, "unknowns": ("RPO was not measured: the canary is dead",)}
            ),
            ENDING,
        ),
        "INCONCLUSIVE",
        "RPO was not measured: the canary is dead",
    ),
    "RTO not measured, and nobody says why": (
        (ALL, MEASURES.model_copy(update={"rto_seconds": None}), ENDING),
        "INCONCLUSIVE",
        "RTO was not measured",
    ),
    "not recovered": (
        (
            ALL,
            MEASURES.model_copy(update={"rto_seconds": None, "problems": ("the service did not recover",)}),
            ENDING,
        ),
        "FAIL",
        "the service did not recover",
    ),
    "not steady again": (
        (ALL, MEASURES, Ending(fault="undone", steady_again=False, observed=True)),
        "FAIL",
        "the steady state does not hold again",
    ),
    "steadiness not looked at": (
        (ALL, MEASURES, Ending(fault="undone", observed=True)),
        "INCONCLUSIVE",
        "it was not looked at whether the steady state holds again",
    ),
    "the observer died": (
        (ALL, MEASURES, Ending(fault="undone", steady_again=True, observed=False)),
        "INCONCLUSIVE",
        "the observer did not run to the end",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_verdicts_and_their_reasons(name: str) -> None:
    (steps, measures, ending), verdict, reason = CASES[name]
    assert judge(PLAN, steps, measures, ending) == (verdict, reason)


def test_a_dry_run_proves_nothing() -> None:
    plan = PLAN.model_copy(update={"dry_run": True})
    assert judge(plan, ALL, MEASURES, ENDING) == (
        "INCONCLUSIVE",
        "a dry run: nothing was broken, and so nothing was proven",
    )


STATUSES = st.sampled_from(["passed", "failed", "inconclusive", "aborted", "refused", "dry_run"])
SECONDS = st.none() | st.floats(0, 120)


@given(
    statuses=st.lists(STATUSES, min_size=len(STEPS), max_size=len(STEPS)) | st.just(["passed"] * len(STEPS)),
    absent=st.sets(st.sampled_from(STEPS), max_size=1),
    rto=SECONDS,
    rpo=SECONDS | st.just(0.0),
    fault=st.sampled_from(["undone", "never_injected", "left", "unknown"]),
    steady=st.sampled_from([True, False, None]),
    observed=st.sampled_from([True, False, None]),
    evidence=st.booleans(),
)
def test_pass_needs_everything(
    statuses: list[str],
    absent: set[str],
    rto: float | None,
    rpo: float | None,
    fault: Any,
    steady: bool | None,
    observed: bool | None,
    evidence: bool,
) -> None:
    steps = [
        passed(step).model_copy(update={"status": status, **({} if evidence else {"checks": ()})})
        for step, status in zip(STEPS, statuses, strict=True)
        if step not in absent
    ]
    measures = Measures(rto_seconds=rto, rpo_seconds=rpo)
    ending = Ending(fault=fault, steady_again=steady, observed=observed)
    verdict, reason = judge(PLAN, steps, measures, ending)
    holds: list[Callable[[], bool]] = [
        lambda: set(statuses) == {"passed"},
        lambda: not absent and evidence,
        lambda: rto is not None and rto <= 60 and rpo == 0,
        lambda: fault == "undone" and steady is True and observed is True,
    ]
    assert (verdict == "PASS") == all(hold() for hold in holds)
    assert reason
    if fault == "left":
        assert verdict == "FAIL"
