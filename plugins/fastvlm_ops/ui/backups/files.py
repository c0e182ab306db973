"""What is in a snapshot, folder by folder, read from the repository."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING

from fastvlm_ops.ui import addresses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastvlm_ops.core.backup.tree import Entry

CACHED_ENTRIES = 200_000


class FolderNotFoundError(Exception):
    """The snapshot has no folder of that path."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file or folder. ``size`` of a folder is that of all files below it, ``files`` how many those are."""

    name: bytes
    path: bytes
    type: str
    size: int
    files: int
    mtime_ns: int

    @property
    def changed_at(self) -> datetime | None:
        try:
            return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)
        except (OverflowError, ValueError):  # a file's clock may say anything
            return None

    @property
    def key(self) -> str:
        """The path as part of an address."""
        return encode_path(self.path)


class Listing:
    """All folders of a snapshot, with what is right in them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._folders: dict[bytes, list[Item]] = {}
        self._totals: dict[bytes, tuple[int, int]] = {}
        found = []
        sizes: dict[bytes, int] = {}
        for entry in entries:
            if not entry.parts:
                self._folders[b""] = []
                continue
            if entry.type == "file" and entry.hard_link is not None:
                sizes[entry.path] = sizes.get(entry.hard_link, 0)
            elif entry.type == "file":
                sizes[entry.path] = entry.size
            found.append((entry.path, entry.type, entry.mtime_ns))
            if entry.type == "file":
                self._add_up(entry.path, sizes[entry.path])
            elif entry.type == "directory":
                self._folders[entry.path] = []
        self.entries = len(found)
        for path, kind, mtime_ns in found:
            parent, _, name = path.rpartition(b"/")
            size, files = self._totals.get(path, (0, 0)) if kind == "directory" else (sizes.get(path, 0), 0)
            self._folders[parent].append(Item(name, path, kind, size, files, mtime_ns))
        for items in self._folders.values():
            items.sort(key=lambda item: (item.type != "directory", item.name))

    def folder(self, path: bytes) -> list[Item]:
        """Return what is in a folder, folders first.

        :raises FolderNotFoundError: there is none of that path
        """
        if path not in self._folders:
            raise FolderNotFoundError
        return self._folders[path]

    def _add_up(self, path: bytes, size: int) -> None:
        while path:
            path = path.rpartition(b"/")[0]
            total, files = self._totals.get(path, (0, 0))
            self._totals[path] = (total + size, files + 1)


class ListingCache:
    """Listings of the snapshots that were looked at last, up to a number of entries in all.

    Snapshots never change, so a listing that is kept is right as long as its snapshot is there.
    """

    def __init__(self, entries: int = CACHED_ENTRIES) -> None:
        self._limit = entries
        self._kept: OrderedDict[tuple[str, str], Listing] = OrderedDict()
        self._lock = Lock()

    def get(self, repository_id: str, snapshot_id: str) -> Listing | None:
        """Return a listing that is kept."""
        with self._lock:
            listing = self._kept.get((repository_id, snapshot_id))
            if listing is not None:
                self._kept.move_to_end((repository_id, snapshot_id))
            return listing

    def put(self, repository_id: str, snapshot_id: str, listing: Listing) -> None:
        """Keep a listing, and let go of those that were not looked at for longest."""
        with self._lock:
            self._kept[repository_id, snapshot_id] = listing
            while self._kept and sum(kept.entries for kept in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)


_CACHE = ListingCache()
_READING = Lock()


def read_listing(snapshot_id: str) -> Listing:
    """Return the listing of a snapshot, from the repository unless it is kept.

    The repository is opened each time: what cannot be reached any more is not shown as if it were there.

    :raises BackupError: the bucket cannot be reached, or the snapshot is gone or damaged
    :raises ConnectionSettingError: the connection ``fastvlm_s3`` is not right
    """
    from fastvlm_ops.core.backup.errors import BackupNotFoundError
    from fastvlm_ops.core.backup.reading import ChunkReader, read_manifest, read_tree
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook

    repository = BackupRepositoryHook().open_repository(chunks=True)
    if listing := _CACHE.get(repository.repository_id, snapshot_id):
        return listing
    with _READING:  # one at a time: each may take as much memory as all that is kept
        record = repository.refresh().snapshots.get(snapshot_id)
        if record is None:
            raise BackupNotFoundError(f"{repository.storage} has no snapshot {snapshot_id}")
        reader = ChunkReader(repository, repository.load_index(lambda _: None))
        listing = Listing(read_tree(reader, read_manifest(repository, record)["tree"]))
        _CACHE.put(repository.repository_id, snapshot_id, listing)
    return listing


def encode_path(path: bytes) -> str:
    """Return a path, which may be any bytes, as text that an address can hold."""
    return addresses.encode(path)


def decode_path(text: str) -> bytes:
    """Undo :func:`encode_path`.

    :raises FolderNotFoundError: it is not what that returns
    """
    try:
        return addresses.decode(text)
    except addresses.AddressError:
        raise FolderNotFoundError from None
