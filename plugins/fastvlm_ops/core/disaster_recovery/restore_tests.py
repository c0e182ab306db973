"""Which backup a restore test is about, and the mark that it leaves in the repository's log."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.restoring import NOTE, RestoredSet
from fastvlm_ops.core.disaster_recovery.validating import Validated

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.journal import RestoreTest
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.backup.sets import BackupSet, SetMember
    from fastvlm_ops.core.store import Store

RESTORED = "restored"
FULL = "full"


def asked_set(repository: Repository, note: RestoredSet) -> BackupSet:
    """Return the newest full backup that was published when a restore began.

    :param repository: opened anew
    :param note: of the restore
    :raises InconclusiveError: there is none any more
    """
    from fastvlm_ops.core.backup.sets import list_sets

    sets = [one for one in list_sets(repository) if one.kind == FULL and one.sequence <= note.log_sequence]
    if not sets:
        raise InconclusiveError(f"{repository.storage} holds no full backup of before the restore any more")
    return sets[-1]


def older_than_asked(repository: Repository, note: RestoredSet, asked: BackupSet, store: Store) -> str | None:
    """Say how what was restored is older than what was asked for; None where it is not.

    :param repository: opened anew
    :param note: of the restore
    :param asked: the newest full backup that was published when it began
    :param store: the operations database, whose catalogue may know more than the log shows
    """
    from fastvlm_ops.core.backup.catalogue import Catalogue

    if asked.set_id != note.set_id:
        return f"backup {note.set_id} was restored, and {asked.set_id} of {asked.timestamp} asked for"
    catalogue = Catalogue(store)
    known = catalogue.sets(kind=FULL, limit=1)
    if not known or catalogue.repository_id() != repository.repository_id:
        return None
    if known[0].sequence > repository.log.state.seq:
        return (
            f"backup {note.set_id} was restored, and the catalogue knows a newer one, {known[0].set_id}: the"
            f" log of {repository.storage} lacks its entry {known[0].sequence}, so that an older state of it"
            " was read"
        )
    return None


def newest_before(
    repository: Repository, component: str, planned_at: str, sequence: int | None = None
) -> tuple[BackupSet, SetMember] | None:
    """Return the newest published backup of a component that was finished before a drill was planned.

    One that was made later may hold what the drill has broken.

    :param repository: an opened one
    :param component: its name
    :param planned_at: of the drill, in ISO 8601
    :param sequence: only of what was published up to there
    :returns: the set and the component's snapshot; None where there is none
    """
    from fastvlm_ops.core.backup.sets import list_sets

    planned = datetime.fromisoformat(planned_at)
    for backup in reversed(list_sets(repository)):
        if sequence is not None and backup.sequence > sequence:
            continue
        for member in backup.snapshots:
            record = repository.log.state.snapshots[member.snapshot_id]
            if member.component == component and datetime.fromisoformat(record["finished"]) <= planned:
                return backup, member
    return None


def mark_tested(
    repository: Repository,
    store: Store,
    set_id: str,
    found: Mapping[str, RestoreTest],
    *,
    run_key: str,
    say: Callable[[str], None],
) -> bool:
    """Record what a restore test has found, in the log and in the catalogue; returns whether it could be.

    It counts also where that cannot be written.

    :param repository: that the backup is in
    :param store: the operations database
    :param set_id: the backup that was tested
    :param found: by snapshot; of what could not be told, nothing
    :param run_key: of the drill
    :param say: is told why it could not be
    """
    from fastvlm_ops.core.backup.catalogue import refresh_catalogue
    from fastvlm_ops.core.backup.errors import BackupError
    from fastvlm_ops.core.backup.journal import record_restore_tested
    from fastvlm_ops.core.store import StoreError

    if not found:
        return False
    try:
        record_restore_tested(repository, set_id, found, run_key=run_key)
        refresh_catalogue(store, repository)
    except (BackupError, StoreError) as error:
        say(f"{set_id} cannot be marked in the log and the catalogue: {error}")
        return False
    return True


def recorded_test(found: Validated, seconds: float) -> RestoreTest:
    """Return what is recorded of a component.

    :param found: what was found of it
    :param seconds: that restoring it took
    """
    from fastvlm_ops.core.backup.journal import RestoreTest

    return RestoreTest(
        found.ok is True, found.files, found.size_bytes, seconds + found.seconds, tuple(found.problems)
    )


def remove_earlier(mine: Path) -> list[Path]:
    """Remove what earlier restore tests have left for people to look at; returns the folders.

    :param mine: the folder of this drill's restores, ``<all runs>/<run>/scratch/restored``, which stays
    """
    gone = []
    for note in sorted(mine.parents[2].glob(f"*/{mine.parent.name}/{RESTORED}/{NOTE}")):
        if note.parent.resolve() != mine.resolve() and not note.parent.is_symlink():
            shutil.rmtree(note.parent)
            gone.append(note.parent)
    return gone
