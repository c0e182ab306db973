"""Takes back what has outlived its time: faults of this machine whose holder died, hangs, or never came back.

It reads nothing but entries, so that it needs no scenario, no database and no Airflow. What it cannot read it
reports each time, and leaves alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fastvlm_ops.core.disaster_recovery.fault_entries import (
    FaultEntry,
    LockBusyError,
    entry_files,
    locked,
    read_entry,
    this_host,
    this_namespace,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError
from fastvlm_ops.core.disaster_recovery.holding import end_hanging_holder, holders
from fastvlm_ops.core.disaster_recovery.taking_back import close, take_back

#: How long a fault may stay armed and not be injected: its drill is dead by then.
ARMED_SECONDS = 3600.0
_AT_ONCE = 8
#: Processes are gone when the machine was started anew, and their numbers mean others in another container. A
#: link, for one, stays disturbed: who supervises it remembers that on disk.
_OF_PROCESSES = frozenset({"process", "database"})

Outcome = Literal["taken_back", "closed", "left", "busy", "unreadable"]


@dataclass(frozen=True)
class ReapResult:
    """What came of an entry that was not left as it is.

    :param fault_id: by the name of its file
    :param outcome: ``closed``: nothing had to be taken back; ``left``: it could not be taken back; ``busy``:
        another takes it back at this moment
    :param detail: what was done, or what is in the way
    """

    fault_id: str
    outcome: Outcome
    detail: str

    @property
    def ok(self) -> bool:
        """Whether nothing of it is left."""
        return self.outcome in {"taken_back", "closed"}

    def __str__(self) -> str:
        return f"{self.fault_id}: {self.outcome.replace('_', ' ')}: {self.detail}"


def reap(drill_dir: Path, *, grace_seconds: float = 1.0) -> list[ReapResult]:
    """Take back the faults of this machine whose time to live is over.

    :param drill_dir: of this machine
    :param grace_seconds: that their holders have to do it themselves
    :returns: one for each entry that something was done about, or should be
    """
    files = entry_files(drill_dir)
    if not files:
        return []
    # At once: one whose service does not answer must not keep the others waiting.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(lambda file: _reap(file, grace_seconds), files))
    return [result for result in results if result is not None]


def is_overdue(entry: FaultEntry, grace_seconds: float) -> bool:
    """Whether a fault is there, or may be, longer than it may be.

    :param entry: of a fault
    :param grace_seconds: that are not counted
    """
    left = entry.seconds_left
    return not entry.is_closed and left is not None and left < -grace_seconds


def _reap(file: Path, grace_seconds: float) -> ReapResult | None:
    try:
        entry = read_entry(file)
        if not _is_due(entry, grace_seconds):
            return None
        if entry.of_this_boot and entry.fault.kind in _OF_PROCESSES and entry.namespace != this_namespace():
            detail = f"it was armed in another container ({entry.namespace}): run the reaper there"
            return ReapResult(file.stem, "left", detail)
        with locked(file, 0):
            entry = read_entry(file)
            return _end(file, entry) if _is_due(entry, grace_seconds) else None
    except LockBusyError:
        return _busy(file, entry)
    except EntryError as error:
        return _unreadable(file, error)


def _is_due(entry: FaultEntry, grace_seconds: float) -> bool:
    if entry.is_closed or entry.host != this_host():
        return False
    if entry.state == "armed":
        age = datetime.now(UTC) - datetime.fromisoformat(entry.armed_at)
        return age.total_seconds() > ARMED_SECONDS
    return is_overdue(entry, grace_seconds)


def _end(file: Path, entry: FaultEntry) -> ReapResult:
    why = None
    if entry.state == "armed":
        why = f"it was armed at {entry.armed_at} and never injected"
    elif not entry.of_this_boot and entry.fault.kind in _OF_PROCESSES:
        why = "the machine was started anew since, and nothing of it can be there any more"
    if why is not None:
        write_entry(file, close(entry, "reaper", why))
        return ReapResult(file.stem, "closed", why)
    entry = take_back(file, entry, "reaper")
    if entry.is_closed:
        return ReapResult(file.stem, "taken_back", entry.undone_how or "")
    return ReapResult(file.stem, "left", entry.problem or "")


def _busy(file: Path, entry: FaultEntry) -> ReapResult:
    if end_hanging_holder(entry):
        return ReapResult(file.stem, "busy", "its holder hung, and was killed; the next look takes over")
    return ReapResult(file.stem, "busy", "another process takes it back")


def _unreadable(file: Path, error: EntryError) -> ReapResult:
    living = holders(file)
    comfort = f"; its holder (process {living[0].pid}) is alive, and will take it back" if living else ""
    return ReapResult(file.stem, "unreadable", f"{error}{comfort}")
