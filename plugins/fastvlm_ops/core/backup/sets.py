"""Backup sets: the snapshots of one run, tied together so that "latest" means all components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import BackupNotFoundError, IncompleteSetError
from fastvlm_ops.core.backup.repository import Repository

LATEST = "latest"
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
    members = []
    for component, snapshot_id in body["snapshots"].items():
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

    :raises IncompleteSetError: a component has no snapshot of this run; names those components.
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
    body = {
        "set_id": set_id,
        "kind": kind,
        "run_key": run_key,
        "timestamp": timestamp.isoformat(timespec="seconds"),
        "snapshots": {component: record["snapshot_id"] for component, record in found.items() if record},
    }

    def not_yet_published(state: LogState) -> None:
        if set_id in state.sets:
            raise _PublishedError

    try:
        repository.log.append("backup-set", body, still_valid=not_yet_published)
    except _PublishedError:
        return _from_body(state, state.sets[set_id], reused=True)
    return _from_body(state, state.sets[set_id])


class _PublishedError(Exception):
    """Another attempt of the same run has published first."""


def list_sets(repository: Repository) -> list[BackupSet]:
    """Published sets, oldest first."""
    state = repository.refresh()
    return [_from_body(state, body) for body in state.sets.values()]


def select_set(repository: Repository, backup_id: str) -> BackupSet:
    """A set by id, or the newest for ``latest``.

    :raises BackupNotFoundError: naming the newest ids there are.
    """
    sets = list_sets(repository)
    if not sets:
        raise BackupNotFoundError(f"{repository.storage} holds no published backup")
    if backup_id == LATEST:
        return sets[-1]
    for backup in sets:
        if backup.set_id == backup_id:
            return backup
    newest = ", ".join(backup.set_id for backup in reversed(sets[-_IDS_SHOWN:]))
    raise BackupNotFoundError(f"there is no backup {backup_id!r}; the newest are {newest}")
