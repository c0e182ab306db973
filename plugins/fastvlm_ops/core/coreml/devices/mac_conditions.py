"""The state that a Mac tells of itself, by ``pmset``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastvlm_ops.core.coreml.devices.interface import Conditions
from fastvlm_ops.core.coreml.devices.versions import tool_says

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import ConditionRules

THERMAL_STATES = ("nominal", "fair", "serious", "critical")
# A processor that is held to this share of its speed, in percent, or more.
_SPEEDS = ((100, "nominal"), (80, "fair"), (50, "serious"), (0, "critical"))


def read_conditions(environment: Mapping[str, str]) -> Conditions:
    """Read thermal state, battery and low power mode; None where this Mac does not tell."""
    charge, charging = _battery(tool_says(["pmset", "-g", "batt"], environment))
    return Conditions(
        thermal_start=thermal_state(environment),
        low_power=_low_power(tool_says(["pmset", "-g"], environment)),
        battery_percent=charge,
        charging=charging,
    )


def thermal_state(environment: Mapping[str, str]) -> str | None:
    """Return the thermal state, by how far the processor is held back."""
    said = tool_says(["pmset", "-g", "therm"], environment)
    if limit := re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", said):
        return next(name for least, name in _SPEEDS if int(limit[1]) >= least)
    return "nominal" if "No thermal warning level has been recorded" in said else None


def unfit(conditions: Conditions, rules: ConditionRules) -> str | None:
    """Say why a Mac in this state is not to be measured; None where it is.

    :param conditions: of it
    :param rules: that they have to keep; what is not told keeps them
    """
    thermal, worst = conditions.thermal_start, rules.worst_thermal
    if thermal is not None and THERMAL_STATES.index(thermal) > THERMAL_STATES.index(worst):
        return f"its thermal state is {thermal}; at worst {worst} is measured: let it cool down"
    if conditions.low_power and not rules.allow_low_power:
        return "it is in low power mode; turn that off"
    charge = conditions.battery_percent
    if charge is not None and charge < rules.minimum_battery_percent:
        return f"its battery is at {charge:g} %; {rules.minimum_battery_percent:g} % is the least: charge it"
    return None


def _battery(said: str) -> tuple[float | None, bool | None]:
    found = re.search(r"(\d+)%;\s*([\w ]+)", said)
    if found is None:
        return None, None
    return float(found[1]), not found[2].strip().startswith("discharging")


def _low_power(said: str) -> bool | None:
    found = re.search(r"lowpowermode\s+(\d)", said)
    return None if found is None else found[1] == "1"
