"""What runs have asked for, and what has lain in the bucket, for the page of costs to show."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select

from fastvlm_ops.core.backup.costs import StoredBytes, record_stored
from fastvlm_ops.core.backup.replica_state import record_replication
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables import backup as tables
from tests.integration.ui.rig import Rig

_GIB, _MIB = 1 << 30, 1 << 20
HOSTILE = "backup_full/<script>alert(9)</script>"
PRICES = """
prices:
  currency: USD
  as_of: 2026-11-01
  gb_month: {STANDARD: 0.023, STANDARD_IA: 0.0125}
  requests_per_1000: {put: 0.005, get: 0.0004, head: 0.0004, list: 0.005, delete: 0, copy: 0.005}
  out_gb: 0.09
"""


def add_spending(rig: Rig, days: int = 60) -> None:
    """Add two months of it, and the prices to the rig's ``components.yaml``."""
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{rig.database}") as store:
        with store.write() as connection:
            known = connection.execute(select(tables.catalogue)).one()
            repository_id = known.repository_id
            rows = [_row(now, day) for day in range(days)]
            connection.execute(insert(tables.usages), [*rows, {**rows[0], "run_key": HOSTILE}])
        for day in reversed(range(days)):
            record_stored(store, str(repository_id), _stored(now - timedelta(days=day), days - day))
        replication = {"ok": True, "connection": "fastvlm_s3_replica", "repository_id": repository_id}
        replication |= {
            "sequence": known.sequence - 4,
            "behind_entries": 4,
            "behind_seconds": 9000.0,
            "objects": 3,
        }
        replication |= {"complete_until": (now - timedelta(hours=3)).isoformat(), "size_bytes": 5}
        record_replication(store, "backup_replicate/1", replication, {"ok": True})
    file = rig.folder / "include" / "components.yaml"
    file.write_text(file.read_text() + PRICES)


def _row(now: datetime, day: int) -> dict[str, object]:
    is_full = day % 7 == 0
    packs = 80 if is_full else 9 + day % 5
    used = Usage(puts=packs + 6, gets=30 + day, heads=400 if is_full else 2, lists=9, deletes=1)
    bytes_ = {"sent_bytes": packs * 8 * _MIB, "received_bytes": (3 + day % 4) * _MIB}
    kind = "full" if is_full else "incremental"
    at = now - timedelta(days=day, hours=2)
    return {
        "run_key": f"backup_{kind}/scheduled__{at:%Y-%m-%dT%H:%M}",
        "task": "create_backup[0]",
        "at": at,
        **used.as_dict(),
        **bytes_,
    }


def _stored(at: datetime, age: int) -> StoredBytes:
    packs = round((90 + 1.4 * age + 6 * math.sin(age / 4)) * _GIB)
    kinds = {"packs": packs, "index": 60 * _MIB, "snapshots": 3 * _MIB, "log": 2 * _MIB, "keys": 900}
    old = packs // 3
    classes = {"STANDARD": {"0": packs - old, "30": 65 * _MIB}, "STANDARD_IA": {"90": old}}
    return StoredBytes(at, 12_000 + 40 * age, kinds, classes)
