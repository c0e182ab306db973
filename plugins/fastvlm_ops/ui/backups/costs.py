"""The page of what the backups cost: what is stored, what runs have asked for, and an estimate of a month."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops import settings
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.ui import formats
from fastvlm_ops.ui.access import User
from fastvlm_ops.ui.charts import Chart, Point, bar_chart, bytes_top
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.lines import Area, Curve, Picture, draw, nice_above
from fastvlm_ops.ui.render import page

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.costs import Estimate, StoredBytes
    from fastvlm_ops.core.backup.replica_state import ReplicaState
    from fastvlm_ops.core.backup.usage_rows import RunUsage
    from fastvlm_ops.core.config import Prices

log = logging.getLogger(__name__)

SHOWN_DAYS = 180
SHOWN_RUNS = 45
_AREAS = ("fan95", "fan99", "band", "target", "accepted")  # colours, for as many storage classes
_LONGEST = timedelta(days=8)  # between two measurements that a line joins
_KINDS = {"backup_full": "full", "backup_incremental": "incremental", "backup_configuration": "configuration"}

router = APIRouter()


@dataclass(frozen=True)
class CostPage:
    """What the page shows.

    :param prices_problem: why nothing is known of prices; empty where the file could be read
    :param history: what was measured, oldest first
    :param runs: newest first
    """

    refreshed_at: datetime | None
    prices_problem: str
    estimate: Estimate
    history: Sequence[StoredBytes]
    runs: Sequence[RunUsage]
    replica: ReplicaState | None
    pictures: list[Picture]
    charts: list[Chart]

    @property
    def newest(self) -> StoredBytes | None:
        """What was measured last."""
        return self.history[-1] if self.history else None


@router.get("/costs")
def show_costs(request: Request, user: User) -> HTMLResponse:
    """Show what is stored, asked for, and what a month costs."""
    try:
        found = read_costs(f"{request.scope['root_path']}/backups/costs")
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        log.warning("What the backups cost cannot be read", exc_info=error)
        return page(request, "backups/no_catalogue.html", section="backups", status=503, problem=told(error))
    return page(request, "backups/costs.html", section="backups", found=found, money=money)


def read_costs(address: str) -> CostPage:
    """Read what the page shows.

    :param address: of the page
    """
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.backup.costs import estimate, recent_usage, stored_history
    from fastvlm_ops.core.backup.replica_state import replica_state
    from fastvlm_ops.core.backup.usage_rows import usage_by_run
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    prices, problem = _prices()
    with OperationsDatabaseHook().open_store() as store:
        catalogue = Catalogue(store)
        refreshed_at, repository_id = catalogue.refreshed_at(), catalogue.repository_id()
        history = stored_history(store, repository_id, SHOWN_DAYS) if repository_id else []
        recent = recent_usage(store)
        runs = usage_by_run(store, SHOWN_RUNS)
        replica = replica_state(store)
    return CostPage(
        refreshed_at=refreshed_at,
        prices_problem=problem,
        estimate=estimate(history, recent, prices),
        history=history,
        runs=runs,
        replica=replica,
        pictures=[stored_picture(history)] if history else [],
        charts=_charts(list(reversed(runs)), address),
    )


def _prices() -> tuple[Prices | None, str]:
    """Return the prices, or none and why."""
    try:
        return load_components(settings.include_dir()).prices, ""
    except (ConfigError, settings.SettingError, OSError) as error:
        return None, str(error)


def stored_picture(history: Sequence[StoredBytes]) -> Picture:
    """Return the picture of what is stored over time: all of it, and of that each storage class, piled up.

    :param history: oldest first, at least one
    """
    days = [stored.at for stored in history]
    total = [float(stored.size_bytes) for stored in history]
    unit, size = _unit_of(max(total))
    floor = [0.0] * len(history)
    areas = []
    for kind, name in zip(_AREAS, _classes(history), strict=False):
        top = [low + stored.of_class(name) / size for low, stored in zip(floor, history, strict=True)]
        areas.append(Area(kind, name, days, floor, top, _LONGEST))
        floor = top
    first, last = history[0], history[-1]
    by_class = ", ".join(f"{name} {formats.size(last.of_class(name))}" for name in _classes(history))
    return draw(
        "stored",
        "Stored in the bucket",
        summary=f"Stored from {first.at:%Y-%m-%d} to {last.at:%Y-%m-%d}:"
        f" first {formats.size(first.size_bytes)}, last {formats.size(last.size_bytes)}; of that {by_class}.",
        write=partial(formats.amount, unit=unit),
        areas=areas,
        curves=[Curve("mean", "everything", days, [value / size for value in total], _LONGEST)],
    )


def _classes(history: Sequence[StoredBytes]) -> list[str]:
    """Names of the storage classes, that with most bytes first."""
    names = {name for stored in history for name in stored.by_class}
    return sorted(names, key=lambda name: (-history[-1].of_class(name), name))


def _unit_of(greatest: float) -> tuple[str, int]:
    """The unit that a picture is drawn in, and its bytes."""
    units = (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10))
    return next(((name, 1 << power) for name, power in units if greatest >= 1 << power), ("B", 1))


def _charts(runs: Sequence[RunUsage], address: str) -> list[Chart]:
    """Charts of runs, oldest first."""
    if not runs:
        return []

    def points(figure: str) -> list[Point]:
        return [
            Point(
                run.run_key,
                run.at,
                float(getattr(run.usage, figure)),
                _KINDS.get(run.dag_id, "other"),
                address,
            )
            for run in runs
        ]

    def size(value: float | None) -> str:
        return formats.size(None if value is None else int(value))

    def number(value: float | None) -> str:
        return formats.count(None if value is None else round(value))

    return [
        bar_chart("requests", "Requests", points("requests"), number, nice_above),
        bar_chart("sent", "Sent", points("sent_bytes"), size, bytes_top),
        bar_chart("received", "Received", points("received_bytes"), size, bytes_top),
    ]


def money(value: float | None, currency: str | None) -> str:
    """Return an amount of money for people; little is not nothing, and unknown is neither.

    :param currency: None where no prices are set
    """
    if value is None or currency is None:
        return formats.UNKNOWN
    if 0 < value < 0.01:
        return f"< 0.01 {currency}"
    return f"{value:,.2f}".replace(",", "\u202f") + f" {currency}"
