"""How fast the Operations pages answer, with as much to show as a year leaves: `make bench-ui`.

There is no peer to run: the targets are absolute ones, 300 ms for a page, and 1 s for the first picture that
an api-server draws after its start.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import RESULTS, Figure, figures_table, write_figures
from fastvlm_ops.local.airflow_stack import USER
from fastvlm_ops.ui.coreml.standing import Subject
from tests.integration.ui import benchmarks, forecasts, history
from tests.integration.ui.rig import ROOT, Rig

if TYPE_CHECKING:
    import httpx

ROUNDS = 25
TARGET_MS, FIRST_TARGET_MS = 300, 1000
BACKUPS = 400
SERVICES = tuple(f"service-{number:03d}" for number in range(100))
FORECAST_DAYS, SCORED_DAYS = 60, 60
MODELS, DEVICES, UNITS = 5, tuple(benchmarks.CLASSES), ("CPU_AND_NE", "ALL", "CPU_ONLY")
NIGHTS = 365


@dataclass(frozen=True)
class Group:
    """Pages of one domain.

    :param shown: how much there is to show
    :param pages: addresses by name; of the first one the slowest answer counts too
    :param first: the page whose first answer after the start counts too; empty for none
    """

    shown: str
    pages: Mapping[str, str]
    first: str = ""


_ROOT = "/fastvlm-ops"
_SERIES = f"{_ROOT}/capacity/{forecasts.key(SERVICES[50])}/cpu"
_DETAIL = _ROOT + Subject("model-2", benchmarks.PHONE, "CPU_AND_NE").address()
GROUPS = (
    Group(
        f"{BACKUPS} backups",
        {
            "list of backups": f"{_ROOT}/backups",
            "list of backups, last page": f"{_ROOT}/backups?before=100",
            "list of backups of one component": f"{_ROOT}/backups?component=uploads&kind=full",
            "one backup": f"{_ROOT}/backups/{history.REAL_SET}",
            "files of a component, read before": f"{_ROOT}/backups/{history.REAL_SET}/files/uploads",
        },
    ),
    Group(
        f"{len(SERVICES)} services, {FORECAST_DAYS} days",
        {
            "capacity of all services": f"{_ROOT}/capacity",
            "a forecast with its picture": _SERIES,
            "accuracy of forecasts": f"{_ROOT}/capacity/accuracy",
        },
        first="a forecast with its picture",
    ),
    Group(
        f"{MODELS * len(DEVICES) * len(UNITS)} model x device x unit, {NIGHTS} nights",
        {
            "Core ML, all models": f"{_ROOT}/coreml",
            "Core ML, one model, 90 nights": _DETAIL,
            "Core ML, one model, all nights": f"{_DETAIL}?days={NIGHTS}",
        },
        first="Core ML, one model, 90 nights",
    ),
)


def main() -> int:
    """Start Airflow with much to show, ask for each page in turn, and write what it took."""
    scratch = ROOT / ".pytest_cache" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        rig = Rig(Path(folder))
        try:
            rig.start()
            _fill(rig)
            with rig.client(USER) as client:
                figures = [figure for group in GROUPS for figure in _measure(client, group)]
        finally:
            rig.stop()
    write_figures(figures, RESULTS / "ui.json")
    print(figures_table(figures))
    return 0


def _fill(rig: Rig) -> None:
    history.back_up(rig)
    history.add_rows(rig, BACKUPS - 1)
    forecasts.forecast(rig, days=1, names=SERVICES)
    forecasts.add_earlier(rig, FORECAST_DAYS - 1)
    forecasts.add_scores(rig, SCORED_DAYS, SERVICES)
    like = next(story for story in benchmarks.STORIES if story.subject == benchmarks.REGRESSED)
    stories = [
        replace(like, subject=Subject(f"model-{number}", device, unit))
        for number in range(MODELS)
        for device in DEVICES
        for unit in UNITS
    ]
    nights = range(benchmarks.NIGHTS - NIGHTS, benchmarks.NIGHTS)
    benchmarks.add_runs(rig.database, stories, nights)


def _measure(client: httpx.Client, group: Group) -> list[Figure]:
    """Ask for each page of a group, in turns; the first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in group.pages}
    first: dict[str, float] = {}
    # What is needed to draw is brought in by the first page that draws: it is asked for first.
    order = sorted(group.pages, key=lambda name: name != group.first)
    for number in range(ROUNDS + 1):
        for name in order:
            began = time.perf_counter()
            client.get(group.pages[name]).raise_for_status()
            milliseconds = (time.perf_counter() - began) * 1000
            if number:
                taken[name].append(milliseconds)
            else:
                first[name] = milliseconds
    figures = [
        Figure(f"{name}, {group.shown}, median of {ROUNDS}", statistics.median(values), "ms", TARGET_MS)
        for name, values in taken.items()
    ]
    slowest = next(iter(group.pages))
    name = f"{slowest}, {group.shown}, slowest of {ROUNDS}"
    figures.append(Figure(name, max(taken[slowest]), "ms", TARGET_MS))
    if group.first:
        name = f"{group.first}, {group.shown}, first after the start"
        figures.append(Figure(name, first[group.first], "ms", FIRST_TARGET_MS))
    return figures


if __name__ == "__main__":
    sys.exit(main())
