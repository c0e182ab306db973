"""From what a drill has recorded to its verdict, its figures and its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.carrying_out import STEADY_CHECK
from fastvlm_ops.core.disaster_recovery.drills import Drill, record_verdict
from fastvlm_ops.core.disaster_recovery.fault_entries import entry_file, read_entry
from fastvlm_ops.core.disaster_recovery.faults import EntryError, FaultError, is_left
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure_restore
from fastvlm_ops.core.disaster_recovery.observing import measure_drill, observed_to_the_end
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult, Verdict
from fastvlm_ops.core.disaster_recovery.verdicts import Ending, judge

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore

_Injection = tuple[int | None, int | None]
_NEVER: _Injection = (None, None)


@dataclass(frozen=True)
class Conclusion:
    """What a drill comes to.

    :param verdict: of the drill
    :param reason: one sentence
    :param measures: None where nothing was measured
    :param fault_ns: when the injection of the fault began, by the monotonic clock; None where it was not
        injected
    :param injected_ns: when it had ended; None where it had not, or nobody knows
    """

    verdict: Verdict
    reason: str
    measures: Measures | None
    fault_ns: int | None
    injected_ns: int | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """Columns of the drill's row."""
        found = self.measures
        if found is None:
            return {}
        return {
            "rto_seconds": found.rto_seconds,
            "detection_seconds": found.detection_seconds,
            "failover_seconds": found.failover_seconds,
            "rpo_seconds": found.rpo_seconds,
            "lost_writes": len(found.lost),
            "acknowledged_writes": found.acknowledged,
            "in_flight_writes": len(found.in_flight),
        }


def conclude(
    store: Store, drill: Drill, drill_dir: Path, *, as_of: datetime, rejected: str | None
) -> Conclusion:
    """Measure and judge a drill, and record the verdict.

    :param store: the operations database
    :param drill: as it was recorded
    :param drill_dir: of all drills of this worker
    :param as_of: what the run is about
    :param rejected: why a person, or nobody, has kept it from going on; None where nobody did
    """
    plan = drill.plan
    results = [row.result for row in drill.steps.values()]
    (fault_ns, injected_ns), ending = _ending(plan, drill, drill_dir)
    measures = _measure(drill, fault_ns, injected_ns, as_of)
    verdict, reason = judge(plan, results, measures, ending)
    if rejected and fault_ns is None:
        verdict, reason = "REFUSED", f"not approved: {rejected}"
    conclusion = Conclusion(verdict, reason, measures, fault_ns, injected_ns)
    record_verdict(store, plan.run_key, conclusion.verdict, reason, figures=conclusion.figures, summary={})
    return conclusion


def store_evidence(
    store: Store, plan: DrillPlan, conclusion: Conclusion, artefacts: ArtefactStore
) -> list[str]:
    """Write the report and store all evidence.

    :param store: the operations database
    :param plan: of the drill
    :param conclusion: as it was recorded
    :param artefacts: where evidence is kept
    :returns: addresses of the files
    """
    from fastvlm_ops.core.disaster_recovery.evidence import report_drill

    stored = report_drill(
        store, artefacts, plan.run_key, measures=conclusion.measures, fault_ns=conclusion.fault_ns
    )
    return [artefact.uri for artefact in stored]


def _ending(plan: DrillPlan, drill: Drill, drill_dir: Path) -> tuple[_Injection, Ending]:
    """When the injection of the fault began and had ended, and how the drill was left."""
    if plan.fault is None or plan.dry_run:
        return _NEVER, Ending(fault="never_injected")
    try:
        file = entry_file(drill_dir, plan.fault_id)
        if not file.exists():
            return _NEVER, Ending(fault="never_injected")
        entry = read_entry(file)
        left = is_left(entry.fault, entry.hit)
    except (EntryError, FaultError) as error:
        return _NEVER, Ending(fault="unknown", detail=str(error))
    moments = entry.fault_monotonic_ns, entry.injected_monotonic_ns
    if left or not entry.is_closed:
        detail = left or f"its entry says {entry.state}"
        return moments, Ending(fault="left", detail=detail)
    if entry.state == "never_injected":
        return _NEVER, Ending(fault="never_injected")
    return moments, Ending(
        fault="undone",
        steady_again=_steady_again(drill),
        observed=observed_to_the_end(Path(plan.folder)),
    )


def _steady_again(drill: Drill) -> bool | None:
    row = drill.steps.get("undo_fault")
    for check in row.result.checks if row else ():
        if check["name"] == STEADY_CHECK:
            return bool(check["status"] == "passed")
    return None


def _measure(drill: Drill, fault_ns: int | None, injected_ns: int | None, as_of: datetime) -> Measures | None:
    plan = drill.plan
    if plan.dry_run:
        return None
    if plan.fault is not None:
        if fault_ns is None:
            return None
        return measure_drill(Path(plan.folder), fault_ns, injected_ns=injected_ns)
    restore, validate = drill.steps.get("restore_service"), drill.steps.get("validate_recovery")
    if restore is None or validate is None:
        return None
    return measure_restore(restore.started_at, validate.finished_at, _backup_at(restore.result), as_of)


def _backup_at(restored: StepResult) -> datetime | None:
    """When the backup that was restored was made, as the action says."""
    for check in restored.checks:
        moment = check.get("evidence", {}).get("backup_at")
        if moment:
            return datetime.fromisoformat(moment)
    return None
