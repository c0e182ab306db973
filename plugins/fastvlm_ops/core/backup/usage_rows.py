"""What runs have asked S3 for, as rows of ``backup_usage``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select

from fastvlm_ops.core.backup.usage import REPLICA_SUFFIX, Usage
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.backup import usages
from fastvlm_ops.core.store.upsert import upsert

_COUNTS = tuple(Usage().as_dict())


@dataclass(frozen=True)
class RunUsage:
    """What all tasks of a run have asked of one place.

    :param at: when the last of them was recorded
    """

    run_key: str
    at: datetime
    usage: Usage

    @property
    def dag_id(self) -> str:
        return self.run_key.partition("/")[0]


def record_usage(store: Store, run_key: str, task: str, usage: Usage) -> None:
    """Write the row of an attempt of a task; the same again changes nothing but the time.

    :param task: its name with map index and attempt
    :raises StoreError: the database cannot be written
    """
    with store.write() as connection:
        row = {"run_key": run_key, "task": task, "at": now(connection), **usage.as_dict()}
        upsert(connection, usages, [row], key=("run_key", "task"))


def usage_since(store: Store, since: datetime, *, replica: bool = False) -> Usage | None:
    """All that was asked of a place from a moment on; None when nothing is recorded.

    :param replica: of the second place
    """
    columns = [func.sum(usages.c[name]) for name in _COUNTS]
    query = select(func.count(), *columns).where(usages.c.at >= since, _of_place(replica))
    with store.read() as connection:
        count, *sums = connection.execute(query).one()
    return Usage(**{name: int(total) for name, total in zip(_COUNTS, sums, strict=True)}) if count else None


def first_recorded(store: Store) -> datetime | None:
    """When the first row was written that is still there; None: there is none."""
    with store.read() as connection:
        return connection.scalar(select(usages.c.at).order_by(usages.c.at).limit(1))


def usage_by_run(store: Store, limit: int, *, replica: bool = False) -> Sequence[RunUsage]:
    """What the newest runs have asked of a place, newest first."""
    columns = [func.sum(usages.c[name]).label(name) for name in _COUNTS]
    newest = func.max(usages.c.at).label("newest")
    query = (
        select(usages.c.run_key, newest, *columns)
        .where(_of_place(replica))
        .group_by(usages.c.run_key)
        .order_by(newest.desc())
        .limit(limit)
    )
    with store.read() as connection:
        rows = connection.execute(query).all()
    return [
        RunUsage(row.run_key, row.newest, Usage(**{name: int(getattr(row, name)) for name in _COUNTS}))
        for row in rows
    ]


def _of_place(replica: bool) -> ColumnElement[bool]:
    there = usages.c.task.endswith(REPLICA_SUFFIX, autoescape=True)
    return there if replica else ~there
