"""Making a snapshot of a source (docs/backup-format.md §8, commit)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import fastvlm_ops
from fastvlm_ops.core.backup.chunking import Chunker, PageChunker, require_compiled_chunker
from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import CorruptionError, SourceError
from fastvlm_ops.core.backup.files import store_contents
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import ScannedEntry, Source, SourceView, show
from fastvlm_ops.core.backup.storage import probe_conditional_writes
from fastvlm_ops.core.backup.tree import Entry, encode_entry
from fastvlm_ops.core.backup.writing import ChunkWriter

Kind = Literal["full", "incremental"]

_READ_ATTEMPTS = 3
_COMMIT_ATTEMPTS = 3
_TREE_SPOOL_BYTES = 16 << 20
_WARNINGS_KEPT = 100
_FINE_GRAIN_NS = 50_000_000
_COARSE_GRAIN_NS = 2_000_000_000


class _CondemnedError(Exception):
    """A pack this run depends on was condemned: store its chunks again."""


class _AlreadyMadeError(Exception):
    """Another attempt of the same run has committed first."""


@dataclass(frozen=True)
class SnapshotResult:
    """What a run made. Sizes in bytes; ``new_bytes`` is what was sent to the bucket.

    ``reused`` is True when the snapshot of this run existed already and nothing was done.
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

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}


@dataclass
class _Run:
    """State of one attempt."""

    repository: Repository
    source: Source
    reader: ChunkReader
    writer: ChunkWriter
    meter: ProgressMeter
    view: SourceView
    warnings: list[str]
    parent_entries: _ParentEntries
    files: int = 0
    size_bytes: int = 0
    entries: int = 0
    hard_links: dict[tuple[int, int], bytes] = field(default_factory=dict)


class _ParentEntries:
    """The parent's tree beside the scan: both are sorted, so one pass and no memory is enough.

    A parent that cannot be read (any more) only costs time: files count as changed from there on.
    """

    def __init__(
        self, entries: Iterator[Entry], started_ns: int, trusted: bool, warn: Callable[[str], None]
    ) -> None:
        self._entries = entries
        self._started_ns = started_ns
        self._warn = warn
        self.trusted = trusted
        self._current = self._next()

    def _next(self) -> Entry | None:
        try:
            return next(self._entries, None)
        except CorruptionError as error:
            self._warn(f"the parent's tree is damaged, unchanged files are read again: {error}")
            self._entries = iter(())
            return None

    def unchanged(self, entry: Entry) -> Entry | None:
        """The parent's entry of a file whose status has not changed since."""
        while self._current is not None and self._current.parts < entry.parts:
            self._current = self._next()
        old = self._current
        if old is None or old.path != entry.path or old.type != "file" or old.hard_link is not None:
            return None
        if not old.same_file(entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode):
            return None
        # A file written in the same tick in which it was read shows no later time: read it again.
        latest = max(entry.mtime_ns, entry.ctime_ns)
        coarse = entry.mtime_ns % 1_000_000_000 == 0
        if latest >= self._started_ns - (_COARSE_GRAIN_NS if coarse else _FINE_GRAIN_NS):
            return None
        return old


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
    source.check()
    made = repository.refresh().snapshot_of_run(component, run_key)
    if made is not None:
        return _result(made, reused=True)
    probe_conditional_writes(repository.storage)
    for attempt in range(_COMMIT_ATTEMPTS):
        try:
            return _attempt(repository, source, component, kind, run_key, include_hash, progress)
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


def _attempt(
    repository: Repository,
    source: Source,
    component: str,
    kind: Kind,
    run_key: str,
    include_hash: str,
    progress: ProgressCallback | None,
) -> SnapshotResult:
    started = datetime.now(UTC)
    started_ns = time.time_ns()
    state = repository.log.state
    snapshot_id = f"{component}-{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    meter = ProgressMeter("backup", component, progress)
    warnings: list[str] = []
    index = repository.load_index(warnings.append)
    with (
        source.open() as view,
        ChunkWriter(
            repository, index, f"index/{component}/{snapshot_id}", meter, check_packs=kind == "full"
        ) as writer,
    ):
        reader = ChunkReader(repository, index)
        parent, parent_entries = _open_parent(
            repository, state, reader, component, kind, trusted=not index.missing, warn=warnings.append
        )
        run = _Run(repository, source, reader, writer, meter, view, warnings, parent_entries)
        tree = _store_tree(run)
        if not run.files:
            raise SourceError(f"{source.path} holds no file to back up; an empty backup is refused")
        writer.flush()
        manifest = {
            "format": 1,
            "snapshot_id": snapshot_id,
            "component": component,
            "kind": kind,
            "run_key": run_key,
            "parent": parent,
            "source": {"kind": source.kind, "path": os.fspath(source.path), "host": socket.gethostname()},
            "started": started.isoformat(timespec="milliseconds"),
            "started_ns": started_ns,
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "tool": f"fastvlm-ops {fastvlm_ops.__version__}, Python {platform.python_version()}",
            "include_hash": include_hash,
            "evidence": view.evidence,
            "totals": {"entries": run.entries, "files": run.files, "size_bytes": run.size_bytes},
            "warnings": (warnings + view.warnings + writer.warnings)[:_WARNINGS_KEPT],
            "tree": tree,
        }
        body = _commit(run, manifest)
    meter.report()
    return _result(body, reused=False, duration_seconds=meter.elapsed_seconds)


def _commit(run: _Run, manifest: dict[str, Any]) -> dict[str, Any]:
    """Store the manifest, then claim its place in the log."""
    name = f"snapshots/{manifest['component']}/{manifest['snapshot_id']}"
    stored = run.writer.put_manifest(name, json.dumps(manifest, separators=(",", ":")).encode())
    body = {
        **{
            key: manifest[key]
            for key in ("snapshot_id", "component", "kind", "run_key", "parent", "finished")
        },
        "manifest": name,
        "sha256": hashlib.sha256(stored).hexdigest(),
        "files": run.files,
        "size_bytes": run.size_bytes,
        "new_bytes": run.writer.transferred_bytes,
        "warnings": manifest["warnings"],
    }

    def still_valid(state: LogState) -> None:
        if state.snapshot_of_run(body["component"], body["run_key"]) is not None:
            raise _AlreadyMadeError
        # Files taken over from the parent unread are safe only while the parent keeps their packs.
        if body["parent"] is not None and body["parent"] not in state.snapshots:
            raise _CondemnedError
        if run.writer.used_packs & state.condemned_names("packs"):
            raise _CondemnedError

    seq = run.repository.log.append("snapshot", body, still_valid=still_valid)
    return {**body, "seq": seq}


def _open_parent(
    repository: Repository,
    state: LogState,
    reader: ChunkReader,
    component: str,
    kind: Kind,
    *,
    trusted: bool,
    warn: Callable[[str], None],
) -> tuple[str | None, _ParentEntries]:
    """The snapshot that an incremental builds on; none for a full one, or where it cannot be read.

    :param trusted: no indexed pack is missing, so that every chunk of a committed snapshot is there.
    """
    record = state.latest_snapshot(component) if kind == "incremental" else None
    nothing = _ParentEntries(iter(()), 0, trusted=True, warn=warn)
    if record is None:
        return None, nothing
    try:
        manifest = read_manifest(repository, record)
    except CorruptionError as error:
        warn(f"the parent is damaged, everything is read again: {error}")
        return None, nothing
    entries = read_tree(reader, manifest["tree"])
    return record["snapshot_id"], _ParentEntries(entries, manifest["started_ns"], trusted, warn)


def _store_tree(run: _Run) -> dict[str, list[str]]:
    """Store every entry's contents, and the tree of entries itself; returns the tree's id list."""
    content_chunker = run.repository.chunker("content")
    with tempfile.SpooledTemporaryFile(_TREE_SPOOL_BYTES) as tree:
        for scanned in run.view.entries():
            entry = scanned.entry
            if entry.type == "file" and not _store_file(run, scanned, content_chunker):
                continue
            tree.write(encode_entry(entry))
            run.entries += 1
        tree.seek(0)
        ids = run.writer.put_stream(run.repository.chunker("tree"), _reader_of(tree))
    return ids.to_json()


def _reader_of(file: Any) -> Any:
    def read_into(buffer: memoryview) -> int:
        data = file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    return read_into


def _store_file(run: _Run, scanned: ScannedEntry, content_chunker: Chunker) -> bool:
    """Store a file's contents into its entry; False when it vanished."""
    entry = scanned.entry
    if scanned.links > 1:
        first = run.hard_links.setdefault((entry.device, entry.inode), entry.path)
        if first != entry.path:
            entry.hard_link = first
            run.files += 1
            return True
    old = run.parent_entries.unchanged(entry) if run.view.can_skip_unchanged else None
    if old is not None and (run.parent_entries.trusted or _all_stored(run, old)):
        entry.contents, entry.blake3, entry.extents = old.contents, old.blake3, old.extents
        run.meter.add(read_bytes=entry.size)
    elif not _read_file(run, scanned, content_chunker):
        run.hard_links.pop((entry.device, entry.inode), None)
        return False
    run.files += 1
    run.size_bytes += entry.size
    run.meter.add(files=1)
    return True


def _all_stored(run: _Run, entry: Entry) -> bool:
    """Whether every chunk of a file is in a pack that is there."""
    if not all(run.writer.has(chunk_id) for chunk_id in entry.contents.ids):
        return False
    try:
        return all(run.writer.has(chunk_id) for chunk_id in run.reader.ids(entry.contents))
    except CorruptionError:  # a list of ids is there, but damaged
        return False


def _read_file(run: _Run, scanned: ScannedEntry, content_chunker: Chunker) -> bool:
    """Read a file, again when it changes meanwhile; False when it vanished.

    :raises SourceError: when it may not be read.
    """
    entry = scanned.entry
    page_bytes = run.view.page_bytes
    chunker = content_chunker if page_bytes is None else PageChunker(page_bytes)
    for attempt in range(1, _READ_ATTEMPTS + 1):
        try:
            descriptor = scanned.open()
        except PermissionError as error:
            raise SourceError(
                f"{run.source.path}/{show(entry.path)} cannot be read: {error.strerror}"
            ) from error
        except OSError as error:  # gone, or no longer a regular file
            run.warnings.append(f"{show(entry.path)}: left out, {error.strerror} when it was opened")
            return False
        try:
            steady = store_contents(run.writer, chunker, descriptor, entry, run.meter)
        except OSError as error:
            raise SourceError(
                f"{run.source.path}/{show(entry.path)} cannot be read: {error.strerror}"
            ) from error
        finally:
            os.close(descriptor)
        if steady:
            return True
        if attempt == _READ_ATTEMPTS:
            run.warnings.append(f"{show(entry.path)}: changed while it was read, {attempt} times")
    return True
