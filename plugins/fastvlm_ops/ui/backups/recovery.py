"""The page of what PostgreSQL components can be recovered to: a picture of each window, and what is wrong."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops import settings
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.ui.access import User, may_trigger
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.backup.wal_windows import WindowRow

log = logging.getLogger(__name__)

DAG_ID = "backup_wal"
RESTORE_DAG_ID = "restore_backup"
WIDTH = 1000.0
_LEAST = 3.0  # of the picture's width: little is not nothing
_SHOWN_BASES = 100
_STALE = timedelta(minutes=30)

#: Parts of the picture, and what they stand for.
TITLES = {
    "open": "can be recovered, to any moment",
    "gap": "WAL is missing",
    "late": "not stored yet, or unknown",
}

router = APIRouter()


@dataclass(frozen=True)
class Part:
    """A part of the time line."""

    name: str
    begins_at: datetime
    ends_at: datetime
    x: float
    width: float

    @property
    def title(self) -> str:
        """What it stands for."""
        return TITLES[self.name]


@dataclass(frozen=True)
class Mark:
    """A base backup on the time line. ``is_cut_off``: no way leads from it to the newest WAL."""

    snapshot_id: str
    at: datetime
    x: float
    is_cut_off: bool


@dataclass(frozen=True)
class Window:
    """A component as it is shown.

    :param form: what the restore form is to hold, as JSON; empty where there is nothing to recover to
    """

    row: WindowRow
    begins_at: datetime
    ends_at: datetime
    parts: list[Part]
    marks: list[Mark]
    form: str

    @property
    def is_stale(self) -> bool:
        """Whether it was proven too long ago to be believed."""
        return self.ends_at - self.row.checked_at > _STALE

    @property
    def summary(self) -> str:
        """For those who do not see the picture."""
        row = self.row
        if row.recoverable_from is None or row.recoverable_until is None:
            return f"Nothing is known to be recoverable; {len(self.marks)} base backups."
        text = (
            f"Any moment from {row.recoverable_from:%Y-%m-%d %H:%M:%S} to"
            f" {row.recoverable_until:%Y-%m-%d %H:%M:%S} UTC; {len(self.marks)} base backups"
        )
        return text + (". WAL is missing." if row.gap else ".")


@dataclass(frozen=True)
class RecoveryPage:
    """What the page shows.

    :param unproven: components whose WAL is received, but whose window no run has proven
    :param problem: why it is not known which components there are; empty where it is
    """

    windows: list[Window]
    unproven: list[str]
    problem: str


@router.get("/recovery")
def show_recovery(request: Request, user: User) -> HTMLResponse:
    """Show what each component can be recovered to."""
    try:
        found = read_recovery(datetime.now(UTC))
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        log.warning("The windows of recovery cannot be read", exc_info=error)
        return page(request, "backups/no_catalogue.html", section="backups", status=503, problem=told(error))
    return page(
        request,
        "backups/recovery.html",
        section="backups",
        found=found,
        dag_id=DAG_ID,
        restore_dag_id=RESTORE_DAG_ID,
        may_restore=may_trigger(user, RESTORE_DAG_ID),
        titles=TITLES,
        width=WIDTH,
    )


def read_recovery(now: datetime) -> RecoveryPage:
    """Read what the page shows.

    :param now: up to where time is drawn
    """
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.backup.wal_windows import read_windows
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        catalogue = Catalogue(store)
        windows = [window_of(row, bases(catalogue, row.component), now) for row in read_windows(store)]
    received, problem = _received()
    proven = {window.row.component for window in windows}
    return RecoveryPage(windows, [name for name in received if name not in proven], problem)


def bases(catalogue: Catalogue, component: str) -> dict[str, datetime]:
    """Return the published base backups of a component, and when each was finished."""
    found: dict[str, datetime] = {}
    for backup in catalogue.sets(component=component, limit=_SHOWN_BASES):
        for member in backup.members:
            if member.component == component and member.finished_at is not None:
                found[member.snapshot_id] = member.finished_at
    return found


def _received() -> tuple[list[str], str]:
    try:
        definitions = load_components(settings.include_dir())
    except (ConfigError, settings.SettingError) as error:
        return [], told(error)
    return [one.name for one in definitions.components if one.kind == "postgresql" and one.slot], ""


def window_of(row: WindowRow, bases: dict[str, datetime], now: datetime) -> Window:
    """Lay a window out over time.

    :param row: as it was last proven
    :param bases: base backups, by id of the snapshot, with when they were finished
    :param now: where the picture ends
    """
    times = [*bases.values(), *([row.recoverable_from] if row.recoverable_from else []), row.checked_at]
    begins_at, ends_at = min(times), max(now, row.checked_at)
    line = _Line(begins_at, ends_at)
    marks = [
        Mark(snapshot_id, at, line.x(at), row.recoverable_from is None or at < _with_slack(row))
        for snapshot_id, at in sorted(bases.items(), key=lambda item: item[1])
    ]
    return Window(row, begins_at, ends_at, _parts(row, line, ends_at), marks, _form(row))


def _with_slack(row: WindowRow) -> datetime:
    """A base backup is finished after the moment that its server says it stopped, and may be long after."""
    assert row.recoverable_from is not None  # noqa: S101 - asked only where it is known
    return row.recoverable_from - timedelta(seconds=1)


def _parts(row: WindowRow, line: _Line, ends_at: datetime) -> list[Part]:
    if row.recoverable_from is None or row.recoverable_until is None:
        return [line.part("gap" if row.gap else "late", line.begins_at, ends_at)]
    parts = []
    is_cut_before = row.gap is not None and line.begins_at < row.recoverable_from
    if is_cut_before:
        parts.append(line.part("gap", line.begins_at, row.recoverable_from))
    # Where no transaction came after the last one stored, every moment since is as that one.
    until = row.checked_at if row.lag_seconds == 0 else row.recoverable_until
    parts.append(line.part("open", row.recoverable_from, until))
    if until < ends_at:
        parts.append(line.part("gap" if row.gap and not is_cut_before else "late", until, ends_at))
    return parts


def _form(row: WindowRow) -> str:
    """To the newest moment; where that is the end of the base backup, there is nothing to recover to."""
    if row.recoverable_until is None or row.recoverable_until == row.recoverable_from:
        return ""
    moment = row.recoverable_until.astimezone(UTC).isoformat()
    return json.dumps({"components": [row.component], "recover_time": moment})


class _Line:
    """Times as places in the picture."""

    def __init__(self, begins_at: datetime, ends_at: datetime) -> None:
        self.begins_at = begins_at
        self._seconds = max((ends_at - begins_at).total_seconds(), 1.0)

    def x(self, at: datetime) -> float:
        share = (at - self.begins_at).total_seconds() / self._seconds
        return round(min(max(share, 0.0), 1.0) * WIDTH, 2)

    def part(self, name: str, begins_at: datetime, ends_at: datetime) -> Part:
        left, right = self.x(begins_at), self.x(ends_at)
        left = min(left, WIDTH - _LEAST)
        return Part(name, begins_at, ends_at, left, round(max(right - left, _LEAST), 2))
