"""Drills whose runs ended without a report: stopped by a person, or with the machine."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select

from fastvlm_ops.core.disaster_recovery.drills import record_verdict
from fastvlm_ops.core.disaster_recovery.leasing import lease_holder
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.disaster_recovery import drills, steps

#: A drill that was just planned has no lease yet, and one that has given it back is about to be reported.
_PATIENCE = timedelta(minutes=15)


def close_abandoned(store: Store) -> list[str]:
    """Give the verdict ABORTED to drills that have none and have lost the lease: nothing goes on with them.

    :param store: the operations database
    :returns: their run keys
    """
    holder = lease_holder(store)
    latest = select(steps.c.run_key, func.max(steps.c.finished_at).label("at")).group_by(steps.c.run_key)
    last = latest.subquery()
    query = (
        select(drills.c.run_key, drills.c.planned_at, last.c.at)
        .outerjoin(last, last.c.run_key == drills.c.run_key)
        .where(drills.c.finished_at.is_(None), drills.c.dry_run.is_(False))
    )
    with store.read() as connection:
        moment = now(connection)
        rows = connection.execute(query).all()
    abandoned = [
        row.run_key
        for row in rows
        if row.run_key != holder and moment - max(row.planned_at, row.at or row.planned_at) > _PATIENCE
    ]
    for key in abandoned:
        record_verdict(store, key, "ABORTED", "the run ended without its report", figures={}, summary={})
    return abandoned
