"""``evidence.json``: a drill for programs. Its JSON schema is docs/drill-evidence.schema.json.

``python -m fastvlm_ops.core.disaster_recovery.reporting.document`` writes the schema.
"""

from __future__ import annotations

import json
import platform
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastvlm_ops import __version__
from fastvlm_ops.core.disaster_recovery.fault_types import Fault
from fastvlm_ops.core.disaster_recovery.measuring import Measures
from fastvlm_ops.core.disaster_recovery.plan import StepResult
from fastvlm_ops.core.disaster_recovery.reporting.hit import describe_hit
from fastvlm_ops.core.disaster_recovery.reporting.improvements import Improvement
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord

SCHEMA = "drill-evidence.schema.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Part):
    """A file that stands beside this one."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int


class Objectives(_Part):
    """What recovery had to achieve."""

    rto_seconds: float
    rpo_seconds: float


class FaultEvidence(_Part):
    """What was broken, and how it ended. A moment is null where it is not known, or never came."""

    what: str = Field(description="in words")
    fault: Fault
    time_to_live_seconds: float
    injected_at: datetime | None
    undone_at: datetime | None
    undone_by: str | None
    problem: str | None


class StepEvidence(StepResult):
    """What a step has found, and when."""

    started_at: datetime
    finished_at: datetime


class EarlierDrill(_Part):
    """An earlier drill of the scenario that was no dry run. A figure is null where it was not measured."""

    run_key: str
    planned_at: datetime
    verdict: str | None
    rto_seconds: float | None
    rpo_seconds: float | None


class EvidenceDocument(_Part):
    """A drill: what was to be done, what was hit, what was found, and what it comes to."""

    format: Literal["fastvlm-ops drill evidence"] = "fastvlm-ops drill evidence"
    version: Literal[1] = 1
    run_key: str = Field(description="<dag id>/<run id>")
    scenario: str
    title: str
    environment: str = Field(description="that the target said it is")
    dry_run: bool
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "ABORTED", "REFUSED"] | None
    reason: str | None
    objectives: Objectives
    measures: Measures | None = Field(
        description="seconds are counted from the fault; null: nothing was measured"
    )
    planned_at: datetime
    fault_at: datetime | None
    ended_at: datetime = Field(description="of the last step")
    host: str
    control: str | None
    url: str | None
    instances_before: tuple[str, ...] = Field(description="that were healthy")
    fault: FaultEvidence | None
    steps: tuple[StepEvidence, ...]
    improvements: tuple[Improvement, ...]
    earlier: tuple[EarlierDrill, ...]
    definition: dict[str, Any] = Field(description="the scenario file as it was read")
    definition_hash: str = Field(description="SHA-256 of the scenario file")
    include_hash: str = Field(description="of all definition files")
    software: dict[str, str] = Field(description="versions")
    files: tuple[File, ...]


def make_document(
    record: DrillRecord,
    *,
    measures: Measures | None,
    improvements: tuple[Improvement, ...],
    files: tuple[File, ...],
) -> EvidenceDocument:
    """Return the document of a drill.

    :param record: of the drill
    :param measures: what was measured
    :param improvements: what to improve
    :param files: all others that it leaves
    """
    drill, plan = record.drill, record.plan
    return EvidenceDocument(
        run_key=plan.run_key,
        scenario=plan.scenario,
        title=record.title,
        environment=plan.environment,
        dry_run=plan.dry_run,
        verdict=drill.verdict,
        reason=drill.reason,
        objectives=Objectives(
            rto_seconds=drill.rto_objective_seconds, rpo_seconds=drill.rpo_objective_seconds
        ),
        measures=measures,
        planned_at=record.planned_at,
        fault_at=drill.fault_at,
        ended_at=record.ended_at,
        host=plan.host,
        control=plan.control,
        url=plan.url,
        instances_before=plan.instances_before,
        fault=_fault(record),
        steps=tuple(
            StepEvidence(**row.result.model_dump(), started_at=row.started_at, finished_at=row.finished_at)
            for row in drill.steps.values()
        ),
        improvements=improvements,
        earlier=tuple(EarlierDrill(**vars(one)) for one in record.earlier),
        definition=plan.definition,
        definition_hash=plan.definition_hash,
        include_hash=plan.include_hash,
        software={"fastvlm-ops": __version__, "python": platform.python_version()},
        files=files,
    )


def _fault(record: DrillRecord) -> FaultEvidence | None:
    if record.plan.fault is None:
        return None
    row = record.fault or {}
    return FaultEvidence(
        what=describe_hit(record.plan.fault),
        fault=record.plan.fault,
        time_to_live_seconds=record.plan.time_to_live_seconds,
        injected_at=row.get("injected_at"),
        undone_at=row.get("undone_at"),
        undone_by=row.get("undone_by"),
        problem=row.get("problem"),
    )


def schema_text() -> str:
    """Return the JSON schema of ``evidence.json`` as it is stored."""
    schema = EvidenceDocument.model_json_schema(mode="serialization")
    full = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(full, indent=2) + "\n"


if __name__ == "__main__":
    (Path("docs") / SCHEMA).write_text(schema_text(), encoding="utf-8")
