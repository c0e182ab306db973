"""What the pages of backups show: rows of the catalogue, and what went wrong when they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.ui import formats
from fastvlm_ops.ui.charts import Chart, Point, bar_chart, bytes_top, seconds_top

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.catalogue import Catalogue, CatalogueSet, ComponentState

PAGE_SETS = 25
CHART_SETS = 45


@dataclass(frozen=True)
class Filters:
    """Which backups a person wants to see.

    :param kind: only of this kind
    :param component: only those that have it
    :param before: only those published before the one with this sequence
    """

    kind: str | None = None
    component: str | None = None
    before: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is left out."""
        return self.kind is not None or self.component is not None


@dataclass(frozen=True)
class Overview:
    """The list of backups and what stands above it.

    :param refreshed_at: when the catalogue was last brought up to date; None: never
    :param objectives_problem: why nothing is known of objectives; empty where all is well
    :param older: sequence that the next page starts before; None where this is the last
    """

    refreshed_at: datetime | None
    components: list[ComponentState]
    objectives_problem: str
    sets: list[CatalogueSet]
    older: int | None
    charts: list[Chart]


@contextmanager
def open_catalogue() -> Iterator[Catalogue]:
    """Open the catalogue of backups for one page.

    :raises Exception: the database cannot be opened; of many kinds, by what is wrong
    """
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        yield Catalogue(store)


def offers(catalogue: Catalogue, backup: CatalogueSet) -> dict[str, CatalogueSet | None]:
    """Return what to restore in place of what is damaged: by component, and under "" in place of all of it.

    None where there is nothing intact. Empty where nothing is known to be damaged.

    :param backup: whose page it is
    """
    damaged = [
        member.component
        for member in backup.members
        if member.last_verified is not None and not member.last_verified.ok
    ]
    if not damaged:
        return {}
    every = [member.component for member in backup.members]
    wanted = {"": every} | {component: [component] for component in damaged}
    return {name: catalogue.nearest_intact(backup.set_id, of) for name, of in wanted.items()}


def read_overview(filters: Filters, address: str, now: datetime) -> Overview:
    """Read what the list of backups shows.

    :param filters: of the list and the charts
    :param address: that the address of each backup's page begins with
    :param now: the time that ages are about
    """
    objectives, problem = _objectives()
    with open_catalogue() as catalogue:
        refreshed_at = catalogue.refreshed_at()
        components = catalogue.components(objectives, now=now)
        found = catalogue.sets(
            kind=filters.kind,
            component=filters.component,
            limit=max(PAGE_SETS + 1, CHART_SETS),
            before_sequence=filters.before,
        )
    shown = found[:PAGE_SETS]
    return Overview(
        refreshed_at=refreshed_at,
        components=components,
        objectives_problem=problem,
        sets=shown,
        older=shown[-1].sequence if len(found) > PAGE_SETS else None,
        charts=_charts(list(reversed(found[:CHART_SETS])), filters.component, address),
    )


def _objectives() -> tuple[dict[str, timedelta], str]:
    """Return the objectives by component, or none and why."""
    try:
        return load_components(settings.include_dir()).objectives, ""
    except (ConfigError, settings.SettingError, OSError) as error:
        return {}, str(error)


def _charts(sets: Sequence[CatalogueSet], component: str | None, address: str) -> list[Chart]:
    """Charts of sets, oldest first; of one component of them when that is asked for."""
    if not sets:
        return []
    of_what = [
        (backup, next((member for member in backup.members if member.component == component), backup))
        for backup in sets
    ]

    def points(figure: str) -> list[Point]:
        return [
            Point(
                backup.set_id, backup.published_at, getattr(of, figure), backup.kind, address + backup.set_id
            )
            for backup, of in of_what
        ]

    return [
        bar_chart("size", "Size", points("size_bytes"), _bytes, bytes_top),
        bar_chart("new", "New data sent", points("new_bytes"), _bytes, bytes_top),
        bar_chart("duration", "Duration", points("duration_seconds"), formats.duration, seconds_top),
    ]


def _bytes(value: float | None) -> str:
    return formats.size(None if value is None else int(value))
