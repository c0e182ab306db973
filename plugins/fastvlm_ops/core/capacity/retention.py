"""Removes what nobody needs any more: hours of old forecasts that were scored, and what failed runs left.

What is left of a forecast is small, and stays: its days, its history by day, its series and its report.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fastvlm_ops.core.capacity.accuracy import USABLE
from fastvlm_ops.core.capacity.objects import FORECASTS, RUNS, CapacityObjects, as_of_in
from fastvlm_ops.core.config.capacity import Capacity
from fastvlm_ops.core.store.tables.capacity import forecasts, scores

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

_AT_MOST = 1000  # objects in one go: a first time must not take all of a task's time


def remove_old(
    objects: CapacityObjects,
    store: Store,
    definitions: Capacity,
    *,
    at: datetime,
    at_most: int = _AT_MOST,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Remove what is older than ``keep_hourly_days``; none of a forecast that has still to be scored.

    Twice in a row, the second time does nothing.

    :param objects: where the forecasts are
    :param store: the operations database, which knows what has been scored
    :param definitions: ``capacity.yaml``
    :param at: full hour, in UTC: what a forecast's age is counted up to
    :param at_most: so many objects; the oldest first
    :param progress: called with a line for each as-of hour
    :returns: small JSON: how many objects were removed, and whether some are left for the next time
    """
    age = timedelta(days=definitions.keep_hourly_days)
    scored = _scored(store, definitions, before=at - age)
    old = []
    for name, _ in objects.names(FORECASTS):
        as_of = as_of_in(name)
        if as_of is None:
            continue
        if as_of >= at - age:
            break  # names are in the order of their hours
        if as_of in scored and name.rpartition("/")[2].startswith("hourly-"):
            old.append(name)
            progress(f"hours of {as_of:%Y-%m-%d %H:%M} UTC: {objects.uri(name)}")
        if len(old) > at_most:
            break
    before = datetime.now(UTC) - age  # when they were written: a run may be of any hour
    left_behind = [name for name, changed in objects.names(RUNS) if changed < before]
    if left_behind:
        progress(f"{len(left_behind)} working objects that runs left behind")
    found = [*old, *left_behind]
    if chosen := found[:at_most]:
        objects.remove(chosen)
    return {"removed": len(chosen), "left": len(found) > at_most}


def _scored(store: Store, definitions: Capacity, *, before: datetime) -> set[datetime]:
    """As-of hours of which nothing is to be scored any more; none that the database does not know."""
    rows = select(forecasts.c.as_of, forecasts.c.horizon_days, forecasts.c.status).distinct()
    with store.read() as connection:
        made = connection.execute(rows.where(forecasts.c.as_of < before)).all()
        found = connection.execute(
            select(scores.c.as_of, scores.c.horizon_days).where(scores.c.as_of < before).distinct()
        )
        done = {(row.as_of, row.horizon_days) for row in found}
    known = {as_of for as_of, _, _ in made}
    waiting = {
        as_of
        for as_of, horizon_days, status in made
        if status in USABLE
        for days in definitions.accuracy.horizons_days
        if days <= horizon_days and (as_of, days) not in done
    }
    return known - waiting
