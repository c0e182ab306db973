"""What the DAG files of drills share. Other DAG files do not pay for reading scenarios."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from fastvlm_ops import settings
from fastvlm_ops.core.config.disaster_recovery import (
    Scenario,
    drill_dag_id,
    load_scenario,
    scenario_files,
)
from fastvlm_ops.dag_building.defaults import task_defaults

__all__ = ["Scenario", "drill_dag_id", "drill_defaults", "load_scenario", "scenarios_here"]


def scenarios_here() -> list[Path]:
    """Return the files of scenarios; none where there is no folder of definition files, which every DAG that
    reads one says in its own place.
    """
    try:
        return scenario_files(settings.include_dir())
    except settings.SettingError:
        return []


def drill_defaults(execution_timeout: timedelta) -> dict[str, Any]:
    """Return ``default_args`` for a DAG of drills: little time between attempts, while something is broken,
    and the queue of the worker that drills run on.

    :param execution_timeout: after which a task is stopped
    """
    queue = settings.drill_queue()
    defaults = task_defaults(execution_timeout=execution_timeout, retries=1, retry_delay=timedelta(seconds=5))
    return {**defaults, "queue": queue} if queue else defaults
