"""The plan of a base backup that is recovered by itself: to its own end, by the WAL that it carries."""

from __future__ import annotations

from fastvlm_ops.core.backup.errors import BackupNotFoundError, RecoveryError
from fastvlm_ops.core.backup.postgresql.bases import EVIDENCE, base_of
from fastvlm_ops.core.backup.postgresql.recovery_plan import RecoveryPlan
from fastvlm_ops.core.backup.postgresql.recovery_target import RecoveryTarget
from fastvlm_ops.core.backup.postgresql.window import prove_window
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.repository import Repository


def plan_base_alone(repository: Repository, component: str, snapshot_id: str) -> RecoveryPlan:
    """Plan to recover a base backup without any WAL that was stored besides.

    :param repository: an opened one; its log is read to its end
    :param snapshot_id: the base backup
    :raises BackupNotFoundError: there is no such snapshot
    :raises RecoveryError: it is no base backup
    :raises CorruptionError: its manifest is damaged
    """
    record = repository.refresh().snapshots.get(snapshot_id)
    if record is None or record["component"] != component:
        raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} of {component}")
    manifest = read_manifest(repository, record)
    base = base_of(manifest)
    if base is None:
        raise RecoveryError(f"{snapshot_id} of {component} is no base backup of PostgreSQL")
    return RecoveryPlan(
        component,
        RecoveryTarget(timeline=base.timeline),
        base,
        base.timeline,
        segments=(),
        histories=(),
        base_bytes=record["size_bytes"],
        superuser=str(manifest["evidence"][EVIDENCE].get("superuser", "postgres")),
        window=prove_window(repository, component),
    )
