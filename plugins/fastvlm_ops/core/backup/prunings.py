"""What runs have planned to prune, and what came of it: rows of ``backup_pruning``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update

from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables.backup import prunings
from fastvlm_ops.core.store.upsert import upsert


class Status(StrEnum):
    """How far a run came."""

    #: A dry run, or nothing to remove.
    PLANNED = "planned"
    REFUSED = "refused"
    #: It is to be done, and somebody may still have to approve it.
    WAITING = "waiting"
    REJECTED = "rejected"
    UNFINISHED = "unfinished"
    DONE = "done"


@dataclass(frozen=True)
class Pruning:
    """A run's plan and what came of it. Sizes in bytes; None is not known, or has not happened.

    ``packs`` would be removed, ``removed_bytes`` of ``total_bytes``; of these ``copied_bytes`` are still
    needed, and are stored anew before. ``plan`` is what a page shows.
    """

    run_key: str
    planned_at: datetime
    status: str
    reason: str | None
    dry_run: bool
    forgotten_sets: int
    forgotten_snapshots: int
    packs: int | None
    total_bytes: int | None
    removed_bytes: int | None
    copied_bytes: int | None
    deleted_objects: int | None
    deleted_bytes: int | None
    locked_objects: int | None
    locked_until: datetime | None
    plan: Mapping[str, Any]


def record_plan(store: Store, row: Mapping[str, Any]) -> None:
    """Record what a run would do. The same run again replaces it, until it is done: that stands.

    :param row: all columns but those that say what came of it
    """
    with store.write() as connection:
        status = select(prunings.c.status).where(prunings.c.run_key == row["run_key"]).with_for_update()
        if connection.scalar(status) != Status.DONE:
            upsert(connection, prunings, [row], key=["run_key"], keep=["planned_at"])


def record_outcome(
    store: Store,
    run_key: str,
    *,
    status: Status,
    reason: str | None = None,
    collected: Mapping[str, Any] | None = None,
) -> None:
    """Record what came of a plan. Idempotent; a run that is done stays as it was recorded.

    :param collected: ``deleted_objects``, ``deleted_bytes``, ``locked_objects`` and ``locked_until`` (an
        aware time in ISO 8601, or None); None where nothing is known of them
    """
    values: dict[str, Any] = {"status": status, "reason": reason}
    if collected is not None:
        names = ("deleted_objects", "deleted_bytes", "locked_objects")
        values |= {name: collected[name] for name in names}
        until = collected["locked_until"]
        values["locked_until"] = None if until is None else datetime.fromisoformat(until)
    is_open = (prunings.c.run_key == run_key) & (prunings.c.status != Status.DONE)
    with store.write() as connection:
        connection.execute(update(prunings).where(is_open).values(**values))


def newest_prunings(store: Store, limit: int = 20) -> list[Pruning]:
    """Return what runs have planned, newest first.

    :param limit: how many at most
    """
    query = select(prunings).order_by(prunings.c.planned_at.desc(), prunings.c.run_key.desc()).limit(limit)
    with store.read() as connection:
        return [Pruning(**row) for row in connection.execute(query).mappings()]


def newest_by_status(store: Store) -> dict[str, datetime]:
    """Return when the newest plan of each status was made."""
    query = select(prunings.c.status, func.max(prunings.c.planned_at).label("at")).group_by(prunings.c.status)
    with store.read() as connection:
        # Of an aggregate SQLite returns the text that it stores; the column's type makes a moment of it.
        return {row.status: row.at for row in connection.execute(query)}
