"""The scenarios of drills, for the DAG file that makes a DAG of each. Other DAG files do not pay for them."""

from __future__ import annotations

from fastvlm_ops.core.config.disaster_recovery import (
    Scenario,
    drill_dag_id,
    load_scenario,
    scenario_files,
)

__all__ = ["Scenario", "drill_dag_id", "load_scenario", "scenario_files"]
