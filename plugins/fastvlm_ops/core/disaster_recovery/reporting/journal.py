"""A drill in the form of Chaos Toolkit's journal, for programs that read those."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastvlm_ops.core.disaster_recovery.drills import StepRow
from fastvlm_ops.core.disaster_recovery.reporting.hit import describe_hit
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord

_STATUS = {
    "PASS": "completed",
    "FAIL": "failed",
    "INCONCLUSIVE": "failed",  # Chaos Toolkit has no word for it, and what is not known has not passed
    "ABORTED": "aborted",
    "REFUSED": "aborted",
}
_STEADY, _METHOD, _ROLLBACK = (
    "guard",
    ("simulate_failure", "verify_failover", "restore_service"),
    "undo_fault",
)


def make_journal(record: DrillRecord) -> dict[str, Any]:
    """Return the journal of a drill.

    :param record: of the drill, with its verdict
    """
    drill, steps = record.drill, record.drill.steps
    verdict = drill.verdict or "INCONCLUSIVE"
    return {
        "chaoslib-version": "fastvlm-ops",
        "platform": "",
        "node": record.plan.host,
        "experiment": _experiment(record),
        "start": _time(record.planned_at),
        "end": _time(record.ended_at),
        "duration": (record.ended_at - record.planned_at).total_seconds(),
        "status": _STATUS.get(verdict, "failed"),
        "deviated": verdict != "PASS",
        "steady_states": {
            "before": _steady(steps.get(_STEADY)),
            "after": _steady(steps.get("validate_recovery")),
            "during": [],
        },
        "run": [one for name in _METHOD if name in steps for one in _activities(name, steps[name])],
        "rollbacks": _activities(_ROLLBACK, steps[_ROLLBACK]) if _ROLLBACK in steps else [],
    }


def _experiment(record: DrillRecord) -> dict[str, Any]:
    definition = record.plan.definition
    steps = definition.get("steps") or {}
    method: list[dict[str, Any]] = []
    if record.plan.fault is not None:
        method.append(_activity("action", describe_hit(record.plan.fault), steps.get("simulate_failure")))
    for name, kind, key in (("verify_failover", "probe", "check"), ("restore_service", "action", "action")):
        method += [_activity(kind, str(one.get(key, name)), one) for one in steps.get(name) or ()]
    probes = [
        _activity("probe", str(one.get("probe", "probe")), one)
        for one in definition.get("steady_state") or ()
    ]
    return {
        "version": "1.0.0",
        "title": record.title,
        "description": record.description or record.title,
        "tags": [record.plan.scenario, record.plan.environment],
        "steady-state-hypothesis": {"title": "The service works", "probes": probes},
        "method": method,
        "rollbacks": [_activity("action", "undo_fault", None)] if record.plan.fault is not None else [],
    }


def _activity(kind: str, name: str, arguments: Any) -> dict[str, Any]:
    provider = {"type": "python", "module": "fastvlm_ops", "func": name, "arguments": arguments or {}}
    return {"type": kind, "name": name, "provider": provider}


def _steady(row: StepRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    met = row.result.status == "passed"
    return {"steady_state_met": met, "probes": _activities(row.result.step, row)}


def _activities(name: str, row: StepRow) -> list[dict[str, Any]]:
    """Each check and action of a step; a step without any stands for itself."""
    checks: list[Mapping[str, Any]] = list(row.result.checks)
    if not checks:
        checks = [{"name": name, "status": row.result.status, "detail": row.result.summary}]
    kind = "action" if name in ("simulate_failure", "restore_service", "undo_fault") else "probe"
    return [
        {
            "activity": _activity(kind, str(one.get("name", name)), None),
            "status": "succeeded" if one.get("status") == "passed" else "failed",
            "output": one.get("detail"),
            "start": _time(row.started_at),
            "end": _time(row.finished_at),
            "duration": one.get("seconds", (row.finished_at - row.started_at).total_seconds()),
        }
        for one in checks
    ]


def _time(moment: datetime) -> str:
    return moment.isoformat()
