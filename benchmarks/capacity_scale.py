"""How long 3,000 series take for each of 90 dates, through Airflow: `make bench-capacity-scale`.

Everything is made and started on this machine: PostgreSQL, S3, Airflow, and a Prometheus with half a year of
hours by service, as the recording rules of large fleets leave them, which the benchmark's own capacity.yaml
reads. What is timed is `airflow backfill create` until its last run has ended. There is no peer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from benchmarks.figures import RESULTS, Figure, figures_table, table, write_json
from benchmarks.running import ROOT, load_average, machine
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.capacity import forecasts
from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.console import Console
from fastvlm_ops.local.demo import Demo, run_demo
from fastvlm_ops.local.demo_capacity import DemoCapacityError, backfill
from fastvlm_ops.local.prometheus import Prometheus
from fastvlm_ops.local.stack import Extras, Stack, history_end
from fastvlm_ops.local.state import DemoState

SERVICES, DATES = 1000, 90
TARGET_MINUTES = 45.0
HISTORY_DAYS, HORIZON_DAYS = 90, 30
#: Of two cores: one run reads or publishes while others forecast, and the scheduler still gets its share.
PARALLEL = 3
SERIES_PER_SHARD = 1500
FOLDER = ROOT / ".pytest_cache" / "tmp" / "capacity-scale"
#: Airflow's own: the files do not change, and each look at them takes the cores from the tasks.
_PARSE_SECONDS = 300
_YESTERDAY_SECONDS = 300
_DAG = "capacity_forecast"
_HOUR = 3600
_STAMP = 59 * 60  # within the hour: when a rule records it
_BLOCK = 486 * _HOUR  # of promtool's under 744 h; it reads a file anew for each block
_DEFINITIONS = """\
version: 1
history_days: {history_days}
horizon_days: {horizon_days}
series_per_shard: {series_per_shard}
replicas:
  query: last_over_time(service:fastvlm_replicas:last1h[1h])
resources:
  cpu:
    average: last_over_time(service:fastvlm_cpu_usage_percent:avg1h[1h])
    capacity: 100
  memory:
    average: last_over_time(service:fastvlm_memory_usage_percent:avg1h[1h])
    capacity: 100
  requests:
    average: last_over_time(service:fastvlm_requests:rate1h[1h])
    capacity: last_over_time(service:fastvlm_request_capacity:last1h[1h])
"""

Floats = NDArray[np.float64]


class ScaleStack(Stack):
    """The stack with a large fleet, and with definitions that read it.

    :param state: folder that all is kept in
    :param project: folder that holds dags/, plugins/ and include/
    :param services: how many there are
    :param dates: that will be backfilled
    :param parallel: so many tasks at once
    """

    def __init__(
        self, state: DemoState, project: Path, *, services: int, dates: int, parallel: int = PARALLEL
    ) -> None:
        include = state.folder / "include"
        shutil.copytree(project / "include", include)
        (include / "capacity.yaml").write_text(
            _DEFINITIONS.format(
                history_days=HISTORY_DAYS, horizon_days=HORIZON_DAYS, series_per_shard=SERIES_PER_SHARD
            )
        )
        changes = {
            "core": {"parallelism": parallel},
            "dag_processor": {"min_file_process_interval": _PARSE_SECONDS},
        }
        extras = Extras(include=include, kit=False, changes=changes)
        super().__init__(state, project, metrics=True, extras=extras)
        self._services = services
        self._days = HISTORY_DAYS + dates + 2
        state.kit.mkdir()

    def load_history(self, server: Prometheus) -> None:
        """Load the hours of the fleet, up to this midnight."""
        for file in write_fleet(self.state.scratch, end=history_end(), days=self._days, count=self._services):
            server.load(file)
            file.unlink()


def write_fleet(folder: Path, *, end: datetime, days: int, count: int) -> Iterator[Path]:
    """Write the recorded hours of a fleet in OpenMetrics' text format, one file for each block of promtool's.

    :param folder: for the files
    :param end: midnight, aware
    :param days: how many
    :param count: of services
    """
    last = int(end.timestamp())
    starts = np.arange(last - days * 24 * _HOUR, last, _HOUR)
    fleet = [_service(number, starts) for number in range(count)]
    blocks = starts // _BLOCK
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        stamps = (starts[inside] + _STAMP).tolist()
        file = folder / f"fleet-{block}.txt"
        with file.open("w") as output:
            for metric in fleet[0]:
                output.write(f"# TYPE {metric} gauge\n")
                for number, hours in enumerate(fleet):
                    head = f'{metric}{{service="service-{number:04d}"}}'
                    values = hours[metric][inside[0] : inside[-1] + 1].tolist()
                    output.writelines(
                        f"{head} {value:.6g} {stamp}\n" for value, stamp in zip(values, stamps, strict=True)
                    )
            output.write("# EOF\n")
        yield file


def _service(number: int, starts: NDArray[np.int64]) -> dict[str, Floats]:
    """Hours of one service; each has its own level, shape, growth and noise."""
    random = np.random.default_rng([7, number])
    hour, day = starts % 86_400 / _HOUR, starts // 86_400
    shape = 1 + random.uniform(0.1, 0.7) * np.cos((hour - random.uniform(0, 24)) * np.pi / 12)
    shape *= np.where((day + 3) % 7 >= 5, random.uniform(0.4, 1.2), 1.0)
    shape *= np.linspace(1 - random.uniform(-0.2, 0.4), 1.0, len(starts))
    if number % 10 == 0:  # some jumped
        shape *= np.where(day > day[-1] - random.integers(20, 120), random.uniform(1.3, 2.0), 1.0)
    noise = np.exp(random.normal(0, random.uniform(0.03, 0.15), (2, len(starts))))
    rate = random.lognormal(3, 1) * shape * noise[0]
    capacity = float(np.ceil(rate.max() * random.uniform(1.1, 2.5)))
    memory = random.uniform(20, 60) + 15 * rate / capacity + 5 * (day % 14) / 14 * noise[1]
    return {
        "service:fastvlm_cpu_usage_percent:avg1h": np.clip(80 * rate / capacity * noise[1], 0, 100),
        "service:fastvlm_memory_usage_percent:avg1h": np.clip(memory, 0, 100),
        "service:fastvlm_requests:rate1h": rate,
        "service:fastvlm_request_capacity:last1h": np.full(len(starts), capacity),
        "service:fastvlm_replicas:last1h": np.full(len(starts), float(random.integers(1, 9))),
    }


def main() -> int:
    """Backfill the dates of a fleet through Airflow, write the minutes it took, and print where they went."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--services", type=int, default=SERVICES, help="default: %(default)s")
    own.add_argument("--dates", type=int, default=DATES, help="default: %(default)s")
    own.add_argument("--parallel", type=int, default=PARALLEL, help="runs, and tasks; default: %(default)s")
    own.add_argument("--results", type=Path, default=RESULTS / "capacity_scale.json")
    chosen = own.parse_known_args()[0]
    demo = Demo(
        "make bench-capacity-scale",
        str(main.__doc__),
        (DemoCapacityError,),
        partial(
            tell,
            services=chosen.services,
            dates=chosen.dates,
            parallel=chosen.parallel,
            results=chosen.results,
        ),
        stack=partial(ScaleStack, services=chosen.services, dates=chosen.dates, parallel=chosen.parallel),
        folder=FOLDER,
        ends=True,
    )
    status = run_demo(demo, [own])
    if not status:
        shutil.rmtree(FOLDER)  # some gigabytes; after a failure the logs are of use
    return status


def tell(stack: Stack, console: Console, *, services: int, dates: int, parallel: int, results: Path) -> str:
    """Backfill on a stack that is up, and return what is printed at the end.

    :param services: of the fleet
    :param dates: that are backfilled
    :param parallel: so many runs at once
    :param results: file that the figure is written to
    :raises DemoCapacityError: a run failed, or a series is missing
    :raises AirflowError: Airflow refused a request, or the runs did not end in time
    """
    before = load_average()
    first = history_end() - timedelta(days=dates + 1)
    with stack.client() as airflow:
        airflow.wait_for_dag(_DAG)
        airflow.unpause(_DAG)
        let_the_schedule_go_first(airflow, console)
        began = datetime.now(UTC)
        runs = backfill(stack, console, airflow, first, dates, parallel=parallel, timeout_seconds=8 * 3600)
        ended = max(datetime.fromisoformat(run["end_date"]) for run in runs)
        tasks = [task for run in runs for task in airflow.tasks(_DAG, run["dag_run_id"])]
    check(stack.state.folder / "airflow" / "fastvlm_ops.db", first, services, dates)
    minutes = (ended - began).total_seconds() / 60
    figures = merged(results, figure_of(minutes, services, dates))
    write_json(figures, results)
    rows = task_rows(tasks, minutes, parallel)
    if (services, dates) == (SERVICES, DATES):
        write_json(
            {"machine": machine(), "load_average": before, "parallel": parallel, "tasks": rows},
            results.parent / "details" / results.name,
        )
    return f"{table(rows)}\n\n{figures_table([figure_of(minutes, services, dates)])}"


def let_the_schedule_go_first(airflow: AirflowClient, console: Console) -> None:
    """Wait until yesterday's run has ended, which the schedule makes: it is not of the backfill.

    :raises DemoCapacityError: it did not come, or not end, in time
    """
    console.say("waiting for yesterday's run")
    deadline = time.monotonic() + _YESTERDAY_SECONDS
    while time.monotonic() < deadline:
        if any(run["state"] in {"success", "failed"} for run in airflow.runs(_DAG)):
            return
        time.sleep(1)
    raise DemoCapacityError(f"yesterday's run did not end in {_YESTERDAY_SECONDS} s")


def figure_of(minutes: float, services: int, dates: int) -> Figure:
    """The figure of a run; of one that is not the whole, one of its own, which is never met.

    :param minutes: that the backfill took
    :param services: of the fleet
    :param dates: that were backfilled
    """
    name = f"{services:,} services x 3 metrics, {dates} dates by airflow backfill create"
    if (services, dates) == (SERVICES, DATES):
        return Figure(name, minutes, "min", TARGET_MINUTES)
    part = f"not run: this is a part of {SERVICES:,} services and {DATES} dates"
    return Figure(f"a part: {name}", minutes, "min", TARGET_MINUTES, part)


def merged(file: Path, figure: Figure) -> list[dict[str, Any]]:
    """The figures of a file of results, with one in place of that of its name.

    :param file: that need not exist
    :param figure: to put in
    """
    there: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return [figure.as_dict(), *(one for one in there if one["name"] != figure.name)]


def task_rows(tasks: Sequence[Mapping[str, Any]], minutes: float, parallel: int) -> list[tuple[str, ...]]:
    """Where the time went, by task, in the order of a run.

    :param tasks: of all runs, as the API describes them
    :param minutes: that all of them took
    :param parallel: so many at once
    """
    ran, waited = defaultdict(list), defaultdict(list)
    for task in tasks:
        moments = [task[name] for name in ("queued_when", "start_date", "end_date")]
        if all(moments):
            queued, start, end = map(datetime.fromisoformat, moments)
            ran[task["task_id"]].append((end - start).total_seconds())
            waited[task["task_id"]].append((start - queued).total_seconds())
    rows = [("task", "times", "runs for", "longest", "waited for", "of all slots")]
    slots = minutes * 60 * parallel
    for name, seconds in ran.items():
        rows.append(
            (
                name,
                str(len(seconds)),
                f"{statistics.median(seconds):.1f} s",
                f"{max(seconds):.1f} s",
                f"{statistics.median(waited[name]):.1f} s",
                f"{sum(seconds) / slots:.1%}",
            )
        )
    total = sum(sum(seconds) for seconds in ran.values())
    count = sum(map(len, ran.values()))
    return [*rows, ("between tasks", str(count), "-", "-", "-", f"{1 - total / slots:.1%}")]


def check(database: Path, first: datetime, services: int, dates: int) -> None:
    """Look whether every series of every date was forecast.

    :param database: of operations
    :param first: the first run is as of a day later
    :param services: of the fleet
    :param dates: that were backfilled
    :raises DemoCapacityError: one was not
    """
    wanted = {first + timedelta(days=day + 1): services * 3 for day in range(dates)}
    query = select(forecasts.c.as_of, func.count()).where(forecasts.c.status == "ok")
    with open_store(f"sqlite:///{database}") as store, store.read() as connection:
        rows = connection.execute(query.group_by(forecasts.c.as_of))
        found: dict[datetime, int] = {row[0]: row[1] for row in rows}
    if missing := {day: found.get(day, 0) for day, count in wanted.items() if found.get(day) != count}:
        raise DemoCapacityError(f"series with a forecast are not {services * 3} on {missing}")


if __name__ == "__main__":
    sys.exit(main())
