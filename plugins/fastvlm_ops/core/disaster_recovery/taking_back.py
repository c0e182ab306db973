"""Takes a fault back and writes into its entry what came of it: for its holder, a task, and the reaper."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.core.disaster_recovery import faults
from fastvlm_ops.core.disaster_recovery.fault_entries import FaultEntry, UndoneBy, timestamp, write_entry


def take_back(file: Path, entry: FaultEntry, by: UndoneBy) -> FaultEntry:
    """Take a fault back and look whether anything of it is left. Call it under the lock of the fault.

    :param file: of its entry
    :param entry: as it was read under the lock
    :param by: who takes it back
    :returns: the entry as it was written: closed, or with the problem that is in the way
    :raises EntryError: the entry cannot be written; the fault may be gone nevertheless
    """
    try:
        how = faults.revert(entry.fault, entry.hit)
        left = faults.is_left(entry.fault, entry.hit)
    except Exception as error:
        # Of whatever kind: who takes back has to live on, try again, and say so.
        changed = entry.changed(problem=explained(error))
    else:
        if left is None:
            changed = close(entry, by, how)
        else:
            changed = entry.changed(problem=f"something of it is left: {left} (what was done: {how})")
    write_entry(file, changed)
    return changed


def close(entry: FaultEntry, by: UndoneBy, how: str) -> FaultEntry:
    """Return an entry of which nothing is there any more, or never was."""
    state = "never_injected" if entry.state == "armed" else "undone"
    return entry.changed(state=state, undone_at=timestamp(), undone_by=by, undone_how=how)


def explained(error: Exception) -> str:
    """Return what an error says; with its kind, where it is none of ours."""
    return str(error) if isinstance(error, faults.FaultError) else f"{type(error).__name__}: {error}"
