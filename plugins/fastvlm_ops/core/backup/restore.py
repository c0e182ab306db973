"""Restoring a snapshot into an empty or new folder.

Everything the manifest says is checked before the first byte is written: paths, types, sizes, that each
chunk is there. Then each file goes to a temporary name and gets its own only once its hash is right.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from fastvlm_ops.core.backup.errors import BackupNotFoundError, CorruptionError, RestoreTargetError
from fastvlm_ops.core.backup.placing import TreeWriter
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter, format_bytes
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry, TreeValidator

_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class RestoreResult:
    """What was restored, or with ``dry_run`` would be. Sizes in bytes.

    ``kept_files`` were there already, from an attempt that was stopped, and have the right hash.
    """

    snapshot_id: str
    component: str
    target: str
    dry_run: bool
    files: int
    size_bytes: int
    fetched_bytes: int = 0
    kept_files: int = 0
    duration_seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}


class _Step(NamedTuple):
    """One thing to do with an entry: take the next chunk, and finish it after the last."""

    entry: Entry
    is_last: bool
    is_kept: bool = False


@dataclass
class _Plan:
    """What a validated tree amounts to."""

    files: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0


def restore_snapshot(
    repository: Repository,
    snapshot_id: str,
    target: Path,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> RestoreResult:
    """Restore a snapshot into ``target``, which is new, empty, or left by a stopped restore of the same.

    :raises BackupNotFoundError: no such snapshot.
    :raises CorruptionError: the repository is damaged or hostile; names the file. Files restored before
        stay, none is half or wrong.
    :raises RestoreTargetError: the target is not empty, or its disk too small.
    """
    record = repository.refresh().snapshots.get(snapshot_id)
    if record is None:
        raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} in {repository.storage}")
    warnings: list[str] = []
    reader = ChunkReader(repository, repository.load_index(warnings.append))
    manifest = read_manifest(repository, record)
    plan = _validate(reader, manifest)
    marker = _Marker(target, snapshot_id)
    marker.check()
    _require_space(target, plan)
    result = RestoreResult(
        snapshot_id, record["component"], os.fspath(target), dry_run, plan.files, plan.size_bytes
    )
    if dry_run:
        return result
    meter = ProgressMeter("restore", record["component"], progress, total_bytes=plan.stored_bytes)
    with marker, TreeWriter(target, snapshot_id) as writer:
        kept = _write_tree(reader, manifest, writer, marker.continues, meter)
        warnings += writer.warnings
    meter.report()
    return RestoreResult(
        **{
            **asdict(result),
            "fetched_bytes": reader.fetched_bytes,
            "kept_files": kept,
            "duration_seconds": round(meter.elapsed_seconds, 3),
            "warnings": tuple(warnings),
        }
    )


def _validate(reader: ChunkReader, manifest: dict[str, Any]) -> _Plan:
    """:raises CorruptionError: naming the entry that is unsafe, lies about its size or lacks a chunk."""
    validator = TreeValidator()
    plan = _Plan()
    for entry in read_tree(reader, manifest["tree"]):
        validator.check(entry)
        if entry.type != "file":
            continue
        plan.files += 1
        if entry.hard_link is not None:
            continue
        try:
            found = sum(reader.locate(chunk_id).record.length for chunk_id in reader.ids(entry.contents))
        except CorruptionError as error:
            raise CorruptionError(f"{show(entry.path)} cannot be restored: {error}") from error
        if found != entry.stored_bytes:
            raise CorruptionError(
                f"{show(entry.path)} states {entry.stored_bytes} bytes, its chunks have {found}"
            )
        plan.size_bytes += entry.size
        plan.stored_bytes += found
    totals = manifest["totals"]
    if (plan.files, plan.size_bytes) != (totals["files"], totals["size_bytes"]):
        raise CorruptionError(f"the tree of {manifest['snapshot_id']} has not the files its manifest states")
    return plan


def _require_space(target: Path, plan: _Plan) -> None:
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < plan.stored_bytes:
        raise RestoreTargetError(
            f"{existing} has {format_bytes(free)} free, the restore needs {format_bytes(plan.stored_bytes)}"
        )


@dataclass
class _Marker:
    """A file beside the target while a restore is under way: what a stopped one left may be continued."""

    target: Path
    snapshot_id: str
    continues: bool = field(default=False, init=False)

    @property
    def path(self) -> Path:
        return self.target.with_name(f".{self.target.name}.fastvlm-restore")

    def check(self) -> None:
        """:raises RestoreTargetError: the target holds something that is not ours to continue."""
        if self.path.is_file():
            found = json.loads(self.path.read_text()).get("snapshot_id")
            self.continues = found == self.snapshot_id
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_dir()):
            raise RestoreTargetError(f"{self.target} is not a folder")
        if self.target.exists() and any(self.target.iterdir()) and not self.continues:
            raise RestoreTargetError(f"{self.target} is not empty; restore into a new or an empty folder")

    def __enter__(self) -> _Marker:
        self.target.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"snapshot_id": self.snapshot_id}) + "\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.path.unlink()


def _write_tree(
    reader: ChunkReader, manifest: dict[str, Any], writer: TreeWriter, continues: bool, meter: ProgressMeter
) -> int:
    """Write every entry; returns how many files were there already."""
    kept = 0
    steps = _steps(reader, manifest, writer if continues else None)
    for step, data in reader.stream(steps, lambda step: show(step.entry.path)):
        entry = step.entry
        if step.is_kept:
            kept += 1
            writer.keep(entry)
            meter.add(files=1, read_bytes=entry.stored_bytes)
        elif entry.type == "file" and entry.hard_link is None:
            writer.write(entry, data)
            if step.is_last:
                writer.finish(entry)
            meter.add(files=int(step.is_last), read_bytes=len(data), transferred_bytes=len(data))
        else:
            writer.place(entry)
            meter.add(files=int(entry.type == "file"))
    return kept


def _steps(
    reader: ChunkReader, manifest: dict[str, Any], present: TreeWriter | None
) -> Iterator[tuple[_Step, bytes | None]]:
    for entry in read_tree(reader, manifest["tree"]):
        if entry.type != "file" or entry.hard_link is not None:
            yield _Step(entry, is_last=True), None
        elif present is not None and _is_intact(present, entry):
            yield _Step(entry, is_last=True, is_kept=True), None
        else:
            ids = list(reader.ids(entry.contents))
            for chunk_id in ids[:-1]:
                yield _Step(entry, is_last=False), chunk_id
            yield _Step(entry, is_last=True), ids[-1] if ids else None


def _is_intact(present: TreeWriter, entry: Entry) -> bool:
    """Whether a regular file of these contents stands at the entry's place."""
    descriptor = present.open_existing(entry)
    if descriptor is None:
        return False
    try:
        if os.fstat(descriptor).st_size != entry.size:
            return False
        hasher = blake3()
        for start, length in entry.extents if entry.extents is not None else [(0, entry.size)]:
            end = start + length
            while start < end and (data := os.pread(descriptor, min(_HASH_BYTES, end - start), start)):
                hasher.update(data)
                start += len(data)
        return hasher.hexdigest() == entry.blake3
    finally:
        os.close(descriptor)
