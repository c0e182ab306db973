"""Timetables that several DAGs use."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable


def next_time(cron: str) -> CronTriggerTimetable:
    """Return the timetable of a DAG whose first run is the next one in the future, in UTC.

    Airflow otherwise runs at once for the time that has just gone by, if that is no longer ago than a tenth
    of the interval, also with its default ``run_immediately=False``: for a week, most of a day.

    :param cron: expression
    """
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta())
