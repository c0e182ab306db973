"""What was verified, restored and restore-tested, as entries of the commit log (docs/backup-format.md §8)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.verify_result import VerifyResult

_NAMED = 20
_TEXT = 500

Where = Literal["scratch", "new folder", "in place"]


@dataclass(frozen=True)
class RestoreTest:
    """What a restore test found of a snapshot.

    :param ok: whether it was restored whole, is equal to the backup, and can be used
    :param files: that were restored
    :param size_bytes: of them
    :param duration_seconds: of restoring and checking
    :param problems: what is wrong, for people
    """

    ok: bool
    files: int
    size_bytes: int
    duration_seconds: float
    problems: tuple[str, ...] = ()


class _RecordedError(Exception):
    """Another attempt of the same run has recorded it first."""


def record_verified(
    repository: Repository, result: VerifyResult, snapshot_ids: Sequence[str], *, run_key: str
) -> bool:
    """Record what a verification found. Idempotent by run and outcome: other findings are another entry.

    :param snapshot_ids: what it covered. When more are hit than the result lists, only the listed ones are
        recorded, as damaged: which of the others are intact is not known.
    :returns: whether there is a new entry.
    :raises StorageError: or a subclass, where the credentials may not write; nothing is recorded then.
    """
    damaged = sorted(hit.snapshot_id for hit in result.snapshots)
    is_whole = result.snapshot_count <= len(damaged)
    covered = sorted({*snapshot_ids, *damaged} if is_whole else damaged)
    share = None if result.share is None else list(result.share)
    outcome = {"level": result.level, "share": share, "ok": result.ok, "snapshots": covered}
    outcome["damaged"] = damaged
    digest = hashlib.sha256(json.dumps(outcome, sort_keys=True).encode()).hexdigest()[:16]
    body = {"run_key": run_key, **outcome, "result": _figures(result)}
    return _record(repository, "verified", f"{run_key}/{digest}", body)


def _figures(result: VerifyResult) -> dict[str, Any]:
    """How much was looked at, and which objects are damaged that something needs."""
    needed = [problem.object for problem in result.problems if problem.needed]
    # Those that matter are listed first: where only such are listed, those that are not may be more.
    is_cut = result.problem_count > len(result.problems) == len(needed)
    return {
        "objects": result.checked_objects,
        "bytes": result.checked_bytes,
        "read": result.read_bytes,
        "duration": result.duration_seconds,
        "damaged": result.problem_count if is_cut else len(needed),
        "named": needed[:_NAMED],
    }


def record_restored(
    repository: Repository,
    snapshot_id: str,
    *,
    set_id: str,
    run_key: str,
    where: Where,
    files: int,
    size_bytes: int,
    duration_seconds: float,
) -> bool:
    """Record that a snapshot, or part of it, was restored. Idempotent by run and snapshot.

    :param set_id: the backup set it was restored from; empty when it was none.
    :returns: whether there is a new entry.
    :raises StorageError: or a subclass, where the credentials may not write; nothing is recorded then.
    """
    body = {
        "run_key": run_key,
        "snapshot_id": snapshot_id,
        "set_id": set_id,
        "where": where,
        "files": files,
        "bytes": size_bytes,
        "duration": round(duration_seconds, 3),
    }
    return _record(repository, "restored", f"{run_key}/{snapshot_id}", body)


def record_restore_tested(
    repository: Repository, set_id: str, snapshots: Mapping[str, RestoreTest], *, run_key: str
) -> bool:
    """Record what a restore test found. Idempotent by run and outcome: other findings are another entry.

    :param set_id: the backup set that was tested
    :param snapshots: what was found, by id
    :returns: whether there is a new entry.
    :raises StorageError: or a subclass, where the credentials may not write; nothing is recorded then.
    """
    outcome = {"set_id": set_id, "snapshots": {key: snapshots[key].ok for key in sorted(snapshots)}}
    digest = hashlib.sha256(json.dumps(outcome, sort_keys=True).encode()).hexdigest()[:16]
    found = {
        key: {
            "ok": one.ok,
            "files": one.files,
            "bytes": one.size_bytes,
            "duration": round(one.duration_seconds, 3),
        }
        for key, one in snapshots.items()
    }
    problems = [text[:_TEXT] for one in snapshots.values() for text in one.problems][:_NAMED]
    ok = all(one.ok for one in snapshots.values())
    body = {"run_key": run_key, "set_id": set_id, "ok": ok, "snapshots": found, "problems": problems}
    return _record(repository, "restore-tested", f"{run_key}/{digest}", body)


def _record(repository: Repository, kind: str, key: str, body: dict[str, Any]) -> bool:
    key = f"{kind}/{key}"

    def not_yet(state: LogState) -> None:
        if key in state.recorded:
            raise _RecordedError

    try:
        not_yet(repository.refresh())
        repository.require_conditional_writes()
        repository.log.append(kind, {"key": key, **body}, still_valid=not_yet)
    except _RecordedError:
        return False
    return True
