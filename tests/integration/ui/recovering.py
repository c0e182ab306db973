"""Windows of recovery for the page to show: one that is well, one with a gap, one that is unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.backup import wal_windows
from tests.integration.ui.rig import Rig

GAP = (
    "segment 000000010000000000000005 is missing (LSN 0/5000000 to 0/6000000); nothing after it can be"
    " reached from <b>full-1</b>"
)


def add_windows(rig: Rig) -> str:
    """Add them; returns the newest moment that the first can be recovered to, as the form takes it."""
    now = datetime.now(UTC).replace(microsecond=0)
    until = now - timedelta(minutes=3)
    row: dict[str, Any] = {
        "component": "application_data",  # whose backups in the catalogue are its bases
        "checked_at": now - timedelta(minutes=1),
        "system_id": "7301234567890123456",
        "timeline": 2,
        "recoverable_from": now - timedelta(days=21),
        "recoverable_until": until,
        "from_lsn": "0/3000128",
        "until_lsn": "2/9000000",
        "server_lsn": "2/9000F28",
        "lag_bytes": 3880,
        "lag_seconds": 120.0,
        "segments": 2087,
        "stored_bytes": 7 << 30,
        "gap": None,
    }
    broken = {"component": "models", "gap": GAP, "recoverable_from": now - timedelta(days=9)}
    broken |= {"recoverable_until": now - timedelta(days=2), "lag_seconds": 172800.0}
    unknown = {name: None for name in row if name not in ("component", "segments", "stored_bytes")}
    unknown |= {"component": "uploads", "checked_at": now - timedelta(hours=2)}
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store, store.write() as connection:
        connection.execute(insert(wal_windows), [row, {**row, **broken}, {**row, **unknown}])
    return until.isoformat()
