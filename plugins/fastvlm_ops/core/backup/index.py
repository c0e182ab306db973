"""Which chunk lies in which pack (docs/backup-format.md §6)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.keys import KeyRing
from fastvlm_ops.core.backup.packs import (
    RECORD,
    RECORDS,
    Record,
    check_records,
    pack_object_name,
    parse_records,
    read_footer,
)
from fastvlm_ops.core.backup.sealing import unseal
from fastvlm_ops.core.backup.storage import ObjectInfo, S3Storage

_LENGTH = struct.Struct("<I")
_BLOCK = struct.Struct("<32sQI")
_SEGMENT_LIMIT_BYTES = 512 << 20
_READERS = 4
_WORTH_A_BATCH = 4


class PackRecords(NamedTuple):
    """A pack as an index knows it; ``records`` is the binary list of its footer."""

    name: str
    size_bytes: int
    records: bytes


class Location(NamedTuple):
    """One place of a chunk."""

    pack: str
    pack_size_bytes: int
    record: Record


def encode_segment(packs: Iterable[PackRecords], supersedes: Iterable[str] = ()) -> bytes:
    """Payload of an index segment."""
    header = json.dumps({"supersedes": list(supersedes)}).encode()
    parts = [_LENGTH.pack(len(header)), header]
    for pack in packs:
        digest = bytes.fromhex(pack.name.rpartition("/")[2])
        parts += [_BLOCK.pack(digest, pack.size_bytes, len(pack.records) // RECORD.size), pack.records]
    return b"".join(parts)


def decode_segment(payload: bytes, name: str) -> tuple[list[str], list[PackRecords]]:
    """The names it supersedes, and its packs.

    :raises CorruptionError: when lengths contradict each other.
    """
    try:
        (header_length,) = _LENGTH.unpack_from(payload)
        offset = _LENGTH.size + header_length
        supersedes = json.loads(payload[_LENGTH.size : offset])["supersedes"]
        packs = []
        while offset < len(payload):
            digest, size_bytes, count = _BLOCK.unpack_from(payload, offset)
            offset += _BLOCK.size
            end = offset + count * RECORD.size
            if end > len(payload):
                raise CorruptionError(f"{name}: a block is longer than the segment")
            packs.append(PackRecords(pack_object_name(digest), size_bytes, payload[offset:end]))
            offset = end
    except (struct.error, ValueError, KeyError) as error:
        raise CorruptionError(f"{name} is not an index segment: {error}") from error
    return supersedes, packs


class ChunkTable(NamedTuple):
    """Every record of an index as arrays: ``order`` are the rows by the first eight bytes of their ids."""

    packs: list[tuple[str, int]]
    records: np.ndarray
    pack_of_row: np.ndarray
    order: np.ndarray
    prefixes: np.ndarray


class SegmentInfo(NamedTuple):
    """A segment as it was listed and read; ``packs`` is what it names, nothing where it is damaged."""

    size_bytes: int
    packs: tuple[str, ...]
    is_superseded: bool


@dataclass
class ChunkIndex:
    """Chunk id → location, for the chunks whose packs are there.

    76 bytes of memory a chunk: the records as they came, and their ids' first eight bytes, sorted.

    ``lost`` holds packs that a segment names but the bucket lacks (or holds with another size),
    ``adopted`` those found without a segment: a run died before it could write one. ``listed`` maps all
    packs of the bucket to their sizes, ``damaged`` segments and unindexed packs to why they are unusable,
    ``segments`` those that were listed and not condemned to what they name. ``stored_at`` says when packs
    were stored, by S3's clock; ``condemned`` are packs that are there yet though they count as gone.
    """

    lost: list[PackRecords] = field(default_factory=list)
    adopted: list[PackRecords] = field(default_factory=list)
    listed: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    segments: dict[str, SegmentInfo] = field(default_factory=dict)
    stored_at: dict[str, datetime] = field(default_factory=dict)
    condemned: dict[str, int] = field(default_factory=dict)
    _packs: list[tuple[str, int]] = field(default_factory=list)
    _records: bytes = b""
    _pack_of_row: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))
    _prefixes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    _rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def build(cls, packs: list[PackRecords]) -> ChunkIndex:
        index = cls()
        index._packs = [(pack.name, pack.size_bytes) for pack in packs]
        index._records = b"".join(pack.records for pack in packs)
        counts = [len(pack.records) // RECORD.size for pack in packs]
        index._pack_of_row = np.repeat(np.arange(len(packs), dtype=np.uint32), counts)
        words = np.frombuffer(index._records, np.uint64).reshape(-1, RECORD.size // 8)
        index._rows = np.argsort(words[:, 0], kind="stable")
        index._prefixes = np.ascontiguousarray(words[index._rows, 0])
        return index

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def missing(self) -> set[str]:
        """Names of what is lost or unusable: where this is empty, all that was ever indexed is there."""
        return {pack.name for pack in self.lost} | self.damaged.keys()

    def packs(self) -> Iterator[PackRecords]:
        """The packs that are there."""
        bounds = np.searchsorted(self._pack_of_row, np.arange(len(self._packs) + 1)) * RECORD.size
        for number, (name, size_bytes) in enumerate(self._packs):
            yield PackRecords(name, size_bytes, self._records[bounds[number] : bounds[number + 1]])

    def table(self) -> ChunkTable:
        """For what works on all chunks at once; copies nothing."""
        records = np.frombuffer(self._records, RECORDS)
        return ChunkTable(self._packs, records, self._pack_of_row, self._rows, self._prefixes)

    def without(self, frames: Mapping[str, Container[int]]) -> ChunkIndex:
        """An index of the same packs, but for some frames of some of them."""
        kept = []
        for pack in self.packs():
            if pack.name in frames:
                records = parse_records(pack.records, pack.name)
                intact = [record for record in records if record.frame not in frames[pack.name]]
                pack = pack._replace(records=b"".join(RECORD.pack(*record) for record in intact))
            kept.append(pack)
        return ChunkIndex.build(kept)

    def locations(self, chunk_id: bytes) -> Iterator[Location]:
        """Every place of a chunk."""
        prefix = np.uint64(int.from_bytes(chunk_id[:8], "little"))
        position = int(self._prefixes.searchsorted(prefix))
        while position < len(self._prefixes) and self._prefixes[position] == prefix:
            row = int(self._rows[position])
            start = row * RECORD.size
            if self._records[start : start + 32] == chunk_id:
                name, size_bytes = self._packs[int(self._pack_of_row[row])]
                yield Location(name, size_bytes, Record(*RECORD.unpack_from(self._records, start)))
            position += 1

    def _first_rows(self, chunk_ids: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Of each chunk the first row with its prefix, or else any, and whether that is the chunk's own."""
        wanted = np.frombuffer(b"".join(chunk_ids), np.uint64).reshape(len(chunk_ids), -1)
        positions = np.minimum(self._prefixes.searchsorted(wanted[:, 0]), len(self) - 1)
        rows: np.ndarray = self._rows[positions]
        words = np.frombuffer(self._records, np.uint64).reshape(-1, RECORD.size // 8)
        return rows, (words[rows, : wanted.shape[1]] == wanted).all(axis=1)

    def packs_of(self, chunk_ids: list[bytes]) -> list[str | None]:
        """Of each chunk the first pack that has it, or None; None also means that only :meth:`find` can
        tell. For many at once, as :meth:`find_all`, which says more and takes longer.
        """
        if len(chunk_ids) < _WORTH_A_BATCH or not len(self):
            return [None] * len(chunk_ids)
        rows, equal = self._first_rows(chunk_ids)
        packs = np.where(equal, self._pack_of_row[rows].astype(np.int64), -1).tolist()
        return [self._packs[pack][0] if pack >= 0 else None for pack in packs]

    def total_length(self, chunk_ids: list[bytes]) -> int | None:
        """Bytes of all these chunks; None also means that only :meth:`find_all` can tell."""
        if len(chunk_ids) < _WORTH_A_BATCH or not len(self):
            return None
        rows, equal = self._first_rows(chunk_ids)
        lengths = np.frombuffer(self._records, RECORDS)["length"]
        return int(lengths[rows].sum(dtype=np.int64)) if equal.all() else None

    def find_all(self, chunk_ids: list[bytes]) -> list[Location | None]:
        """As :meth:`find`, for many at once: a call of NumPy for each would cost most of the time."""
        if len(chunk_ids) < _WORTH_A_BATCH or not len(self):
            return [self.find(chunk_id) for chunk_id in chunk_ids]
        rows, equal = self._first_rows(chunk_ids)
        packs = self._pack_of_row[rows].tolist()
        found: list[Location | None] = []
        for chunk_id, row, pack, is_own in zip(chunk_ids, rows.tolist(), packs, equal.tolist(), strict=True):
            if is_own:
                name, size_bytes = self._packs[pack]
                record = Record(*RECORD.unpack_from(self._records, row * RECORD.size))
                found.append(Location(name, size_bytes, record))
            else:  # another one has the same prefix, or there is none
                found.append(self.find(chunk_id))
        return found

    def find(self, chunk_id: bytes) -> Location | None:
        """A place of a chunk, or None."""
        return next(self.locations(chunk_id), None)


def read_segment(storage: S3Storage, name: str) -> bytes:
    """A segment as it is stored."""
    return storage.get(name, limit_bytes=_SEGMENT_LIMIT_BYTES)


def _read_segments(
    storage: S3Storage,
    ring: KeyRing,
    repository_id: str,
    sizes: dict[str, int],
    fetched: dict[str, Future[bytes]],
    damaged: dict[str, str],
) -> tuple[dict[str, PackRecords], dict[str, SegmentInfo]]:
    """Packs by name, and segments; ``damaged`` gets those that cannot be read, whose packs have footers yet.

    :param sizes: of the segments to read, by name
    """

    def read(name: str) -> tuple[list[str], list[PackRecords]]:
        try:
            data = fetched[name].result() if name in fetched else read_segment(storage, name)
            payload = unseal(ring, repository_id, "I", name, data, limit_bytes=_SEGMENT_LIMIT_BYTES)
            supersedes, packs = decode_segment(payload, name)
            for pack in packs:
                check_records(pack.records, name)
        except ObjectNotFoundError:  # superseded and removed since it was listed
            return [], []
        except CorruptionError as error:
            damaged[name] = str(error)
            return [], []
        return supersedes, packs

    with ThreadPoolExecutor(_READERS) as pool:
        segments = dict(zip(sizes, pool.map(read, sizes), strict=True))
    superseded = {old for supersedes, _ in segments.values() for old in supersedes}
    packs: dict[str, PackRecords] = {}
    infos = {}
    for name, (_, members) in segments.items():
        named = tuple(pack.name for pack in members)
        infos[name] = SegmentInfo(sizes[name], named, name in superseded)
        if name not in superseded:
            packs.update((pack.name, pack) for pack in members)
    return packs, infos


def _read_footers(
    storage: S3Storage,
    ring: KeyRing,
    repository_id: str,
    sizes: dict[str, int],
    damaged: dict[str, str],
    warn: Callable[[str], None],
) -> list[PackRecords]:
    """Packs that no segment names; ``damaged`` gets those that cannot be read.

    :param sizes: of the packs, by name
    """

    def rescue(name: str) -> PackRecords | None:
        try:
            if not sizes[name]:
                raise CorruptionError(f"{name} is empty")
            records = read_footer(storage, ring, repository_id, name, sizes[name])
            check_records(records, name)
            return PackRecords(name, sizes[name], records)
        except (CorruptionError, ObjectNotFoundError) as error:
            damaged[name] = str(error)
            warn(f"pack without an index segment is unusable: {error}")
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        return [pack for pack in pool.map(rescue, sizes) if pack]


def load_index(
    storage: S3Storage,
    ring: KeyRing,
    repository_id: str,
    state: LogState,
    *,
    warn: Callable[[str], None],
    segments: list[ObjectInfo] | None = None,
    fetched: dict[str, Future[bytes]] | None = None,
    packs: list[ObjectInfo] | None = None,
) -> ChunkIndex:
    """All segments, checked against the listing of the packs; unindexed packs by their footers.

    :param segments: what is below ``index/``, where that has been listed just now
    :param fetched: segments by name that are read or being read already
    :param packs: what is below ``packs/``, likewise
    :param warn: told of segments that are damaged, and of unindexed packs that cannot be read. No snapshot
        needs such a pack unless its segment was lost too; then restoring names the chunk.
    """
    condemned = state.condemned_names("packs")
    damaged: dict[str, str] = {}
    found = storage.list("index/") if segments is None else segments
    unusable = state.condemned_names("indexes")
    sizes = {info.name: info.size_bytes for info in found if info.name not in unusable}
    indexed, infos = _read_segments(storage, ring, repository_id, sizes, fetched or {}, damaged)
    for problem in damaged.values():
        warn(f"index segment is unusable, the footers of its packs are read instead: {problem}")
    if packs is None or indexed.keys() - condemned - {info.name for info in packs}:
        packs = list(storage.list("packs/"))  # one that is missing may have been stored after the listing
    listed = {info.name: info.size_bytes for info in packs if info.name not in condemned}

    unindexed = {name: listed[name] for name in listed.keys() - indexed.keys()}
    adopted = _read_footers(storage, ring, repository_id, unindexed, damaged, warn)
    present = [pack for pack in indexed.values() if listed.get(pack.name) == pack.size_bytes]
    index = ChunkIndex.build([*present, *adopted])
    index.adopted, index.listed, index.damaged, index.segments = adopted, listed, damaged, infos
    index.stored_at = {info.name: info.last_modified for info in packs}
    index.condemned = {info.name: info.size_bytes for info in packs if info.name in condemned}
    index.lost = [
        pack
        for pack in indexed.values()
        if pack.name not in condemned and listed.get(pack.name) != pack.size_bytes
    ]
    return index
