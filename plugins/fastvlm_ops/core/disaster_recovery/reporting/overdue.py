"""How old the newest drill of a scenario may be: its schedule tells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastvlm_ops.core.config.disaster_recovery import load_scenario, scenario_files
from fastvlm_ops.core.config.errors import ConfigError

_TICKS = 60
_GRACE = timedelta(days=1)
"""For a drill that is refused once, as for an incident, and is made up for by hand."""


def allowed_age(schedule: str, now: datetime) -> timedelta:
    """Return how old the newest drill may be: the longest time between two runs of its schedule, and a day.

    :param schedule: cron expression in UTC
    :param now: from when on it is looked at
    :raises ValueError: it is none
    """
    from croniter import croniter

    ticks = croniter(schedule, now.astimezone(UTC), ret_type=datetime)
    moments: list[datetime] = [ticks.get_next() for _ in range(_TICKS)]
    return max(later - earlier for earlier, later in itertools.pairwise(moments)) + _GRACE


def allowed_ages(include_dir: Path, now: datetime) -> Mapping[str, timedelta]:
    """Return how old the newest drill of each scenario may be that has a schedule.

    A scenario that cannot be read is left out: its DAG fails by itself, and names what is wrong.

    :param include_dir: the folder of the definition files
    :param now: from when on schedules are looked at
    """
    ages = {}
    for file in scenario_files(include_dir):
        try:
            schedule = load_scenario(file).schedule
            if schedule is not None:
                ages[file.stem] = allowed_age(schedule, now)
        except (ConfigError, ValueError):
            continue
    return ages
