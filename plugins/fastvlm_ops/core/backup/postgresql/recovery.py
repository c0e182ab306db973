"""Recovering a cluster: a base backup and the WAL to a target in a new folder, ready for a server to replay.

::

    <folder>/            0700
        data/            the base backup, with the settings of the recovery
        wal_restore/     the WAL that the server will read, and the histories of all timelines
        recovery.json    what was recovered to where, and how far that has got
        trial.log        what the server said, once it was started on trial

The WAL lies beside the data and not in it, so that the settings find it as ``../wal_restore`` wherever the
folder is moved to, and ``data`` alone is what goes into service after a trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup.errors import RestoreTargetError
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.recovery_plan import RecoveryPlan, plan_recovery
from fastvlm_ops.core.backup.postgresql.recovery_settings import (
    DATA,
    WAL,
    recovery_settings,
    write_recovery,
)
from fastvlm_ops.core.backup.postgresql.recovery_target import RecoveryTarget
from fastvlm_ops.core.backup.postgresql.wal_names import History
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore, write_flushed
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter, format_bytes
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.restore import RestoreResult, restore_snapshot

__all__ = [
    "RecoveryNote",
    "RecoveryPlan",
    "RecoveryResult",
    "RecoveryTarget",
    "check_recovery",
    "plan_recovery",
    "recover",
]

_NOTE = "recovery.json"
_FETCHERS = 4
_SPARE_BYTES = 256 << 20  # for what the server writes when it starts


@dataclass(frozen=True)
class RecoveryResult:
    """What was recovered. Sizes in bytes.

    :param changes: what of the original's settings no longer counts, for people
    """

    plan: RecoveryPlan
    folder: str
    dry_run: bool
    files: int
    size_bytes: int
    fetched_bytes: int = 0
    kept_files: int = 0
    duration_seconds: float = 0.0
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return it as the result of a restore is, with what is known of the recovery besides."""
        return {
            "snapshot_id": self.plan.snapshot_id,
            "component": self.plan.component,
            "target": self.folder,
            "dry_run": self.dry_run,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "fetched_bytes": self.fetched_bytes,
            "kept_files": self.kept_files,
            "replaced_files": 0,
            "replaced_in": None,
            "duration_seconds": self.duration_seconds,
            "warnings": list(self.warnings),
            "recovery": {**self.plan.as_dict(), "changes": list(self.changes)},
        }


class RecoveryNote:
    """``recovery.json``: what a folder is to become, and how far it has got.

    :param folder: of the recovery
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _NOTE

    def read(self) -> dict[str, Any]:
        """Return what it says; nothing where there is none, or none that was written to its end."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self.path.read_bytes())
            if isinstance(content, dict):
                return content
        return {}

    def write(self, **facts: Any) -> dict[str, Any]:
        """Add facts, in one step; returns all of them."""
        content = self.read() | facts
        write_flushed(self.path, json.dumps(content, indent=1).encode() + b"\n")
        return content


def check_recovery(repository: Repository, plan: RecoveryPlan, folder: Path) -> RecoveryResult:
    """Prove that a recovery could be made: every chunk, every segment, and the room. Writes nothing.

    :param folder: as of :func:`recover`
    :raises RestoreTargetError: the folder is not empty, or its disk is too small
    :raises CorruptionError: the base backup does not restore
    """
    folder = folder.absolute()
    _check_folder(folder, _identity(plan))
    result = restore_snapshot(repository, plan.snapshot_id, folder / DATA, dry_run=True)
    _require_space(folder, plan)
    return _result(plan, folder, result, dry_run=True)


def recover(
    repository: Repository, plan: RecoveryPlan, folder: Path, progress: ProgressCallback | None = None
) -> RecoveryResult:
    """Make a folder that a server of the same major version recovers from, to the target and no further.

    Can be repeated after it was stopped: what is verified stays. Once it is complete, the same again changes
    nothing.

    :param folder: new or empty, or left by a stopped recovery of the same plan; becomes private (0700)
    :raises RestoreTargetError: the folder holds anything else, or its disk is too small
    :raises CorruptionError: the repository is damaged; names what
    """
    began = time.monotonic()
    folder = folder.absolute()
    identity = _identity(plan)
    _check_folder(folder, identity)
    note = RecoveryNote(folder)
    told = note.read()
    if told.get("state") in ("ready", "started"):
        return _told(plan, folder, told)
    if not told:
        _require_space(folder, plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        note.write(**identity, **_facts(plan), state="restoring")
        base = _restore_base(repository, plan, folder / DATA, progress)
        fetched = _fetch_wal(repository, plan, folder / WAL, progress)
        settings = recovery_settings(plan.target, timeline=plan.timeline, major=plan.major)
        changes = write_recovery(folder / DATA, settings)
        (folder / DATA).chmod(0o700)  # a server opens no other
    except OSError as error:
        raise RestoreTargetError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    told = note.write(
        state="ready",
        files=base.files,
        size_bytes=base.size_bytes,
        fetched_bytes=base.fetched_bytes + fetched,
        kept_files=base.kept_files,
        duration_seconds=round(time.monotonic() - began, 3),
        changes=changes,
        # Whose the files were does not matter: a server has to own them all.
        warnings=[warning for warning in base.warnings if "needs root to be restored" not in warning],
    )
    return _told(plan, folder, told)


def _identity(plan: RecoveryPlan) -> dict[str, Any]:
    """What a folder that is to be continued must have been meant for."""
    return {
        "component": plan.component,
        "snapshot_id": plan.snapshot_id,
        "recovery_target": plan.target.as_dict(),
        "recovery_timeline": plan.timeline,
    }


def _facts(plan: RecoveryPlan) -> dict[str, Any]:
    """What a trial has to know of the cluster."""
    return {
        "system_id": plan.base.system_id,
        "version": plan.base.version,
        "major": plan.major,
        "superuser": plan.superuser,
    }


def _told(plan: RecoveryPlan, folder: Path, told: dict[str, Any]) -> RecoveryResult:
    names = ("files", "size_bytes", "fetched_bytes", "kept_files", "duration_seconds")
    return RecoveryResult(
        plan,
        os.fspath(folder),
        dry_run=False,
        changes=tuple(told["changes"]),
        warnings=tuple(told["warnings"]),
        **{name: told[name] for name in names},
    )


def _result(plan: RecoveryPlan, folder: Path, base: RestoreResult, *, dry_run: bool) -> RecoveryResult:
    return RecoveryResult(
        plan, os.fspath(folder), dry_run, base.files, base.size_bytes, warnings=base.warnings
    )


def _check_folder(folder: Path, identity: dict[str, Any]) -> None:
    """:raises RestoreTargetError: it holds something that is not ours to continue."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RestoreTargetError(f"{folder} is not a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    told = RecoveryNote(folder).read()
    if any(told.get(name) != value for name, value in identity.items()):
        raise RestoreTargetError(
            f"{folder} is not empty; a cluster is recovered into a new or an empty folder only, never over"
            " another one"
        )


def _require_space(folder: Path, plan: RecoveryPlan) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = plan.base_bytes + plan.wal_bytes + _SPARE_BYTES
    if free < needed:
        raise RestoreTargetError(
            f"{existing} has {format_bytes(free)} free, the recovery needs {format_bytes(needed)}"
            f" ({format_bytes(plan.wal_bytes)} of it for WAL)"
        )


def _restore_base(
    repository: Repository, plan: RecoveryPlan, data: Path, progress: ProgressCallback | None
) -> RestoreResult:
    """The base backup, each file by its hash; one that is complete stays as it is."""
    # A restore takes its marker away last of all, and makes it before anything else.
    marker = data.with_name(f".{data.name}.fastvlm-restore")
    if data.is_dir() and any(data.iterdir()) and not marker.exists():
        files = [path for path in data.rglob("*") if path.is_file() and not path.is_symlink()]
        size_bytes = sum(path.stat().st_size for path in files)
        return RestoreResult(
            plan.snapshot_id,
            plan.component,
            os.fspath(data),
            dry_run=False,
            files=len(files),
            size_bytes=size_bytes,
            kept_files=len(files),
        )
    return restore_snapshot(repository, plan.snapshot_id, data, progress=progress)


def _fetch_wal(
    repository: Repository, plan: RecoveryPlan, folder: Path, progress: ProgressCallback | None
) -> int:
    """Fetch what is not there yet; returns the bytes of that. What has its name is verified."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for leftover in folder.glob(".*"):
        leftover.unlink()
    store = WalStore(repository, plan.component)
    meter = ProgressMeter("fetch WAL", plan.component, progress, total_bytes=plan.wal_bytes, unit="segments")
    wanted: list[Segment | History] = [*plan.histories, *(item.segment for item in plan.segments)]
    missing = [item for item in wanted if not _is_there(folder / item.name, item)]
    with _fetchers() as pool:
        fetches = [pool.submit(store.fetch, item, plan.base.system_id, folder) for item in missing]
        for fetch in as_completed(fetches):
            meter.add(files=1, read_bytes=fetch.result().segment_bytes)
    meter.report()
    return meter.read_bytes


@contextlib.contextmanager
def _fetchers() -> Iterator[ThreadPoolExecutor]:
    """Threads that stop at the first error instead of fetching the rest."""
    pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch-wal")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _is_there(path: Path, item: Segment | History) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and (
        isinstance(item, History) or status.st_size == item.segment_bytes
    )
