"""What maintenance leaves for the pages to show: plans of pruning, verifications, and a damaged backup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from fastvlm_ops.core.backup.prunings import Status, record_outcome, record_plan
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables import backup as tables
from tests.integration.ui.rig import Rig

_GIB = 1 << 30
REASON = "37 of 61 backups would go, which is 61%; at most 50% may at once (max_share)\n<b>raise it</b>"
PACK = "packs/3f/3f9a<script>alert(3)</script>"


def add_maintenance(rig: Rig, number: int = 24) -> str:
    """Add two months of it, and damage one of the older backups.

    :param number: of the set that is damaged, counted from the oldest
    :returns: id of that set
    """
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store:
        _add_prunings(store)
        _add_verifications(store)
        return _damage(store, number)


def _add_prunings(store: Store) -> None:
    monday = datetime.now(UTC).replace(hour=5, minute=7, second=0, microsecond=0)
    with store.read() as connection:
        sets = connection.execute(select(tables.sets).order_by(tables.sets.c.sequence.desc())).all()
    for week in range(8):
        status, outcome = Status.DONE, {"deleted_objects": 212, "deleted_bytes": 3 * _GIB // 2}
        dry_run = week == 7
        if week == 0:
            status = Status.REFUSED
        elif week == 3:
            status = Status.REJECTED
        elif dry_run:
            status = Status.PLANNED
        run_key = f"backup_maintenance/scheduled__{(monday - timedelta(weeks=week)).isoformat()}"
        row = _row(run_key, monday - timedelta(weeks=week), sets)
        is_done = status is Status.DONE
        before = Status.WAITING if is_done or status is Status.REJECTED else status
        reason = REASON if status is Status.REFUSED else None
        record_plan(store, {**row, "status": before, "dry_run": dry_run, "reason": reason})
        if is_done:
            until = (monday + timedelta(days=12)).isoformat() if week < 3 else None
            locked = {"locked_objects": 31 if until else 0, "locked_until": until}
            record_outcome(store, run_key, status=status, collected={**outcome, **locked})
        elif status is Status.REJECTED:
            record_outcome(store, run_key, status=status, reason="rejected by Ada: nothing was touched")


def _row(run_key: str, at: datetime, sets: Any) -> dict[str, Any]:
    planned = [
        {
            "set_id": one.set_id,
            "kind": one.kind,
            "timestamp": one.timestamp.isoformat(timespec="seconds"),
            "kept": position < 24,
            "reasons": [f"last {position + 1}"] * (position < 7) + ["daily 2026-11-01"] * (position < 24),
        }
        for position, one in enumerate(sets)
    ]
    sizes = {"kept": 14 * _GIB, "copied": _GIB // 3, "removed": 5 * _GIB, "locked": _GIB // 2}
    forgotten = sum(not one["kept"] for one in planned)
    return {
        "run_key": run_key,
        "planned_at": at,
        "forgotten_sets": forgotten,
        "forgotten_snapshots": forgotten * 4,
        "packs": 703,
        "total_bytes": sum(sizes.values()),
        "removed_bytes": sizes["removed"] + sizes["copied"],
        "copied_bytes": sizes["copied"],
        "plan": {"sets": planned, "bytes": sizes},
    }


def _add_verifications(store: Store) -> None:
    now = datetime.now(UTC)
    figures = {"objects": 812, "size_bytes": 20 * _GIB, "read_bytes": 3 * _GIB, "duration_seconds": 412.0}
    with store.write() as connection:
        for week in range(1, 6):
            found = {"damaged_objects": 1, "named_objects": [PACK], "damaged_snapshots": 1, "ok": False}
            well = {"damaged_objects": 0, "named_objects": [], "damaged_snapshots": 0, "ok": True}
            connection.execute(
                insert(tables.verifications).values(
                    sequence=5_000_000 - week,
                    at=now - timedelta(weeks=week),
                    run_key="backup_maintenance/scheduled__2026-11-23T05:00:00+00:00",
                    level="share",
                    share=5 - week,
                    shares=8,
                    snapshots=244,
                    **(figures if week < 5 else {}),
                    **(found if week == 1 else well),
                )
            )


def _damage(store: Store, number: int) -> str:
    columns = tables.members.c
    query = (
        select(tables.sets.c.set_id, columns.snapshot_id)
        .join_from(tables.sets, tables.members)
        .where(columns.component == "models", tables.sets.c.sequence == number * 10 + 9)
    )
    with store.write() as connection:
        found = connection.execute(query).one()
        check = {"kind": "damaged", "sequence": 4_999_999, "level_or_where": "share", "share": 4, "shares": 8}
        run_key = "backup_maintenance/scheduled__2026-11-23T05:00:00+00:00"
        connection.execute(
            insert(tables.checks).values(
                snapshot_id=found.snapshot_id, at=datetime.now(UTC), run_key=run_key, **check
            )
        )
    return str(found.set_id)
