"""Whether a source has changed: quickly since a look before, or for certain since the last publication."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.backup.files import data_extents
from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sets import BackupSet, list_sets
from fastvlm_ops.core.backup.sources import ScannedEntry, Source
from fastvlm_ops.core.backup.tree import Entry, IdList

_READ_BYTES = 1 << 20


def quick_signature(source: Source) -> str:
    """A digest of what status and names say about a source; no contents are read.

    Two equal ones mean that nothing changed between them; after a file was merely touched they differ.

    :raises SourceError: the source is missing, empty or unreadable.
    """
    digest = blake3()
    with source.open() as view:
        for scanned in view.entries():
            entry = scanned.entry
            status = (entry.type, entry.mode, entry.uid, entry.gid, entry.size, scanned.links)
            times = (entry.mtime_ns, entry.ctime_ns, entry.inode)
            # A file's own attributes are not read: to change one sets its change time.
            # repr keeps a moved boundary between two values from giving the same digest.
            digest.update(repr((entry.path, *status, *times, entry.target, entry.xattrs)).encode())
    return digest.hexdigest()


def published_equal(repository: Repository, source: Source, component: str) -> BackupSet | None:
    """The newest published set that has the component, if the source is what it holds; None otherwise.

    Compared are names, types, contents, modes, owners, links and attributes. Times are not: nothing is
    lost with them alone, and rewriting a file as it was is no change.

    :raises SourceError: the source is missing, empty or unreadable.
    :raises CorruptionError: the set's tree cannot be read.
    """
    for backup in reversed(list_sets(repository)):
        for member in backup.snapshots:
            if member.component == component:
                record = repository.log.state.snapshots[member.snapshot_id]
                return backup if _is_equal(repository, source, record) else None
    return None


def _is_equal(repository: Repository, source: Source, record: dict[str, Any]) -> bool:
    manifest = read_manifest(repository, record)
    reader = ChunkReader(repository, repository.load_index(lambda _: None))
    with source.open() as view:
        stored = read_tree(reader, manifest["tree"])
        pairs = itertools.zip_longest(_as_stored(view.entries()), stored)
        return all(_is_same(here, there) for here, there in pairs)


def _as_stored(scan: Iterable[ScannedEntry]) -> Iterator[ScannedEntry]:
    """Entries with hard links and attributes as a snapshot has them."""
    first_of: dict[tuple[int, int], bytes] = {}
    for scanned in scan:
        entry = scanned.entry
        if scanned.links > 1:
            first = first_of.setdefault((entry.device, entry.inode), entry.path)
            entry.hard_link = first if first != entry.path else None
        if entry.type == "file":
            entry.xattrs = scanned.attributes()
        yield scanned


def _is_same(here: ScannedEntry | None, there: Entry | None) -> bool:
    """Whether an entry is the stored one. Reads the file only when all else agrees."""
    if here is None or there is None or _without_times(here.entry) != _without_times(there):
        return False
    if there.type != "file" or there.hard_link is not None:
        return True
    return here.entry.size == there.size and _has_contents(here, there)


def _without_times(entry: Entry) -> Entry:
    """What of an entry counts besides its contents."""
    return replace(
        entry,
        mtime_ns=0,
        ctime_ns=0,
        inode=0,
        device=0,
        size=0,
        blake3="",
        contents=IdList(),
        extents=None,
    )


def _has_contents(here: ScannedEntry, there: Entry) -> bool:
    try:
        descriptor = here.open()
    except OSError:  # gone by now, so that it did change; or unreadable, which the backup then reports
        return False
    try:
        extents = data_extents(descriptor, os.fstat(descriptor))
        if extents != there.extents:
            return False
        hasher = blake3()
        for start, length in [(0, there.size)] if extents is None else extents:
            _hash_range(hasher, descriptor, start, start + length)
        return hasher.hexdigest() == there.blake3
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _hash_range(hasher: Any, descriptor: int, position: int, end: int) -> None:
    while position < end and (data := os.pread(descriptor, min(_READ_BYTES, end - position), position)):
        hasher.update(data)
        position += len(data)
