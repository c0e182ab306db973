"""What a drill is going to do: made once, recorded, and all that its tasks go by."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fastvlm_ops.core.disaster_recovery.fault_types import Fault, Recorded

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "ABORTED", "REFUSED"]
#: Steps that leave a row of their own, in their order.
STEPS = ("guard", "simulate_failure", "verify_failover", "restore_service", "validate_recovery", "undo_fault")


class DrillPlan(Recorded):
    """A drill, resolved.

    :param run_key: ``<dag id>/<run id>``
    :param fault_id: of its only fault, made of the run key; also where there is no fault
    :param scenario: its name
    :param definition: the scenario file's contents as they were read, which ``core.config`` understands
    :param definition_hash: SHA-256 of the file
    :param include_hash: of all of ``include/``
    :param dry_run: whether nothing is broken
    :param environment: that the target said it is
    :param control: address of the service's control; None where the backups are the target
    :param url: where the service's users reach it; None where there is no service
    :param fault: None where nothing is broken
    :param time_to_live_seconds: of the fault
    :param instances_before: names of the instances that were healthy
    :param folder: of this drill, on the worker
    :param host: name of the worker whose processes and files are hit
    :param planned_at: in ISO 8601, UTC
    """

    run_key: str
    fault_id: str
    scenario: str
    definition: dict[str, Any]
    definition_hash: str
    include_hash: str
    dry_run: bool
    environment: str
    control: str | None
    url: str | None
    fault: Fault | None
    time_to_live_seconds: float
    instances_before: tuple[str, ...] = Field(strict=False)
    folder: str
    host: str
    planned_at: str


class StepResult(Recorded):
    """What a step has found.

    :param step: of :data:`STEPS`
    :param status: ``failed``: the service did not do what it should; ``inconclusive``: it could not be told
    :param summary: one sentence for people
    :param problems: each difference or failure by name; empty when passed
    :param checks: one for each check or action: ``{"name", "status", "seconds", "detail", …}``
    :param commands: what was done to the target, in order: ``{"at_seconds", "what"}``, seconds from the fault
    """

    step: str
    status: Literal["passed", "failed", "inconclusive", "aborted", "refused", "dry_run"]
    summary: str
    problems: tuple[str, ...] = Field(default=(), strict=False)
    checks: tuple[dict[str, Any], ...] = Field(default=(), strict=False)
    commands: tuple[dict[str, Any], ...] = Field(default=(), strict=False)
