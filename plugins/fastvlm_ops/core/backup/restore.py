"""Restoring a snapshot, or part of it, into a new folder or over an existing one.

Everything the manifest says is checked before the first byte is written: paths, types, sizes, that each
chunk is there. Then each file goes to a temporary name and gets its own only once its hash is right.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup.errors import BackupNotFoundError, CorruptionError, RestoreTargetError
from fastvlm_ops.core.backup.memory import keep_freed_memory, require_memory
from fastvlm_ops.core.backup.placing import TreeWriter
from fastvlm_ops.core.backup.present import PresentTree
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter, format_bytes
from fastvlm_ops.core.backup.reading import (
    BARRIER,
    ChunkReader,
    Wanted,
    read_manifest,
    read_tree,
    side_by_side,
)
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.selection import Selection
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.target_files import Piece, PostponedLink
from fastvlm_ops.core.backup.tree import Entry, TreeValidator
from fastvlm_ops.core.backup.usage import Usage

_CONFLICTS_SHOWN = 5
_LINKS_AT_ONCE = 128
_ENTRIES_KEPT = 10_000
_IDS_AT_ONCE = 4096
_LEAST_CHUNK_BYTES = 4096  # but for the last one of a file


@dataclass(frozen=True)
class RestoreResult:
    """What was restored, or with ``dry_run`` would be. Sizes in bytes.

    ``kept_files`` were there already and have the right hash; ``replaced_files`` had other contents and
    stand below ``replaced_in`` now. ``usage`` counts the requests of this call.
    """

    snapshot_id: str
    component: str
    target: str
    dry_run: bool
    files: int
    size_bytes: int
    fetched_bytes: int = 0
    kept_files: int = 0
    replaced_files: int = 0
    replaced_in: str | None = None
    duration_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    usage: Usage | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}


@dataclass
class _Plan:
    """What a validated tree amounts to; the second half counts what is selected."""

    all_files: int = 0
    all_bytes: int = 0
    files: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0
    entries: list[Entry] = field(default_factory=list)  # of all the tree, where it is small

    @property
    def is_small(self) -> bool:
        """Whether ``entries`` are all there are."""
        return len(self.entries) <= _ENTRIES_KEPT


def restore_snapshot(
    repository: Repository,
    snapshot_id: str,
    target: Path,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    keep_replaced: Path | None = None,
) -> RestoreResult:
    """Restore a snapshot into ``target``.

    Without ``overwrite`` the target is new, empty, or left by a stopped restore of the same snapshot. With
    it, files that are equal stay, those that differ are replaced in one step each, and what the snapshot
    does not have is left alone.

    :param paths: restore only what these patterns select, see :class:`~.selection.Selection`.
    :param keep_replaced: where replaced files go, on the target's file system; required by ``overwrite``,
        since it is what undoes it.
    :raises BackupNotFoundError: no such snapshot, or no path in it is selected.
    :raises CorruptionError: the repository is damaged or hostile; names the file. Files restored before
        stay, none is half or wrong.
    :raises RestoreTargetError: the target is not empty, has a folder where the snapshot has a file or the
        other way round, or its disk is too small.
    """
    before = repository.storage.usage
    if overwrite and keep_replaced is None:
        raise RestoreTargetError("overwriting needs a folder for what it replaces")
    require_memory()
    keep_freed_memory()
    record = repository.refresh().snapshots.get(snapshot_id)
    if record is None:
        raise BackupNotFoundError(f"there is no snapshot {snapshot_id!r} in {repository.storage}")
    warnings: list[str] = []
    reader = ChunkReader(repository, repository.load_index(warnings.append))
    manifest = read_manifest(repository, record)
    selection = Selection(paths)
    plan = _validate(reader, manifest, selection)
    marker = _Marker(target, snapshot_id, overwrite)
    marker.check()
    _require_space(target, plan)
    result = RestoreResult(
        snapshot_id, record["component"], os.fspath(target), dry_run, plan.files, plan.size_bytes
    )
    present = PresentTree(target) if target.is_dir() and (overwrite or marker.continues) else None
    if present is not None and overwrite:
        result = _look_at_target(present, selection.apply(read_tree(reader, manifest["tree"])), result)
    if dry_run:
        result = replace(result, usage=repository.storage.usage.since(before))
        return result
    meter = ProgressMeter("restore", record["component"], progress, total_bytes=plan.stored_bytes)
    with marker, TreeWriter(target, snapshot_id, keep_replaced) as writer:
        entries = plan.entries if plan.is_small else read_tree(reader, manifest["tree"])
        _write_tree(reader, selection.apply(entries), writer, present, meter)
    meter.report()
    return replace(
        result,
        fetched_bytes=reader.fetched_bytes,
        kept_files=writer.kept_files,
        replaced_files=writer.replaced_files,
        replaced_in=os.fspath(keep_replaced) if keep_replaced and writer.replaced_files else None,
        duration_seconds=round(meter.elapsed_seconds, 3),
        warnings=tuple(warnings + writer.warnings),
        usage=repository.storage.usage.since(before),
    )


def _validate(reader: ChunkReader, manifest: dict[str, Any], selection: Selection) -> _Plan:
    """:raises CorruptionError: naming the entry that is unsafe, lies about its size or lacks a chunk."""
    validator = TreeValidator()
    plan = _Plan()
    selected = False
    for entry in read_tree(reader, manifest["tree"]):
        validator.check(entry)
        if len(plan.entries) <= _ENTRIES_KEPT:
            plan.entries.append(entry)
        chosen = selection.selects(entry)
        selected = selected or chosen
        if entry.type != "file":
            continue
        plan.all_files += 1
        plan.files += chosen
        if entry.hard_link is not None:
            continue
        if chosen:
            _check_chunks(reader, entry)
            plan.size_bytes += entry.size
            plan.stored_bytes += entry.stored_bytes
        plan.all_bytes += entry.size
    totals = manifest["totals"]
    if (plan.all_files, plan.all_bytes) != (totals["files"], totals["size_bytes"]):
        raise CorruptionError(f"the tree of {manifest['snapshot_id']} has not the files its manifest states")
    if not selected:
        raise BackupNotFoundError(
            f"{manifest['snapshot_id']} has no path like {', '.join(selection.patterns)}"
        )
    return plan


def _check_chunks(reader: ChunkReader, entry: Entry) -> None:
    found = count = 0
    is_fine = True
    try:
        ids = reader.ids(entry.contents)
        while is_fine and (some := list(itertools.islice(ids, _IDS_AT_ONCE))):  # there may be no end of them
            found, count = found + reader.total_length(some), count + len(some)
            is_fine = (count - 1) * _LEAST_CHUNK_BYTES <= found <= entry.stored_bytes
    except CorruptionError as error:
        raise CorruptionError(f"{show(entry.path)} cannot be restored: {error}") from error
    if found != entry.stored_bytes or not is_fine:
        raise CorruptionError(
            f"{show(entry.path)} states {entry.stored_bytes} bytes, its chunks have {found} in {count}"
        )


def _look_at_target(present: PresentTree, entries: Iterator[Entry], result: RestoreResult) -> RestoreResult:
    """Count what overwriting would keep and replace.

    :raises RestoreTargetError: naming each place where a folder and something else collide.
    """
    conflicts = []
    kept = replaced = 0
    for entry in entries:
        kind = present.type_of(entry)
        if kind is None:
            continue
        if (kind == "directory") != (entry.type == "directory"):
            conflicts.append(f"{show(entry.path)} is a {kind} there and a {entry.type} in the backup")
        elif entry.type == "file" and entry.hard_link is None and present.has(entry):
            kept += 1
        elif entry.type != "directory":
            replaced += 1
    if conflicts:
        shown = "; ".join(conflicts[:_CONFLICTS_SHOWN])
        raise RestoreTargetError(
            f"{result.target} cannot be overwritten, {len(conflicts)} places differ: {shown}"
        )
    return replace(result, kept_files=kept, replaced_files=replaced)


def _require_space(target: Path, plan: _Plan) -> None:
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < plan.stored_bytes:
        raise RestoreTargetError(
            f"{existing} has {format_bytes(free)} free, the restore needs {format_bytes(plan.stored_bytes)}"
        )


@dataclass
class _Marker:
    """A file beside the target while a restore is under way: what a stopped one left may be continued.

    Overwriting needs none, since it can be repeated at any time.
    """

    target: Path
    snapshot_id: str
    overwrite: bool
    continues: bool = field(default=False, init=False)

    @property
    def path(self) -> Path:
        return self.target.with_name(f".{self.target.name}.fastvlm-restore")

    def check(self) -> None:
        """:raises RestoreTargetError: the target holds something that is not ours to continue."""
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_dir()):
            raise RestoreTargetError(f"{self.target} is not a folder")
        if self.overwrite:
            return
        if self.path.is_file():
            with contextlib.suppress(ValueError):  # half written: nothing else has been yet
                self.continues = json.loads(self.path.read_text())["snapshot_id"] == self.snapshot_id
        if self.target.exists() and any(self.target.iterdir()) and not self.continues:
            raise RestoreTargetError(f"{self.target} is not empty; restore into a new or an empty folder")

    def __enter__(self) -> _Marker:
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            if not self.overwrite and not self.continues:
                self.path.write_text(json.dumps({"snapshot_id": self.snapshot_id}) + "\n")
        except OSError as error:
            raise RestoreTargetError(f"{self.target} cannot be made: {error.strerror}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and not self.overwrite:
            self.path.unlink()


def _write_tree(
    reader: ChunkReader,
    entries: Iterator[Entry],
    writer: TreeWriter,
    present: PresentTree | None,
    meter: ProgressMeter,
) -> None:
    def put(piece: Piece, data: bytes | memoryview) -> None:
        piece.file.put(piece.offset, data)
        meter.add(read_bytes=len(data), transferred_bytes=len(data))

    wanted = _wanted(reader, entries, writer, present, meter)
    reader.scatter(wanted, put, lambda piece: show(piece.file.entry.path))


def _wanted(
    reader: ChunkReader,
    entries: Iterator[Entry],
    writer: TreeWriter,
    present: PresentTree | None,
    meter: ProgressMeter,
) -> Iterator[Wanted | None]:
    """Make what has no contents, begin the files, and ask for their chunks."""
    links: list[PostponedLink] = []
    for entry in entries:
        meter.add(files=int(entry.type == "file"))
        if entry.hard_link is not None:
            links.append(writer.postpone(entry))
            if len(links) >= _LINKS_AT_ONCE:
                yield BARRIER  # a link needs the file it is a link to
                writer.link(links)
                links.clear()
        elif entry.type != "file":
            writer.place(entry)
        elif present is not None and present.has(entry):
            writer.keep(entry)
            meter.add(read_bytes=entry.stored_bytes)
        else:
            if writer.is_crowded:
                yield BARRIER
                writer.settle()
            pieces = list(side_by_side(reader.locate_all(list(reader.ids(entry.contents)))))
            file = writer.begin(entry, len(pieces))
            offset = 0
            for places in pieces:
                yield (wanted := Wanted(Piece(file, offset), places))
                offset += wanted.length
    yield BARRIER
    writer.link(links)
