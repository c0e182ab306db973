"""One function for each type of check and action that a scenario can name.

A check ``x`` is ``check_x`` of its module, an action ``x`` is ``do_x``; both take the step of the scenario,
the plan and the surroundings, and return a :class:`CheckResult`. They wait by ``Surroundings.pause``.
What they raise makes a result that is inconclusive, but for :class:`DrillAbortedError`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from fastvlm_ops.core.disaster_recovery.errors import DrillAbortedError
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings

Status = Literal["passed", "failed", "inconclusive"]

_HERE = "fastvlm_ops.core.disaster_recovery.steps"
#: Module of each check and action.
CHECKS = {
    "fault_visible": "service",
    "requests_succeed": "service",
    "instance_out_of_rotation": "service",
    "service_says": "service",
    "instances_healthy": "service",
    "canary_rows_equal": "service",
    "standby_promoted": "databases",
    "databases_equal": "databases",
    "backup_fails": "storage",
    "place_equals_backup": "places",
    "components_sound": "backups",
    "backups_restore": "storage",
}
ACTIONS = {
    "wait_for_instance": "service",
    "restart_instance": "service",
    "release_fault": "service",
    "rejoin_database": "databases",
    "restore_backup": "places",
    "restore_to_scratch": "backups",
    "run_backup": "storage",
}


@dataclass(frozen=True)
class CheckResult:
    """What a check or an action has found.

    :param name: of the check or action, as in the scenario
    :param status: ``passed`` only with evidence; ``inconclusive`` where it could not be told
    :param seconds: how long it took
    :param detail: one sentence for people: what was found, and where it differs from what should be
    :param evidence: small JSON that ``detail`` rests on
    """

    name: str
    status: Status
    seconds: float
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)


Step = Callable[[Any, DrillPlan, Surroundings], CheckResult]


def run_check(step: BaseModel, plan: DrillPlan, at: Surroundings) -> dict[str, Any]:
    """Run a check of a scenario.

    :param step: with ``check``
    :param plan: of the drill
    :param at: its surroundings
    :returns: the result as JSON
    :raises DrillAbortedError: the drill has to be broken off
    """
    name: str = step.check  # type: ignore[attr-defined]
    return _run(name, CHECKS[name], f"check_{name}", step, plan, at)


def run_action(step: BaseModel, plan: DrillPlan, at: Surroundings) -> dict[str, Any]:
    """Run an action of a scenario; one that did not work within its time has failed.

    :param step: with ``action``
    :param plan: of the drill
    :param at: its surroundings
    :returns: the result as JSON
    :raises DrillAbortedError: the drill has to be broken off
    """
    name: str = step.action  # type: ignore[attr-defined]
    return _run(name, ACTIONS[name], f"do_{name}", step, plan, at)


def _run(
    name: str, module: str, function: str, step: BaseModel, plan: DrillPlan, at: Surroundings
) -> dict[str, Any]:
    call: Step = getattr(importlib.import_module(f"{_HERE}.{module}"), function)
    begun = time.monotonic()
    try:
        result = call(step, plan, at)
    except DrillAbortedError:
        raise
    except Exception as error:  # of many kinds, by what the step asks
        seconds = round(time.monotonic() - begun, 3)
        detail = f"could not be told: {error}"
        result = CheckResult(name, "inconclusive", seconds, detail, {"error": type(error).__name__})
    at.say(f"{name}: {result.status} after {result.seconds:.2f} s: {result.detail}")
    return asdict(result)
