"""The safety lever: one row that keeps every drill from breaking anything, and ends those that run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select

from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.disaster_recovery import lever
from fastvlm_ops.core.store.upsert import upsert

_NAME = "drills"

State = Literal["allowed", "stopped"]


@dataclass(frozen=True)
class Lever:
    """The lever as it is.

    :param state: whether drills may break anything
    :param reason: as who pulled it gave it
    :param changed_by: who; empty where nobody ever pulled it
    :param changed_at: None where nobody ever pulled it
    """

    state: State
    reason: str = ""
    changed_by: str = ""
    changed_at: datetime | None = None

    @property
    def text(self) -> str:
        """The lever in one sentence."""
        if self.changed_at is None:
            return "drills are allowed; nobody ever stopped them"
        since = f"{self.changed_at:%Y-%m-%d %H:%M} UTC"
        return f"drills are {self.state} by {self.changed_by} since {since}: {self.reason}"


def read_lever(store: Store) -> Lever:
    """Return the lever.

    :param store: the operations database
    :raises StoreUnavailableError: it cannot be read: then nothing may be broken
    """
    with store.read() as connection:
        row = connection.execute(select(lever).where(lever.c.name == _NAME)).first()
    if row is None:
        return Lever("allowed")
    # Whatever else stands there is no permission.
    state: State = "allowed" if row.state == "allowed" else "stopped"
    return Lever(state, row.reason, row.changed_by, row.changed_at)


def pull_lever(store: Store, state: State, *, reason: str, by: str) -> Lever:
    """Stop all drills, or allow them again.

    :param store: the operations database
    :param state: from now on
    :param reason: for people
    :param by: who pulls it
    """
    with store.write() as connection:
        moment = now(connection)
        row = {"name": _NAME, "state": state, "reason": reason[:500], "changed_by": by[:255]}
        upsert(connection, lever, [{**row, "changed_at": moment}], key=["name"])
    return Lever(state, reason[:500], by[:255], moment)
