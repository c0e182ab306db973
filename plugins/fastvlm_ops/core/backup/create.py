"""Making a snapshot of a source (docs/backup-format.md §8, commit)."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal

import fastvlm_ops
from fastvlm_ops.core.backup.chunking import Chunker, PageChunker, require_compiled_chunker
from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import CorruptionError, SourceError
from fastvlm_ops.core.backup.files import store_contents
from fastvlm_ops.core.backup.parent import ParentEntries, is_settled
from fastvlm_ops.core.backup.progress import ProgressCallback, ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import (
    ScannedEntry,
    Source,
    SourceView,
    raise_unless_gone,
    renew_entry,
    show,
)
from fastvlm_ops.core.backup.tree import Entry, encode_entry
from fastvlm_ops.core.backup.writing import ChunkWriter

Kind = Literal["full", "incremental"]

_READ_ATTEMPTS = 3
_COMMIT_ATTEMPTS = 3
_TREE_SPOOL_BYTES = 16 << 20
_WARNINGS_KEPT = 100


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


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    repository: Repository
    source: Source
    component: str
    kind: Kind
    run_key: str
    include_hash: str


@dataclass
class _Run:
    """State of one attempt."""

    job: _Job
    reader: ChunkReader
    writer: ChunkWriter
    meter: ProgressMeter
    warnings: list[str]
    files: int = 0
    size_bytes: int = 0
    entries: int = 0
    opened: int = 0
    hard_links: dict[tuple[int, int], bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scan:
    """An opened source, and the parent's entries beside it."""

    view: SourceView
    parent_entries: ParentEntries
    content_chunker: Chunker


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
    repository.require_conditional_writes()
    job = _Job(repository, source, component, kind, run_key, include_hash)
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
    warnings: list[str] = []
    index = job.repository.load_index(warnings.append)
    parent = _find_parent(job, warnings.append)
    prefix = f"index/{job.component}/{snapshot_id}"
    with ChunkWriter(job.repository, index, prefix, meter, check_packs=job.kind == "full") as writer:
        run = _Run(job, ChunkReader(job.repository, index), writer, meter, warnings)
        # When no indexed pack is missing, every chunk of a committed snapshot is there.
        contents = _store_source(run, parent, trusted=not index.missing)
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
            body = _claim(run, _inheriting(manifest))
        else:
            body = _commit(run, manifest)
    meter.report()
    return _result(body, reused=False, duration_seconds=meter.elapsed_seconds)


def _store_source(run: _Run, parent: dict[str, Any] | None, *, trusted: bool) -> dict[str, Any]:
    """Store what the source holds; returns the manifest's ``evidence``, ``totals`` and ``tree``.

    :param trusted: the parent's chunks are known to be there.
    :raises SourceError: it holds no file.
    """
    source = run.job.source
    fingerprint = source.fingerprint()
    if parent is not None and trusted and _same_fingerprint(parent, fingerprint):
        run.files, run.size_bytes = parent["totals"]["files"], parent["totals"]["size_bytes"]
        run.meter.add(files=run.files, read_bytes=run.size_bytes)
        return {key: parent[key] for key in ("evidence", "totals", "tree")}
    entries = read_tree(run.reader, parent["tree"]) if parent else iter(())
    started_ns = parent["started_ns"] if parent else 0
    with source.open() as view:
        beside = ParentEntries(entries, started_ns, trusted, run.warnings.append)
        scan = _Scan(view, beside, run.job.repository.chunker("content"))
        tree = _store_tree(run, scan)
        run.warnings += view.warnings
    if not run.files:
        raise SourceError(f"{source.path} holds no file to back up; an empty backup is refused")
    return {
        "evidence": {**view.evidence, "fingerprint": fingerprint},
        "totals": {"entries": run.entries, "files": run.files, "size_bytes": run.size_bytes},
        "tree": tree,
    }


def _same_fingerprint(parent: dict[str, Any], fingerprint: list[list[int]] | None) -> bool:
    if fingerprint is None or parent["evidence"].get("fingerprint") != fingerprint:
        return False
    return all(is_settled(mtime, ctime, parent["started_ns"]) for _, mtime, ctime, _ in fingerprint)


def _says_the_same(manifest: dict[str, Any], parent: dict[str, Any]) -> bool:
    told = ("source", "include_hash", "evidence", "totals", "tree", "warnings")
    return all(manifest[key] == parent[key] for key in told)


def _inheriting(manifest: dict[str, Any]) -> dict[str, Any]:
    """Body of the entry of a snapshot that has its parent's manifest, and all that it says of contents."""
    copied = ("snapshot_id", "component", "kind", "run_key", "parent", "started", "finished")
    return {key: manifest[key] for key in copied}


def _commit(run: _Run, manifest: dict[str, Any]) -> dict[str, Any]:
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
    return _claim(run, body)


def _claim(run: _Run, body: dict[str, Any]) -> dict[str, Any]:
    """Claim a place in the log; returns what the log then has of the snapshot."""

    def still_valid(state: LogState) -> None:
        if state.snapshot_of_run(body["component"], body["run_key"]) is not None:
            raise _AlreadyMadeError
        # Files taken over from the parent unread are safe only while the parent keeps their packs.
        if body["parent"] is not None and body["parent"] not in state.snapshots:
            raise _CondemnedError
        if run.writer.used_packs & state.condemned_names("packs"):
            raise _CondemnedError

    run.job.repository.log.append("snapshot", body, still_valid=still_valid)
    return run.job.repository.log.state.snapshots[body["snapshot_id"]]


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


def _store_tree(run: _Run, scan: _Scan) -> dict[str, list[str]]:
    """Store every entry's contents, and the tree of entries itself; returns the tree's id list.

    :raises SourceError: the disk of the temporary folder is full.
    """
    try:
        return _store_spooled(run, scan)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(
            f"the disk of {tempfile.gettempdir()} is full, where the list of files is kept meanwhile"
        ) from error


def _store_spooled(run: _Run, scan: _Scan) -> dict[str, list[str]]:
    with tempfile.SpooledTemporaryFile(_TREE_SPOOL_BYTES) as tree:
        for package, members in itertools.groupby(scan.view.entries(), lambda scanned: scanned.package):
            if package is None:
                for scanned in members:
                    _store_entry(run, scan, scanned, tree)
            else:
                _store_package(run, scan, package, members, tree)
        tree.seek(0)
        ids = run.writer.put_stream(run.job.repository.chunker("tree"), _reader_of(tree))
    return ids.to_json()


def _store_package(
    run: _Run, scan: _Scan, package: bytes, members: Iterator[ScannedEntry], tree: IO[bytes]
) -> None:
    """Store a package as one thing: again when any of it changed between its first and its last file."""
    for attempt in range(1, _READ_ATTEMPTS + 1):
        start, counts, warned = tree.tell(), (run.files, run.size_bytes, run.entries), len(scan.view.warnings)
        seen = []
        for scanned in members:
            seen.append(_status_of(scanned))
            _store_entry(run, scan, scanned, tree)
        if seen == [_status_of(scanned) for scanned in scan.view.entries_of(package)]:
            return
        if attempt == _READ_ATTEMPTS:
            scan.view.unsteady(f"{show(package)}: the package changed while it was read, {attempt} times")
            return
        tree.seek(start)
        tree.truncate()
        run.files, run.size_bytes, run.entries = counts
        inside = package + b"/"
        run.hard_links = {key: path for key, path in run.hard_links.items() if not path.startswith(inside)}
        del scan.view.warnings[warned:]
        members = scan.view.entries_of(package)


def _status_of(scanned: ScannedEntry) -> tuple[Any, ...]:
    entry = scanned.entry
    return entry.path, entry.type, entry.mode, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.target


def _store_entry(run: _Run, scan: _Scan, scanned: ScannedEntry, tree: IO[bytes]) -> None:
    if scanned.entry.type == "file" and not _store_file(run, scan, scanned):
        return
    tree.write(encode_entry(scanned.entry))
    run.entries += 1


def _reader_of(file: Any) -> Any:
    def read_into(buffer: memoryview) -> int:
        data = file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    return read_into


def _store_file(run: _Run, scan: _Scan, scanned: ScannedEntry) -> bool:
    """Store a file's contents into its entry; False when it vanished."""
    entry = scanned.entry
    scanned_as = (entry.device, entry.inode)
    if scanned.links > 1:
        first = run.hard_links.setdefault(scanned_as, entry.path)
        if first != entry.path:
            entry.hard_link = first
            run.files += 1
            return True
    old = scan.parent_entries.unchanged(entry) if scan.view.can_skip_unchanged else None
    if old is not None and (scan.parent_entries.trusted or _all_stored(run, old)):
        entry.contents, entry.blake3, entry.extents = old.contents, old.blake3, old.extents
        run.meter.add(read_bytes=entry.size)
    elif not _read_file(run, scan, scanned):
        run.hard_links.pop(scanned_as, None)
        return False
    if (entry.device, entry.inode) != scanned_as:  # another file by now: others are no links to it
        run.hard_links.pop(scanned_as, None)
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


def _read_file(run: _Run, scan: _Scan, scanned: ScannedEntry) -> bool:
    """Read a file, again when it changes meanwhile; False when it vanished.

    :raises SourceError: when it may not be read.
    """
    entry = scanned.entry
    run.opened += 1
    page_bytes = scan.view.page_bytes
    chunker = scan.content_chunker if page_bytes is None else PageChunker(page_bytes)
    for attempt in range(1, _READ_ATTEMPTS + 1):
        try:
            descriptor = scanned.open()
        except OSError as error:
            raise_unless_gone(error, run.job.source.path, entry.path)
            scan.view.unsteady(f"{show(entry.path)}: left out, {error.strerror} when it was opened")
            return False
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                scan.view.unsteady(f"{show(entry.path)}: left out, no regular file when it was opened")
                return False
            if page_bytes is None:  # else it is a copy that was opened
                renew_entry(entry, status, descriptor)
            steady = store_contents(run.writer, chunker, descriptor, status, entry, run.meter)
        except OSError as error:
            raise SourceError(
                f"{run.job.source.path}/{show(entry.path)} cannot be read: {error.strerror}"
            ) from error
        finally:
            os.close(descriptor)
        if steady:
            return True
        if attempt == _READ_ATTEMPTS:
            scan.view.unsteady(f"{show(entry.path)}: changed while it was read, {attempt} times")
    return True
