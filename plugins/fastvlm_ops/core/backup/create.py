"""Making a snapshot of a source (docs/backup-format.md §8, commit)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import fastvlm_ops
from fastvlm_ops.core.backup.chunking import require_compiled_chunker
from fastvlm_ops.core.backup.clocks import clock_warnings
from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import CorruptionError, SourceError
from fastvlm_ops.core.backup.index import ChunkIndex
from fastvlm_ops.core.backup.memory import keep_freed_memory, require_memory
from fastvlm_ops.core.backup.packs import parse_records
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import Source
from fastvlm_ops.core.backup.storing import Storing, store_source
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.writing import ChunkWriter

Kind = Literal["full", "incremental"]

_COMMIT_ATTEMPTS = 3
_WARNINGS_KEPT = 100


class _CondemnedError(Exception):
    """Something this run depends on was condemned or forgotten: begin again with what is there now."""


class _AlreadyMadeError(Exception):
    """Another attempt of the same run has committed first."""


@dataclass(frozen=True)
class SnapshotResult:
    """What a run made. Sizes in bytes; ``new_bytes`` is what was sent to the bucket.

    ``reused`` is True when the snapshot of this run existed already and nothing was done. ``usage`` counts
    the requests of this call, with those of whatever used the same client meanwhile.
    """

    snapshot_id: str
    component: str
    kind: str
    sequence: int
    parent: str | None
    files: int
    size_bytes: int
    new_bytes: int
    duration_seconds: float
    reused: bool = False
    warnings: tuple[str, ...] = ()
    usage: Usage | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    repository: Repository
    source: Source
    component: str
    kind: Kind
    run_key: str
    include_hash: str


def create_snapshot(
    repository: Repository,
    source: Source,
    *,
    component: str,
    kind: Kind,
    run_key: str,
    include_hash: str = "",
    progress: ProgressCallback | None = None,
) -> SnapshotResult:
    """Back up a source as a new snapshot, visible only once it is complete.

    ``full`` reads every byte and heads every pack it refers to; ``incremental`` skips files whose size,
    times and inode are those of the component's latest snapshot. Both store only chunks that the
    repository lacks, and both restore by themselves.

    :param run_key: natural key of the run: a second call with it returns the first one's result.
    :param include_hash: of the definitions this run used, stamped into the manifest.
    :raises SourceError: the source is missing, empty or unreadable; nothing has been sent then.
    :raises StorageError: or a subclass, naming the permission or the cause.
    """
    require_compiled_chunker()
    require_memory()
    keep_freed_memory()
    before = repository.storage.usage
    source.check()
    result = _make_or_find(_Job(repository, source, component, kind, run_key, include_hash), progress)
    return replace(result, usage=repository.storage.usage.since(before))


def _make_or_find(job: _Job, progress: ProgressCallback | None) -> SnapshotResult:
    repository, component, run_key = job.repository, job.component, job.run_key
    made = repository.refresh().snapshot_of_run(component, run_key)
    if made is not None:
        return _result(made, reused=True)
    repository.require_conditional_writes()
    for attempt in range(_COMMIT_ATTEMPTS):
        try:
            return _attempt(job, progress)
        except _AlreadyMadeError:
            break
        except _CondemnedError:
            if attempt == _COMMIT_ATTEMPTS - 1:
                raise SourceError(
                    f"{component}: pruning removed data this backup refers to, "
                    f"{_COMMIT_ATTEMPTS} times in a row"
                ) from None
    made = repository.refresh().snapshot_of_run(component, run_key)
    assert made is not None  # noqa: S101 - _AlreadyMadeError says that it is there
    return _result(made, reused=True)


def _result(body: dict[str, Any], *, reused: bool, duration_seconds: float = 0.0) -> SnapshotResult:
    return SnapshotResult(
        snapshot_id=body["snapshot_id"],
        component=body["component"],
        kind=body["kind"],
        sequence=body["seq"],
        parent=body["parent"],
        files=body["files"],
        size_bytes=body["size_bytes"],
        new_bytes=0 if reused else body["new_bytes"],
        duration_seconds=round(duration_seconds, 3),
        reused=reused,
        warnings=tuple(body["warnings"]),
    )


def _attempt(job: _Job, progress: ProgressCallback | None) -> SnapshotResult:
    started, started_ns = datetime.now(UTC), time.time_ns()
    snapshot_id = f"{job.component}-{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    meter = ProgressMeter("backup", job.component, progress)
    warnings = clock_warnings(job.repository.storage.now())
    index = job.repository.load_index(warnings.append)
    warnings += _losses(index)
    parent = _find_parent(job, warnings.append)
    prefix = f"index/{job.component}/{snapshot_id}"
    with ChunkWriter(job.repository, index, prefix, meter, check_packs=job.kind == "full") as writer:
        run = Storing(job.repository, job.source, ChunkReader(job.repository, index), writer, meter, warnings)
        # When no indexed pack is missing, every chunk of a committed snapshot is there.
        contents = store_source(run, parent, trusted=not index.missing)
        writer.flush()
        warnings += writer.warnings
        manifest = {
            "format": 1,
            "snapshot_id": snapshot_id,
            "component": job.component,
            "kind": job.kind,
            "run_key": job.run_key,
            "parent": parent["snapshot_id"] if parent else None,
            "source": {
                "kind": job.source.kind,
                "path": os.fspath(job.source.path),
                "host": socket.gethostname(),
            },
            "started": started.isoformat(timespec="milliseconds"),
            "started_ns": started_ns,
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "tool": f"fastvlm-ops {fastvlm_ops.__version__}, Python {platform.python_version()}",
            "include_hash": job.include_hash,
            **contents,
            "warnings": warnings[:_WARNINGS_KEPT],
        }
        if parent is not None and not run.opened and _says_the_same(manifest, parent):
            body = _claim(run, manifest, _inheriting(manifest))
        else:
            body = _commit(run, manifest)
    meter.report()
    return _result(body, reused=False, duration_seconds=meter.elapsed_seconds)


def _losses(index: ChunkIndex) -> list[str]:
    """Packs that are gone or truncated, and hold what is nowhere else."""
    found = []
    for pack in index.lost:
        records = parse_records(pack.records, pack.name)
        if not all(index.find_all([record.chunk_id for record in records])):
            found.append(
                f"{pack.name} is missing or truncated: what the source still has of it is stored again, "
                "older snapshots may lack the rest"
            )
    return found


def _says_the_same(manifest: dict[str, Any], parent: dict[str, Any]) -> bool:
    told = ("source", "include_hash", "evidence", "totals", "tree", "warnings")
    return all(manifest[key] == parent[key] for key in told)


def _inheriting(manifest: dict[str, Any]) -> dict[str, Any]:
    """Body of the entry of a snapshot that has its parent's manifest, and all that it says of contents."""
    copied = ("snapshot_id", "component", "kind", "run_key", "parent", "started", "finished")
    return {key: manifest[key] for key in copied}


def _commit(run: Storing, manifest: dict[str, Any]) -> dict[str, Any]:
    """Store the manifest, then claim its place in the log."""
    name = f"snapshots/{manifest['component']}/{manifest['snapshot_id']}"
    stored = run.writer.put_manifest(name, json.dumps(manifest, separators=(",", ":")).encode())
    copied = ("snapshot_id", "component", "kind", "run_key", "parent", "finished", "warnings")
    body = {
        **{key: manifest[key] for key in copied},
        "manifest": name,
        "sha256": hashlib.sha256(stored).hexdigest(),
        "files": run.files,
        "size_bytes": run.size_bytes,
        "new_bytes": run.writer.transferred_bytes,
    }
    return _claim(run, manifest, body)


def _claim(run: Storing, manifest: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Claim a place in the log; returns what the log then has of the snapshot."""

    def still_valid(state: LogState) -> None:
        if state.snapshot_of_run(body["component"], body["run_key"]) is not None:
            raise _AlreadyMadeError
        # Files taken over from the parent unread are safe only while the parent keeps their packs.
        if body["parent"] is not None and body["parent"] not in state.snapshots:
            raise _CondemnedError
        if run.writer.used_packs & state.condemned_names("packs"):
            raise _CondemnedError
        if body.get("manifest") in state.condemned_names("manifests"):  # taken for one of a dead run
            raise _CondemnedError
        if _lacks_wal(manifest, state.condemned_names("wal")):
            raise _CondemnedError

    run.repository.log.append("snapshot", body, still_valid=still_valid)
    return run.repository.log.state.snapshots[body["snapshot_id"]]


def _lacks_wal(manifest: dict[str, Any], condemned: set[str]) -> bool:
    """Whether WAL went that a base backup needs to be recovered beyond its end: one that began later, and
    was committed before it, may have been all that pruning knew.
    """
    if not condemned or "postgresql" not in manifest["evidence"]:
        return False
    from fastvlm_ops.core.backup.postgresql.wal_pruning import needs_any_of

    return needs_any_of(manifest, condemned)


def _find_parent(job: _Job, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Manifest of the snapshot an incremental builds on; none for a full one, or where it is damaged."""
    if job.kind == "full":
        return None
    record = job.repository.log.state.latest_snapshot(job.component)
    if record is None:
        return None
    try:
        return read_manifest(job.repository, record)
    except CorruptionError as error:
        warn(f"the parent is damaged, everything is read again: {error}")
        return None
