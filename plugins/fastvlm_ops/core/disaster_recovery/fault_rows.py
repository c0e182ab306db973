"""The faults' rows in the operations database: what people and other machines see of the entries.

The entries are the truth. Rows follow them, and may be late: the database can be away when a fault ends.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    entry_files,
    read_entry,
    remove_entry,
)
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError
from fastvlm_ops.core.disaster_recovery.reaper import ARMED_SECONDS
from fastvlm_ops.core.store.clock import now as database_now
from fastvlm_ops.core.store.engine import Store
from fastvlm_ops.core.store.tables.disaster_recovery import faults
from fastvlm_ops.core.store.upsert import upsert

#: How much longer than its time to live a fault may look as if it were there: holder, reaper, and the row.
GRACE_SECONDS = 30.0
#: Of an entry, after its fault has ended; its row stays.
KEPT = timedelta(days=7)


@dataclass(frozen=True)
class OverdueFault:
    """A fault that, as its row has it, is there longer than it may be.

    :param since: when it should have been taken back at the latest
    """

    fault_id: str
    run_key: str
    host: str
    since: datetime
    problem: str | None

    def __str__(self) -> str:
        why = f": {self.problem}" if self.problem else ""
        return f"{self.fault_id} of {self.run_key} on {self.host}, since {self.since:%Y-%m-%dT%H:%M:%SZ}{why}"


def record_armed(store: Store, entry: FaultEntry) -> None:
    """Write the row of a fault, once its entry is written.

    :param store: the operations database
    :param entry: as it is
    :raises StoreError: the database does not answer
    """
    with store.write() as connection:
        upsert(connection, faults, [_row(entry)], ["fault_id"])


def sync_entries(store: Store, drill_dir: Path) -> int:
    """Bring the rows of this machine's entries up to date; entries that cannot be read leave theirs as it is.

    :param store: the operations database
    :param drill_dir: of this machine
    :returns: how many rows changed
    :raises StoreError: the database does not answer
    """
    rows = {}
    for file in entry_files(drill_dir):
        with contextlib.suppress(EntryError):  # the reaper reports it
            row = _row(read_entry(file))
            rows[row["fault_id"]] = row
    if not rows:
        return 0
    with store.read() as connection:
        query = select(faults).where(faults.c.fault_id.in_(rows))
        present = {row.fault_id: dict(row._mapping) for row in connection.execute(query)}
    changed = [row for fault_id, row in rows.items() if present.get(fault_id) != row]
    if changed:
        with store.write() as connection:
            upsert(connection, faults, changed, ["fault_id"])
    return len(changed)


def remove_old_entries(store: Store, drill_dir: Path) -> int:
    """Remove the entries of faults that ended long ago and whose rows say so: the reaper reads each of them,
    twice a second.

    :param store: the operations database
    :param drill_dir: of this machine
    :returns: how many were removed
    :raises StoreError: the database does not answer
    """
    before = (datetime.now(UTC) - KEPT).isoformat()
    ended = {}
    for file in entry_files(drill_dir):
        with contextlib.suppress(EntryError):
            entry = read_entry(file)
            if entry.is_closed and entry.undone_at is not None and entry.undone_at < before:
                ended[entry.fault_id] = file
    if not ended:
        return 0
    with store.read() as connection:
        query = select(faults.c.fault_id).where(faults.c.fault_id.in_(ended), faults.c.undone_at.is_not(None))
        recorded = connection.execute(query).scalars().all()
    for fault_id in recorded:
        remove_entry(ended[fault_id])
    return len(recorded)


def overdue(store: Store, now: datetime | None = None) -> list[OverdueFault]:
    """Return the faults of all machines that are there longer than they may be, or of which nobody knows.

    :param store: the operations database
    :param now: the database's clock unless given
    :raises StoreError: the database does not answer
    """
    query = select(faults).where(faults.c.undone_at.is_(None)).order_by(faults.c.armed_at)
    with store.read() as connection:
        moment = now or database_now(connection)
        rows = connection.execute(query).all()
    late = []
    for row in rows:
        # Never seen injected: its machine may be gone, with the fault on it.
        end = row.expires_at or row.armed_at + timedelta(seconds=ARMED_SECONDS + row.time_to_live_seconds)
        if end + timedelta(seconds=GRACE_SECONDS) < moment:
            late.append(OverdueFault(row.fault_id, row.run_key, row.host, end, row.problem))
    return late


def _row(entry: FaultEntry) -> dict[str, Any]:
    return {
        "fault_id": entry.fault_id,
        "run_key": entry.run_key,
        "host": entry.host,
        "fault": entry.fault.model_dump(mode="json"),
        "time_to_live_seconds": entry.time_to_live_seconds,
        "armed_at": datetime.fromisoformat(entry.armed_at),
        "injected_at": _moment(entry.fault_at),
        "expires_at": _moment(entry.expires_at),
        "undone_at": _moment(entry.undone_at),
        "undone_by": entry.undone_by,
        "problem": entry.problem,
    }


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
