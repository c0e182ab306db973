"""Backup sets: the snapshots of one run, tied together so that "latest" means all components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fastvlm_ops.core.backup.commit_log import LogState, seq_of
from fastvlm_ops.core.backup.errors import BackupNotFoundError, IncompleteSetError
from fastvlm_ops.core.backup.identifiers import require_name
from fastvlm_ops.core.backup.repository import Repository

LATEST = "latest"
COMPLETE_KINDS = ("full", "incremental")
_IDS_SHOWN = 5


@dataclass(frozen=True)
class SetMember:
    """A component's snapshot in a set. Sizes in bytes."""

    component: str
    snapshot_id: str
    files: int
    size_bytes: int
    new_bytes: int


@dataclass(frozen=True)
class BackupSet:
    """A published backup. ``timestamp`` is the run's as-of, ISO 8601, for people; order is ``sequence``."""

    set_id: str
    kind: str
    timestamp: str
    run_key: str
    sequence: int
    snapshots: tuple[SetMember, ...]
    reused: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "snapshots": [asdict(member) for member in self.snapshots],
            "files": sum(member.files for member in self.snapshots),
            "size_bytes": sum(member.size_bytes for member in self.snapshots),
            "new_bytes": sum(member.new_bytes for member in self.snapshots),
        }


def _from_body(state: LogState, body: dict[str, Any], *, reused: bool = False) -> BackupSet:
    require_name(body["set_id"], "a backup set")
    members = []
    for component, snapshot_id in body["snapshots"].items():
        require_name(component, f"a component of {body['set_id']}")
        record = state.snapshots[snapshot_id]
        fields = (record["files"], record["size_bytes"], record["new_bytes"])
        members.append(SetMember(component, snapshot_id, *fields))
    return BackupSet(
        body["set_id"], body["kind"], body["timestamp"], body["run_key"], body["seq"], tuple(members), reused
    )


def publish_set(
    repository: Repository,
    *,
    set_id: str,
    kind: str,
    run_key: str,
    components: Sequence[str],
    timestamp: datetime,
) -> BackupSet:
    """Publish what a run backed up. Idempotent by ``set_id``.

    :raises IncompleteSetError: a component has no snapshot of this run, or it was forgotten before the set
        was published; names those components or snapshots.
    """
    state = repository.refresh()
    if set_id in state.sets:
        return _from_body(state, state.sets[set_id], reused=True)
    found = {component: state.snapshot_of_run(component, run_key) for component in components}
    missing = sorted(component for component, record in found.items() if record is None)
    if missing or not found:
        raise IncompleteSetError(
            f"no snapshot of {', '.join(missing) or 'any component'} in run {run_key}: backup set {set_id} "
            "is not published, the last published one stays the latest"
        )
    body: dict[str, Any] = {
        "set_id": set_id,
        "kind": kind,
        "run_key": run_key,
        "timestamp": timestamp.isoformat(timespec="seconds"),
        "snapshots": {component: record["snapshot_id"] for component, record in found.items() if record},
    }

    def not_yet_published(state: LogState) -> None:
        if set_id in state.sets:
            raise _PublishedError
        gone = sorted(set(body["snapshots"].values()) - state.snapshots.keys())
        if gone:
            raise IncompleteSetError(
                f"{', '.join(gone)} of run {run_key} was forgotten meanwhile: backup set {set_id} is not "
                "published, the last published one stays the latest"
            )

    try:
        repository.log.append("backup-set", body, still_valid=not_yet_published)
    except _PublishedError:
        return _from_body(state, state.sets[set_id], reused=True)
    return _from_body(state, state.sets[set_id])


class _PublishedError(Exception):
    """Another attempt of the same run has published first."""


def list_sets(repository: Repository) -> list[BackupSet]:
    """Published sets, oldest first."""
    return sets_of(repository.refresh())


def sets_of(state: LogState) -> list[BackupSet]:
    """Published sets of a state of the log, oldest first."""
    return [_from_body(state, body) for body in state.sets.values()]


def select_set(repository: Repository, backup_id: str) -> BackupSet:
    """Find a set.

    :param backup_id: its id; ``latest`` for the newest with all components, full or incremental;
        ``latest-<kind>`` for the newest of a kind; or a time in ISO 8601 (UTC unless it says otherwise)
        for the newest with all components that was published by then. When that was is decided by the
        clock of S3, which stamps each entry of the log to the second, and order by the log: not by our
        clocks.
    :raises BackupNotFoundError: naming the newest ids there are.
    """
    sets = list_sets(repository)
    if not sets:
        raise BackupNotFoundError(f"{repository.storage} holds no published backup")
    for backup in sets:
        if backup.set_id == backup_id:
            return backup
    moment = _parse_time(backup_id)
    if moment is not None:
        found = [
            backup for backup in _published_by(repository, sets, moment) if backup.kind in COMPLETE_KINDS
        ]
        problem = f"no backup with all components was published by {moment.isoformat()}"
    else:
        kinds = COMPLETE_KINDS if backup_id == LATEST else (backup_id.removeprefix(f"{LATEST}-"),)
        found = [backup for backup in sets if backup.kind in kinds]
        problem = f"there is no backup {backup_id!r}"
    if found:
        return found[-1]
    newest = ", ".join(backup.set_id for backup in reversed(sets[-_IDS_SHOWN:]))
    raise BackupNotFoundError(f"{problem}; the newest are {newest}")


def _parse_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _published_by(repository: Repository, sets: list[BackupSet], moment: datetime) -> list[BackupSet]:
    """Sets up to the last entry of the log that S3 had stored by then.

    S3's own clock may step back between two entries: one that is followed by an earlier one counts as
    stored no later than that.
    """
    last = 0
    for info in repository.storage.list("log/"):
        if info.last_modified <= moment:
            last = seq_of(info.name)
    return [backup for backup in sets if backup.sequence <= last]
