"""Verifying packs: by the listing, by the checksum that S3 keeps, or by reading them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, TypeVar

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.index import ChunkIndex
from fastvlm_ops.core.backup.packs import Record, check_chunk, open_frame, parse_records, read_footer
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sealing import Header
from fastvlm_ops.core.backup.storage import ObjectInfo, S3Storage
from fastvlm_ops.core.backup.verify_result import Findings, PackDamage, Share

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_HEADS = 8
_READS = 3  # each holds a pack of about 16 MiB and one frame of it
_PACK_LIMIT_BYTES = 1 << 30


def in_parallel(
    threads: int, function: Callable[[Item], Outcome], items: Iterable[Item]
) -> Iterator[tuple[Item, Outcome]]:
    """Each item with its outcome, in order; never many more under way than there are threads."""
    ahead: deque[tuple[Item, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for item in items:
                ahead.append((item, pool.submit(function, item)))
                if len(ahead) >= 2 * threads:
                    done, future = ahead.popleft()
                    yield done, future.result()
            while ahead:
                done, future = ahead.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class MeteredStorage(S3Storage):
    """A storage that counts what is read through it, and reports progress."""

    def __init__(self, inner: S3Storage, meter: ProgressMeter) -> None:
        super().__init__(inner.client, inner.bucket, inner.prefix)
        self._inner = inner
        self._meter = meter
        self._lock = Lock()
        self.read_bytes = 0
        self.objects = 0
        self.object_bytes = 0

    def count(self, *, read_bytes: int = 0, objects: int = 0, object_bytes: int = 0) -> None:
        with self._lock:
            self.read_bytes += read_bytes
            self.objects += objects
            self.object_bytes += object_bytes
            self._meter.add(files=objects, read_bytes=read_bytes, transferred_bytes=read_bytes)

    def get(self, name: str, *, limit_bytes: int) -> bytes:
        data = self._inner.get(name, limit_bytes=limit_bytes)
        if name.startswith("packs/"):  # counted when they are listed
            self.count(read_bytes=len(data))
        else:
            self.count(read_bytes=len(data), objects=1, object_bytes=len(data))
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._inner.get_range(name, offset, length)
        self.count(read_bytes=len(data))
        return data

    def head(self, name: str) -> ObjectInfo:
        return self._inner.head(name)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._inner.list(prefix, start_after=start_after)


class _Fetched(S3Storage):
    """One object that has been fetched already."""

    def __init__(self, storage: S3Storage, data: bytes) -> None:
        super().__init__(storage.client, storage.bucket, storage.prefix)
        self._data = data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length] if offset >= 0 else self._data[offset:]


# -- listing -------------------------------------------------------------------------------------------


def note_index(index: ChunkIndex, findings: Findings) -> None:
    """What loading the index has found: packs that are not there, segments and footers that are damaged."""
    for pack in index.lost:
        listed = index.listed.get(pack.name)
        what = "is missing" if listed is None else f"is {listed} bytes, not {pack.size_bytes}"
        findings.packs[pack.name] = PackDamage(what)
    for name, what in index.damaged.items():
        if name in index.listed:
            findings.packs[name] = PackDamage(f"no index segment names it, and its footer is damaged: {what}")


# -- checksums -----------------------------------------------------------------------------------------


def check_heads(storage: S3Storage, sizes: Mapping[str, int], findings: Findings) -> list[str]:
    """Compare size and SHA-256 of packs as S3 keeps them; returns those that differ and can be read.

    :param sizes: the packs to head, with the sizes they must have.
    """

    def head(name: str) -> ObjectInfo | None:
        try:
            return storage.head(name)
        except ObjectNotFoundError:
            return None

    differing = []
    for name, info in in_parallel(_HEADS, head, sizes):
        if info is None or info.size_bytes != sizes[name]:
            what = "is missing" if info is None else f"is {info.size_bytes} bytes, not {sizes[name]}"
            findings.packs.setdefault(name, PackDamage(what))
        elif info.sha256 is None:
            findings.packs_without_checksum += 1
        elif info.sha256 != name.rpartition("/")[2]:
            differing.append(name)
    return differing


# -- contents ------------------------------------------------------------------------------------------


def in_share(name: str, share: Share) -> bool:
    """Whether a pack falls into a share; decided by its name, which is a hash."""
    digest = name.rpartition("/")[2]
    number = int(digest[:12], 16) if _is_hex(digest[:12]) else 0
    return number % share[1] == share[0]


def _is_hex(text: str) -> bool:
    return bool(text) and all(digit in "0123456789abcdef" for digit in text)


def read_packs(repository: Repository, index: ChunkIndex, names: Collection[str], findings: Findings) -> None:
    """Read packs in full, and note what of them is damaged."""
    listed = index.listed
    wanted = (pack for pack in index.packs() if pack.name in names)
    unindexed = (name for name in names if name in index.damaged)

    def items() -> Iterator[tuple[str, bytes | None]]:
        yield from ((pack.name, pack.records) for pack in wanted)
        yield from ((name, None) for name in unindexed)

    def read(item: tuple[str, bytes | None]) -> PackDamage | None:
        return _read_pack(repository, item[0], listed[item[0]], item[1])

    for (name, _), damage in in_parallel(_READS, read, items()):
        if damage is not None:
            findings.packs[name] = damage


def _read_pack(
    repository: Repository, name: str, size_bytes: int, records: bytes | None
) -> PackDamage | None:
    """What is wrong with a pack: its checksum, its footer, its frames, its chunks."""
    try:
        data = repository.storage.get(name, limit_bytes=_PACK_LIMIT_BYTES)
    except (CorruptionError, ObjectNotFoundError) as error:
        return PackDamage(str(error))
    if len(data) != size_bytes:
        return PackDamage(f"is {len(data)} bytes, not {size_bytes}")
    problems: list[str] = []
    if hashlib.sha256(data).hexdigest() != name.rpartition("/")[2]:
        problems.append("its bytes are not those its name is the SHA-256 of")
    try:
        footer = read_footer(
            _Fetched(repository.storage, data), repository.ring, repository.repository_id, name, len(data)
        )
        if records is not None and footer != records:
            problems.append("its footer is not what the index says of it")
    except CorruptionError as error:
        problems.append(str(error))
        footer = b""
    try:
        header = Header.parse(data, kind="P", repository_id=repository.repository_id, name=name)
        frames = _bad_frames(repository, header, data, name, footer if records is None else records)
    except CorruptionError as error:
        return PackDamage("; ".join([*problems, str(error)]))
    if frames:
        problems.append(f"{len(frames)} of its frames cannot be read")
    return PackDamage("; ".join(problems), frames) if problems else None


class _Place(NamedTuple):
    """A frame, as records describe it."""

    frame: int
    offset: int
    stored_length: int
    raw_length: int
    codec: int
    stride: int

    @classmethod
    def of(cls, record: Record) -> _Place:
        sizes = (record.offset, record.stored_length, record.raw_length)
        return cls(record.frame, *sizes, record.codec, record.stride)


def _bad_frames(
    repository: Repository, header: Header, data: bytes, name: str, records: bytes
) -> frozenset[int]:
    """Frames that do not open, or hold a chunk that is not what its id says."""
    places: dict[_Place, list[Record]] = {}
    for record in parse_records(records, name):
        places.setdefault(_Place.of(record), []).append(record)
    bad: set[int] = set()
    for place, members in places.items():
        stored = memoryview(data)[place.offset : place.offset + place.stored_length]
        try:
            raw = memoryview(open_frame(repository.ring, header, stored, members[0], name))
            for record in members:
                piece = raw[record.inner_offset : record.inner_offset + record.length]
                check_chunk(record.chunk_id, piece, repository.ring.chunk_id_key, name)
        except CorruptionError:
            bad.add(place.frame)
    return frozenset(bad)
