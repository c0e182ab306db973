"""Chunks into packs and packs into the bucket, in parallel and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from blake3 import blake3

from fastvlm_ops.core.backup.chunking import Chunker, ReadInto
from fastvlm_ops.core.backup.errors import ObjectNotFoundError
from fastvlm_ops.core.backup.index import ChunkIndex, PackRecords, encode_segment
from fastvlm_ops.core.backup.packs import SOLID_FRAME_BYTES, Frame, FrameGrouper, encode_pack
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.tree import IdList

_WORKERS = 4  # more than cores: most of their time is spent waiting for S3
_IN_FLIGHT_PACKS = 5
_PACKS_PER_SEGMENT = 16  # those without one are found by their footers
_INLINE_IDS = 16
_LIST_MAXIMUM_IDS = 1024


class ChunkWriter:
    """Stores chunks that the repository lacks, and remembers which packs the run depends on.

    At most ``_IN_FLIGHT_PACKS`` packs are being encoded or sent, which bounds memory whatever the size of
    the source. An index segment follows every few packs, so that a killed run's work is found again.

    ``hashing`` is a thread for hashes of whole files, beside their cutting.

    :param check_packs: head every pack that the run refers to, once (full backups).
    """

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        segment_prefix: str,
        meter: ProgressMeter,
        *,
        check_packs: bool,
    ) -> None:
        self._repository = repository
        self._index = index
        self._segment_prefix = segment_prefix
        self._meter = meter
        self._check_packs = check_packs
        self._key = repository.ring.chunk_id_key
        # What a restore has to read first lies together, not among the contents of files.
        self._contents, self._lists = FrameGrouper(), FrameGrouper()
        self._new_ids: set[bytes] = set()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="pack")
        self.hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._in_flight: list[Future[None]] = []
        self._lock = Lock()
        self._unindexed: list[PackRecords] = list(index.adopted)
        self._segments = 0
        self._unusable_packs: set[str] = set()
        self.used_packs: set[str] = set()
        self.transferred_bytes = 0
        self.warnings: list[str] = []

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.hashing.shutdown(wait=True, cancel_futures=True)

    # -- chunks ------------------------------------------------------------------------------------

    def has(self, chunk_id: bytes) -> bool:
        """Whether the chunk is stored where this run can rely on it; if so, the run depends on that pack."""
        if chunk_id in self._new_ids:
            return True
        for location in self._index.locations(chunk_id):
            if self._is_usable(location.pack, location.pack_size_bytes):
                return True
        return False

    def put_stream(self, chunker: Chunker, read_into: ReadInto) -> IdList:
        """Cut a file's contents, store the chunks that are new, and return the ids of all."""
        return self._put_ids(self._put_chunks(self._contents, chunker.cut(read_into)))

    def put_chunk(self, data: bytes, *, is_listing: bool) -> None:
        """Store a chunk as it is, unless it is known; ``is_listing`` tells trees and lists from contents."""
        self._put_chunks(self._lists if is_listing else self._contents, [[data]])

    def put_tree(self, chunker: Chunker, read_into: ReadInto) -> IdList:
        """As :meth:`put_stream`, for a tree of entries."""
        return self._put_ids(self._put_chunks(self._lists, chunker.cut(read_into)))

    def _put_chunks(
        self, grouper: FrameGrouper, buffers: Iterable[Sequence[bytes | memoryview]]
    ) -> list[bytes]:
        """Store chunks unless they are known; returns their ids."""
        ids = []
        for chunks in buffers:
            found = [blake3(chunk, key=self._key).digest() for chunk in chunks]
            known = self._index.packs_of(found)
            for chunk_id, chunk, pack in zip(found, chunks, known, strict=True):
                if (pack is not None and pack in self.used_packs) or self.has(chunk_id):
                    continue
                self._new_ids.add(chunk_id)
                grouper.add(chunk_id, bytes(chunk))
                if grouper.is_full:
                    self._send(grouper)
            ids += found
        return ids

    def _put_ids(self, ids: list[bytes]) -> IdList:
        """An id list: inline when short, else as chunks of ids cut where an id ends in a zero byte.

        Cutting by contents keeps lists shared between versions of a file when ids are inserted.
        """
        if len(ids) <= _INLINE_IDS:
            return IdList(tuple(ids))
        lists = []
        start = 0
        for position, chunk_id in enumerate(ids, 1):
            if chunk_id[-1] == 0 or position - start == _LIST_MAXIMUM_IDS or position == len(ids):
                lists.append(b"".join(ids[start:position]))
                start = position
        return IdList(tuple(self._put_chunks(self._lists, [lists])), nested=True)

    def _is_usable(self, pack: str, size_bytes: int) -> bool:
        if pack in self.used_packs:
            return True
        if pack in self._unusable_packs:
            return False
        problem = self._head(pack, size_bytes) if self._check_packs else None
        if problem:
            self._unusable_packs.add(pack)
            self.warnings.append(f"{problem}; its chunks were stored again")
            return False
        self.used_packs.add(pack)
        return True

    def _head(self, pack: str, size_bytes: int) -> str | None:
        """What is wrong with a stored pack, by its size and the checksum S3 keeps."""
        try:
            info = self._repository.storage.head(pack)
        except ObjectNotFoundError:
            return f"{pack} is gone"
        if info.size_bytes != size_bytes:
            return f"{pack} is {info.size_bytes} bytes, not {size_bytes}"
        if info.sha256 is not None and info.sha256 != pack.rpartition("/")[2]:
            return f"{pack} has another checksum than its name"
        return None

    # -- packs -------------------------------------------------------------------------------------

    def _send(self, grouper: FrameGrouper) -> None:
        frames = grouper.take()
        if not frames:
            return
        while len(self._in_flight) >= _IN_FLIGHT_PACKS:
            self._in_flight.pop(0).result()
        self._in_flight.append(self._pool.submit(self._encode_and_put, frames))

    def _encode_and_put(self, frames: list[Frame]) -> None:
        pack = encode_pack(self._repository.ring, self._repository.repository_id, frames)
        self._put(pack.name, pack.data, pack.digest)
        with self._lock:
            self.used_packs.add(pack.name)
            self._unindexed.append(PackRecords(pack.name, len(pack.data), pack.records))
            packs = self._take_unindexed(_PACKS_PER_SEGMENT)
        self._put_segment(packs)

    def _put(self, name: str, data: bytes, digest: bytes | None = None) -> None:
        self._repository.storage.put(name, data, digest)
        with self._lock:
            self.transferred_bytes += len(data)
            self._meter.add(transferred_bytes=len(data))

    def _take_unindexed(self, at_least: int) -> list[PackRecords]:
        if len(self._unindexed) < at_least:
            return []
        packs, self._unindexed = self._unindexed, []
        return packs

    def _put_segment(self, packs: list[PackRecords]) -> None:
        if not packs:
            return
        with self._lock:
            name = f"{self._segment_prefix}/{self._segments:05d}"
            self._segments += 1
        self._put(name, self._repository.seal("I", name, encode_segment(packs)))

    def flush(self) -> None:
        """Everything put so far is stored and indexed when this returns."""
        if self._contents.raw_bytes + self._lists.raw_bytes <= SOLID_FRAME_BYTES:
            self._contents.join(self._lists)  # all of it is read as fast as a part
        self._send(self._contents)
        self._send(self._lists)
        while self._in_flight:
            self._in_flight.pop(0).result()
        self._put_segment(self._take_unindexed(1))

    def put_manifest(self, name: str, payload: bytes) -> bytes:
        """Seal and store the manifest; returns the bytes as stored."""
        data = self._repository.seal("M", name, payload)
        self._put(name, data)
        return data
