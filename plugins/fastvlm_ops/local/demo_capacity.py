"""`make demo-capacity`: a month of capacity forecasts, backfilled by a running Airflow, and their scores.

Everything is made and started on this machine, below one folder, and listens on loopback only.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fastvlm_ops.local.airflow_api import AirflowClient, RunResult, failed_tasks
from fastvlm_ops.local.console import Console, table
from fastvlm_ops.local.demo import Demo, run_demo
from fastvlm_ops.local.stack import Stack, history_end

DATES = 30
#: Days before the end of the history, so that each forecast can be scored over thirty days.
_BEFORE_END = 30
_PARALLEL = 4
_FORECAST, _ACCURACY = "capacity_forecast", "capacity_accuracy"


class DemoCapacityError(Exception):
    """A run failed."""


def main() -> int:
    """Start Airflow, S3 and Prometheus here, backfill 30 days of forecasts, and score them."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--dates", type=int, default=DATES, help="how many to backfill; default: %(default)s")
    dates = own.parse_known_args()[0].dates
    story = partial(tell, dates=dates)
    demo = Demo(
        "make demo-capacity", str(main.__doc__), (DemoCapacityError,), story, partial(Stack, metrics=True)
    )
    return run_demo(demo, [own])


def tell(stack: Stack, console: Console, *, dates: int) -> str:
    """Run it on a stack that is up, and return what is printed at the end.

    :param dates: that are backfilled
    :raises DemoCapacityError: a run failed
    :raises AirflowError: Airflow refused a request, or a run did not end in time
    """
    end = history_end() - timedelta(days=_BEFORE_END)
    first = end - timedelta(days=dates)
    with stack.client() as airflow:
        for dag_id in (_FORECAST, _ACCURACY):
            airflow.wait_for_dag(dag_id)
        airflow.unpause(_FORECAST)
        began = console.seconds
        runs = backfill(stack, console, airflow, first, dates)
        took = console.seconds - began
        console.say(f"{_ACCURACY}: triggered")
        scored = airflow.run(_ACCURACY, progress=lambda line: console.say(f"{_ACCURACY}: {line}"))
        alarms = _alarms(airflow, scored)
    lines = [
        f"{len(runs)} dates backfilled in {took:.0f} s ({took / len(runs):.1f} s each), {_PARALLEL} at once,",
        f"as of {first.date() + timedelta(days=1)} to {end.date()}. How right they were:",
        "",
        _accuracy_text(scored.values("score_forecasts")[0]["accuracy"]),
        "",
        "MASE: 1 is as right as last week again. covered: hours below the 95 % bound. short: forecasts whose",
        "required_risk was too little. waste: how much of it was too much, in the median.",
    ]
    return "\n".join([*lines, *alarms])


def backfill(
    stack: Stack,
    console: Console,
    airflow: AirflowClient,
    first: datetime,
    dates: int,
    *,
    parallel: int = _PARALLEL,
    timeout_seconds: float = 1800,
) -> list[dict[str, Any]]:
    """Backfill dates by Airflow's own command, and return their runs, as the API describes them.

    :param first: midnight; the first run is as of a day later
    :param dates: how many
    :param parallel: so many runs at once
    :param timeout_seconds: for all of them
    :raises DemoCapacityError: a run failed
    :raises AirflowError: they did not end in time
    """
    last = first + timedelta(days=dates - 1)
    arguments = ["backfill", "create", "--dag-id", _FORECAST]
    arguments += ["--from-date", str(first.date()), "--to-date", str(last.date())]
    arguments += ["--max-active-runs", str(parallel)]
    console.say(f"airflow {' '.join(arguments)}")
    stack.airflow.run_command("backfill", arguments)
    runs = airflow.wait_for_backfill(
        _FORECAST,
        dates,
        progress=lambda line: console.say(f"{_FORECAST}: {line}"),
        timeout_seconds=timeout_seconds,
    )
    failed = [run["dag_run_id"] for run in runs if run["state"] == "failed"]
    if failed:
        result = airflow.wait_for_run(_FORECAST, failed[0], progress=lambda _: None)
        reasons = [f"{task.task_id}: {airflow.failure(result, task)}" for task in failed_tasks(result)]
        raise DemoCapacityError("\n".join([f"{len(failed)} of {len(runs)} runs failed.", *reasons]))
    return runs


def _alarms(airflow: AirflowClient, run: RunResult) -> list[str]:
    """What the alarm said; it is part of the story, since a service's load jumps in this history."""
    if run.state == "success":
        return []
    failed = failed_tasks(run)
    if [task.task_id for task in failed] != ["check_drift"]:
        reasons = [f"{task.task_id}: {airflow.failure(run, task)}" for task in failed]
        raise DemoCapacityError("\n".join([f"{_ACCURACY} failed.", *reasons]))
    return [
        "",
        "check_drift raises the alarm, as it should where the load has changed:",
        airflow.failure(run, failed[0]),
    ]


def _accuracy_text(accuracy: list[dict[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [
        ("metric", "days", "scores", "MASE", "pinball95", "covered", "short", "waste")
    ]
    for one in accuracy:
        shares = (one["coverage95"], one["shortfalls"], one["waste"])
        rows.append(
            (
                one["metric"],
                str(one["horizon_days"]),
                str(one["scores"]),
                *("-" if value is None else f"{value:.2f}" for value in (one["mase"], one["pinball95"])),
                *("-" if value is None else f"{value:.1%}" for value in shares),
            )
        )
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())
