"""The contents of a source into the repository: entry by entry, files read again when they change."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from fastvlm_ops.core.backup.chunking import Chunker, PageChunker, page_chunk_bytes
from fastvlm_ops.core.backup.entry_sorting import SortedEntries, reader_of
from fastvlm_ops.core.backup.errors import CorruptionError, SourceError
from fastvlm_ops.core.backup.files import store_contents, store_streamed
from fastvlm_ops.core.backup.parent import ParentEntries, is_settled
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader, read_lines
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

_READ_ATTEMPTS = 3
_TREE_SPOOL_BYTES = 16 << 20


@dataclass
class Storing:
    """A source on its way into the repository, and what was counted; ``opened``: files that were read."""

    repository: Repository
    source: Source
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


def store_source(run: Storing, parent: dict[str, Any] | None, *, trusted: bool) -> dict[str, Any]:
    """Store what the source holds; returns the manifest's ``evidence``, ``totals`` and ``tree``.

    :param trusted: the parent's chunks are known to be there.
    :raises SourceError: it holds no file.
    """
    source = run.source
    fingerprint = source.fingerprint()
    if parent is not None and trusted and _same_fingerprint(parent, fingerprint):
        run.files, run.size_bytes = parent["totals"]["files"], parent["totals"]["size_bytes"]
        run.meter.add(files=run.files, read_bytes=run.size_bytes)
        return {key: parent[key] for key in ("evidence", "totals", "tree")}
    lines = read_lines(run.reader, parent["tree"]) if parent else iter(())
    started_ns = parent["started_ns"] if parent else 0
    with source.open() as view:
        beside = ParentEntries(lines, started_ns, trusted, run.warnings.append)
        scan = _Scan(view, beside, run.repository.chunker("content"))
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


def _store_tree(run: Storing, scan: _Scan) -> dict[str, list[str]]:
    """Store every entry's contents, and the tree of entries itself; returns the tree's id list.

    :raises SourceError: the disk of the temporary folder is full.
    """
    try:
        return _store_spooled(run, scan) if scan.view.stream is None else _store_stream(run, scan)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(
            f"the disk of {tempfile.gettempdir()} is full, where the list of files is kept meanwhile"
        ) from error


def _store_spooled(run: Storing, scan: _Scan) -> dict[str, list[str]]:
    with tempfile.SpooledTemporaryFile(_TREE_SPOOL_BYTES) as tree:
        for package, members in itertools.groupby(scan.view.entries(), lambda scanned: scanned.package):
            if package is None:
                for scanned in members:
                    _store_entry(run, scan, scanned, tree)
            else:
                _store_package(run, scan, package, members, tree)
        tree.seek(0)
        ids = run.writer.put_tree(run.repository.chunker("tree"), _reader_of(tree))
    return ids.to_json()


def _store_stream(run: Storing, scan: _Scan) -> dict[str, list[str]]:
    """Store entries that come in any order, each with its contents; the tree is put in order at the end."""
    assert scan.view.stream is not None  # noqa: S101 - the caller has looked
    pages: dict[int, Chunker] = {}
    # Closed here, so that whatever streams ends with whatever ends this.
    with SortedEntries() as sorted_entries, contextlib.closing(scan.view.stream()) as stream:
        for streamed in stream:
            entry, page_bytes = streamed.entry, streamed.page_bytes
            if streamed.read_into is not None:
                chunker: Chunker = scan.content_chunker
                if page_bytes is not None:
                    chunk_bytes = page_chunk_bytes(page_bytes, entry.size)
                    if chunk_bytes not in pages:  # it has a buffer of some MiB
                        pages[chunk_bytes] = PageChunker(chunk_bytes)
                    chunker = pages[chunk_bytes]
                store_streamed(run.writer, chunker, streamed.read_into, entry, run.meter)
                run.opened += 1
                run.files += 1
                run.size_bytes += entry.size
                run.meter.add(files=1)
            sorted_entries.add(entry)
            run.entries += 1
        tree = reader_of(sorted_entries.lines())
        return run.writer.put_tree(run.repository.chunker("tree"), tree).to_json()


def _store_package(
    run: Storing, scan: _Scan, package: bytes, members: Iterator[ScannedEntry], tree: IO[bytes]
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


def _store_entry(run: Storing, scan: _Scan, scanned: ScannedEntry, tree: IO[bytes]) -> None:
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


def _store_file(run: Storing, scan: _Scan, scanned: ScannedEntry) -> bool:
    """Store a file's contents into its entry; False when it vanished."""
    entry = scanned.entry
    scanned_as = (entry.device, entry.inode)
    if scanned.links > 1:
        first = run.hard_links.setdefault(scanned_as, entry.path)
        if first != entry.path:
            entry.hard_link, entry.xattrs = first, scanned.attributes()
            run.files += 1
            return True
    can_skip = scan.view.can_skip_unchanged
    taken_over = can_skip and scan.parent_entries.take_over(entry)
    if not taken_over:
        entry.xattrs = scanned.attributes()
    old = scan.parent_entries.unchanged(entry) if can_skip and not taken_over else None
    if taken_over:
        run.meter.add(read_bytes=entry.size)
    elif old is not None and (scan.parent_entries.trusted or _all_stored(run, old)):
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


def _all_stored(run: Storing, entry: Entry) -> bool:
    """Whether every chunk of a file is in a pack that is there."""
    if not all(run.writer.has(chunk_id) for chunk_id in entry.contents.ids):
        return False
    try:
        return all(run.writer.has(chunk_id) for chunk_id in run.reader.ids(entry.contents))
    except CorruptionError:  # a list of ids is there, but damaged
        return False


def _read_file(run: Storing, scan: _Scan, scanned: ScannedEntry) -> bool:
    """Read a file, again when it changes meanwhile; False when it vanished.

    :raises SourceError: when it may not be read.
    """
    entry = scanned.entry
    run.opened += 1
    page_bytes = scan.view.page_bytes
    chunker: Chunker = scan.content_chunker
    if page_bytes is not None:
        chunker = PageChunker(page_chunk_bytes(page_bytes, entry.size))
    for attempt in range(1, _READ_ATTEMPTS + 1):
        try:
            descriptor = scanned.open()
        except OSError as error:
            raise_unless_gone(error, run.source.path, entry.path)
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
                f"{run.source.path}/{show(entry.path)} cannot be read: {error.strerror}"
            ) from error
        finally:
            os.close(descriptor)
        if steady:
            return True
        if attempt == _READ_ATTEMPTS:
            scan.view.unsteady(f"{show(entry.path)}: changed while it was read, {attempt} times")
    return True
