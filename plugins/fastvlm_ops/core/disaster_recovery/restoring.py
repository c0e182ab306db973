"""Restoring a backup set into a folder of a drill, and the note of what was put there.

::

    <folder>/                    0711: a server's account may pass, and list nothing
        restored.json            what was restored, component by component
        <component>/             0700: what comes back may be secret
            files/               a snapshot, as it is
            data/, wal_restore/  of a cluster of PostgreSQL, see core.backup.postgresql.recovery
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.fault_types import Recorded

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.recovery import RecoveryPlan
    from fastvlm_ops.core.backup.progress import Progress
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet, SetMember

NOTE = "restored.json"
FILES = "files"
_HASHED_BYTES = 1 << 20


class OverTimeError(DrillError):
    """It was not done in its time."""


class RestoredComponent(Recorded):
    """A component that was restored.

    :param kind: ``cluster`` of PostgreSQL, or anything else
    :param seconds: that it took
    :param state_at: the moment whose state came back, in ISO 8601: nothing that was written before is missing
    :param made: SHA-256 of what the backup does not hold as it stands here, by path below the component's
        folder: settings of a recovery, and WAL
    :param reaches: LSN that a recovery must get beyond; None where there is none
    """

    component: str
    snapshot_id: str
    kind: Literal["files", "cluster"]
    files: int
    size_bytes: int
    seconds: float
    state_at: str
    made: dict[str, str] = Field(default_factory=dict)
    reaches: str | None = None


class RestoredSet(Recorded):
    """A backup set that was restored, or is being restored.

    :param log_sequence: end of the repository's log when it was chosen
    :param began_at: in ISO 8601, UTC
    """

    set_id: str
    log_sequence: int
    began_at: str
    components: tuple[RestoredComponent, ...] = Field(default=(), strict=False)

    @property
    def state_at(self) -> str | None:
        """The oldest moment whose state came back; None while there is nothing."""
        moments = [datetime.fromisoformat(one.state_at) for one in self.components]
        return min(moments).isoformat() if moments else None

    def component(self, name: str) -> RestoredComponent | None:
        """Return what was restored of a component; None where it was not.

        :param name: of the component
        """
        return next((one for one in self.components if one.component == name), None)


class Deadline:
    """Ends what takes too long.

    :param seconds: from now on
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left, at least a few."""
        return max(1.0, self._began + self.seconds - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() - self._began > self.seconds

    def check(self, progress: Progress | None = None) -> None:
        """See whether there is time left; a callback of the backup engine.

        :raises OverTimeError: there is none
        """
        if self.is_over:
            what = "" if progress is None else f"; the last that was seen: {progress.line()}"
            raise OverTimeError(f"it was not done within {self.seconds:g} s{what}")


def read_note(folder: Path) -> RestoredSet | None:
    """Return what was restored into a folder; None where nothing was.

    :param folder: of the restores of a drill
    :raises DrillError: the note cannot be read
    """
    try:
        return RestoredSet.model_validate_json((folder / NOTE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DrillError(f"{folder / NOTE} does not say what was restored: {error}") from error


def write_note(folder: Path, note: RestoredSet) -> None:
    """Write what was restored into a folder, in one step.

    :param folder: of the restores of a drill
    :param note: of them
    """
    temporary = folder / f".{NOTE}"
    temporary.write_text(note.model_dump_json(indent=1) + "\n")
    temporary.replace(folder / NOTE)


def make_folder(folder: Path) -> None:
    """Make the folder that components are restored into.

    :param folder: that may be there
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)


def begin_set(repository: Repository, backup: BackupSet, folder: Path) -> RestoredSet:
    """Return the note of a set that is to be restored; what an attempt before has restored of it stays.

    :param repository: that it is in
    :param backup: the set
    :param folder: of the restores of a drill
    """
    make_folder(folder)
    found = read_note(folder)
    if found is not None and found.set_id == backup.set_id:
        return found
    sequence = repository.log.state.seq
    return RestoredSet(set_id=backup.set_id, log_sequence=sequence, began_at=datetime.now(UTC).isoformat())


def restore_component(
    repository: Repository, member: SetMember, folder: Path, progress: Callable[[Progress], None]
) -> RestoredComponent:
    """Restore a component into a folder of its own, which is emptied before.

    :param repository: that it is in
    :param member: the component, and its snapshot
    :param folder: of the restores of a drill
    :param progress: is told how far it is, and may raise to end it
    :raises BackupError: it does not restore
    """
    from fastvlm_ops.core.backup.postgresql.bases import base_of
    from fastvlm_ops.core.backup.reading import read_manifest
    from fastvlm_ops.core.backup.restore import restore_snapshot

    began = time.monotonic()
    place = folder / member.component
    if place.is_symlink() or place.exists():  # of an attempt that was stopped
        shutil.rmtree(place)
    place.mkdir(mode=0o700)
    manifest = read_manifest(repository, repository.log.state.snapshots[member.snapshot_id])
    if base_of(manifest) is not None:
        return _restore_cluster(repository, member, place, progress, began)
    result = restore_snapshot(repository, member.snapshot_id, place / FILES, progress=progress)
    return RestoredComponent(
        component=member.component,
        snapshot_id=member.snapshot_id,
        kind="files",
        files=result.files,
        size_bytes=result.size_bytes,
        seconds=round(time.monotonic() - began, 3),
        state_at=str(manifest["started"]),
    )


def _restore_cluster(
    repository: Repository,
    member: SetMember,
    place: Path,
    progress: Callable[[Progress], None],
    began: float,
) -> RestoredComponent:
    from fastvlm_ops.core.backup.postgresql.lsn import format_lsn
    from fastvlm_ops.core.backup.postgresql.recovery import recover

    plan = _plan_cluster(repository, member)
    result = recover(repository, plan, place, progress)
    last = plan.segments[-1].segment if plan.segments else None
    until = plan.window.recoverable_until if last is not None else None
    return RestoredComponent(
        component=member.component,
        snapshot_id=member.snapshot_id,
        kind="cluster",
        files=result.files,
        size_bytes=result.size_bytes,
        seconds=round(time.monotonic() - began, 3),
        state_at=(until or plan.base.stopped_at).isoformat(),
        made=hash_made(place),
        reaches=format_lsn(plan.base.stop_lsn if last is None else max(last.start_lsn, plan.base.stop_lsn)),
    )


def _plan_cluster(repository: Repository, member: SetMember) -> RecoveryPlan:
    """To the end of the stored WAL, where it reaches beyond the base backup; else the base backup alone.

    :raises RecoveryError: WAL is missing between what is stored
    """
    from fastvlm_ops.core.backup.errors import RecoveryError
    from fastvlm_ops.core.backup.postgresql.base_plan import plan_base_alone
    from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget, plan_recovery

    alone = plan_base_alone(repository, member.component, member.snapshot_id)
    base = next((one for one in alone.window.bases if one.snapshot_id == member.snapshot_id), None)
    gap = next((one for one in alone.window.gaps if member.snapshot_id in one.bases), None)
    if gap is not None:
        raise RecoveryError(f"{member.component} cannot be recovered to the end of its WAL: {gap}")
    if base is None or base.reach_lsn is None or base.reach_lsn < base.stop_lsn:
        return alone
    return plan_recovery(repository, member.component, RecoveryTarget(), snapshot_id=member.snapshot_id)


def hash_made(place: Path) -> dict[str, str]:
    """Return the SHA-256 of what a recovery has made in a cluster's folder, by path below it.

    :param place: folder of a recovery
    """
    from fastvlm_ops.core.backup.postgresql.recovery_settings import DATA, WAL

    data = [place / DATA / name for name in rewritten_files()]
    wal = sorted(path for path in (place / WAL).iterdir()) if (place / WAL).is_dir() else []
    return {
        path.relative_to(place).as_posix(): hash_file(path)
        for path in (*data, *wal)
        if path.is_file() and not path.is_symlink()
    }


def rewritten_files() -> tuple[str, ...]:
    """Return the files of a data folder that a recovery makes, changes or removes."""
    from fastvlm_ops.core.backup.postgresql.recovery_settings import FOREIGN_FILES, SETTINGS_FILE, SIGNAL_FILE

    return ("postgresql.conf", "pg_hba.conf", SETTINGS_FILE, SIGNAL_FILE, *FOREIGN_FILES)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    :param path: of the file
    """
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_HASHED_BYTES):
            hasher.update(data)
    return hasher.hexdigest()


def remove_restored(folder: Path) -> bool:
    """Remove all that was restored into a folder, which may be secret; returns whether there was anything.

    :param folder: of the restores of a drill
    """
    if not os.path.lexists(folder):
        return False
    shutil.rmtree(folder)
    return True


def small(note: RestoredSet) -> dict[str, Any]:
    """Return what was restored as small JSON, for evidence.

    :param note: of it
    """
    names = ("component", "snapshot_id", "kind", "files", "size_bytes", "seconds", "state_at")
    return {
        "set_id": note.set_id,
        "began_at": note.began_at,
        "backup_at": note.state_at,
        "components": [{name: getattr(one, name) for name in names} for one in note.components],
    }
