"""Manifests, trees and chunks back out of the bucket, each checked against what names it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import RLock
from typing import Any, NamedTuple, TypeVar

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.identifiers import require_name
from fastvlm_ops.core.backup.index import ChunkIndex, Location
from fastvlm_ops.core.backup.packs import check_chunk, open_frame
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sealing import FORMAT, HEADER_BYTES, Header
from fastvlm_ops.core.backup.tree import Entry, IdList, decode_entry, split_lines

T = TypeVar("T", bytes, memoryview)

_MANIFEST_LIMIT_BYTES = 64 << 20
_CACHE_BYTES = 8 << 20
_WINDOW_BYTES = 2 << 30  # versions of a model share frames that are a whole model apart
_WINDOW_CHUNKS = 32 << 10
_RANGE_BYTES = 12 << 20  # a pack in one request: many a server reads all of it for any part
_GAP_BYTES = 1 << 20  # rather read past this much than ask again
_READERS = 4


def read_manifest(repository: Repository, record: dict[str, Any]) -> dict[str, Any]:
    """The manifest that a ``snapshot`` entry of the log names.

    :raises CorruptionError: when it is missing, differs from the log's checksum, or is of another format.
    """
    require_name(record["snapshot_id"], "a snapshot")
    name = record["manifest"]
    try:
        data = repository.storage.get(name, limit_bytes=_MANIFEST_LIMIT_BYTES)
    except ObjectNotFoundError as error:
        raise CorruptionError(f"the manifest {error}") from error
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise CorruptionError(f"{name} is not the manifest that was committed")
    manifest: dict[str, Any] = json.loads(
        repository.unseal("M", name, data, limit_bytes=_MANIFEST_LIMIT_BYTES)
    )
    if manifest["format"] != FORMAT or manifest["snapshot_id"] != name.rpartition("/")[2]:
        raise CorruptionError(f"{name} is not a manifest of format {FORMAT} of its snapshot")
    # Where nothing had changed, the manifest is an earlier snapshot's, and these are the log's.
    own = ("snapshot_id", "kind", "run_key", "parent", "started", "finished")
    return {**manifest, **{key: record[key] for key in own if key in record}}


class Wanted(NamedTuple):
    """Chunks somebody wants that lie side by side in one frame, where, and a tag that says what for."""

    tag: Any
    places: list[Location]

    @property
    def length(self) -> int:
        """Bytes of all of them."""
        first, last = self.places[0].record, self.places[-1].record
        return last.inner_offset + last.length - first.inner_offset


def side_by_side(places: Iterable[Location]) -> Iterator[list[Location]]:
    """Places of consecutive chunks, those together that lie in the same order in one frame."""
    together: list[Location] = []
    for place in places:
        if together:
            last = together[-1]
            end = last.record.inner_offset + last.record.length
            same = place.record.frame == last.record.frame and place.pack == last.pack
            if not same or place.record.inner_offset != end:
                yield together
                together = []
        together.append(place)
    if together:
        yield together


BARRIER = None
"""Among wanted chunks: everything before it is delivered before the next one is asked for."""


class _FrameKey(NamedTuple):
    pack: str
    frame: int


class ChunkReader:
    """Reads chunks by id, one at a time or many at once.

    ``fetched_bytes`` counts what came from the bucket.
    """

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._repository = repository
        self._index = index
        self._key = repository.ring.chunk_id_key
        self._headers: dict[str, Header] = {}
        self._cache: OrderedDict[_FrameKey, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._may_renew = True
        self._lock = RLock()  # around the caches: threads that scatter() may fall back to get()
        self.fetched_bytes = 0

    # -- one chunk ---------------------------------------------------------------------------------

    def locate(self, chunk_id: bytes) -> Location:
        """:raises CorruptionError: when no pack holds the chunk."""
        location = self._index.find(chunk_id)
        if location is None:
            raise CorruptionError(f"chunk {chunk_id.hex()} is in no pack of {self._repository.storage}")
        return location

    def locate_all(self, chunk_ids: list[bytes]) -> list[Location]:
        """As :meth:`locate`, for many at once."""
        return [
            location or self.locate(chunk_id)
            for chunk_id, location in zip(chunk_ids, self._index.find_all(chunk_ids), strict=True)
        ]

    def total_length(self, chunk_ids: list[bytes]) -> int:
        """Bytes of chunks.

        :raises CorruptionError: when no pack holds one of them.
        """
        total = self._index.total_length(chunk_ids)
        return sum(place.record.length for place in self.locate_all(chunk_ids)) if total is None else total

    def get(self, chunk_id: bytes) -> bytes:
        """The bytes of a chunk, from any pack that has it intact.

        A collection may have moved it since the index was loaded: that is loaded again then, once.

        :raises CorruptionError: when none has; says what is wrong with the last.
        """
        index = self._index
        try:
            return self._get_by(index, chunk_id)
        except CorruptionError:
            if not self._is_renewed(index):
                raise
        return self._get_by(self._index, chunk_id)

    def _is_renewed(self, index: ChunkIndex) -> bool:
        """Whether there is a newer index than this one, loaded now if something was condemned since."""
        with self._lock:
            if self._index is index and self._may_renew:
                self._may_renew = False
                log = self._repository.log
                before = log.condemned_names("packs")
                with contextlib.suppress(CorruptionError):  # of the log, which is not what was asked for
                    self._repository.refresh()
                if log.condemned_names("packs") != before:
                    self._index = self._repository.load_index(lambda problem: None)
            return self._index is not index

    def _get_by(self, index: ChunkIndex, chunk_id: bytes) -> bytes:
        problem: Exception | None = None
        for location in index.locations(chunk_id):
            try:
                return self.get_from(location)
            except (CorruptionError, ObjectNotFoundError) as error:
                problem = error
        if problem is None:
            self.locate(chunk_id)
        raise CorruptionError(f"chunk {chunk_id.hex()} cannot be read: {problem}") from problem

    def get_from(self, location: Location) -> bytes:
        """The bytes of a chunk, from this place and no other.

        :raises CorruptionError: when it is damaged there.
        :raises ObjectNotFoundError: when the pack is gone.
        """
        with self._lock:
            return self._cut(location.record.chunk_id, location, self._frame(location))

    def ids(self, id_list: IdList) -> Iterator[bytes]:
        """The ids of an id list, nested or not."""
        if not id_list.nested:
            yield from id_list.ids
            return
        for list_id in id_list.ids:
            data = self.get(list_id)
            if len(data) % 32:
                raise CorruptionError(f"list chunk {list_id.hex()} is {len(data)} bytes long")
            for start in range(0, len(data), 32):
                yield data[start : start + 32]

    def _cut(self, chunk_id: bytes, location: Location, raw: T) -> T:
        record = location.record
        data = raw[record.inner_offset : record.inner_offset + record.length]
        check_chunk(chunk_id, data, self._key, location.pack)
        return data

    def _frame(self, location: Location) -> bytes:
        key = _FrameKey(location.pack, location.record.frame)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        record = location.record
        end = record.offset + record.stored_length
        # Near the start of a pack its header comes along: one request is less than the bytes between.
        start = 0 if record.offset <= _GAP_BYTES and location.pack not in self._headers else record.offset
        data = memoryview(self._get_range(location.pack, start, end - start))
        header = self._header(location.pack) if start else self._parse_header(location.pack, data)
        stored = data[record.offset - start :]
        raw = bytes(open_frame(self._repository.ring, header, stored, record, location.pack))
        self._cache[key] = raw
        self._cached_bytes += len(raw)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])
        return raw

    def _header(self, pack: str) -> Header:
        header = self._headers.get(pack)
        if header is None:
            header = self._parse_header(pack, memoryview(self._get_range(pack, 0, HEADER_BYTES)))
        return header

    def _parse_header(self, pack: str, data: memoryview) -> Header:
        start = bytes(data[:HEADER_BYTES])
        header = Header.parse(start, kind="P", repository_id=self._repository.repository_id, name=pack)
        self._headers[pack] = header
        return header

    def _get_range(self, pack: str, offset: int, length: int) -> bytes:
        data = self._repository.storage.get_range(pack, offset, length)
        self.fetched_bytes += length
        return data

    # -- many chunks -------------------------------------------------------------------------------

    def scatter(
        self,
        wanted: Iterable[Wanted | None],
        put: Callable[[Any, bytes | memoryview], None],
        name: Callable[[Any], str] = repr,
    ) -> None:
        """Give what is wanted to ``put(tag, data)``, from several threads and in any order.

        It is handed over in the thread that fetched, opened and checked it, while it is in that
        processor's cache. Frames are read once for all that is wanted of them within a window of up to
        2 GiB or 32 Ki chunks, and neighbours in one request; memory is a few packs and what
        they unpack to.

        :param wanted: may hold ``BARRIER``. Consumed in the calling thread, up to two windows ahead.
        :param name: what an error calls the thing with this tag.
        :raises CorruptionError: a chunk cannot be read from any pack.
        """
        windows: deque[list[Future[None]]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="fetch") as pool:
            try:
                for window, is_barrier in _windows(wanted):
                    windows.append([pool.submit(self._deliver, run, put, name) for run in _runs(window)])
                    while len(windows) > (0 if is_barrier else 1):
                        for delivery in windows.popleft():
                            delivery.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        for delivery in itertools.chain.from_iterable(windows):
            delivery.result()

    def _deliver(
        self,
        run: list[list[Wanted]],
        put: Callable[[Any, bytes | memoryview], None],
        name: Callable[[Any], str],
    ) -> None:
        """Frames of one pack by one request. What is damaged there is looked for elsewhere."""
        pack = run[0][0].places[0].pack
        first, last = run[0][0].places[0].record, run[-1][0].places[0].record
        start = 0 if first.offset == HEADER_BYTES and pack not in self._headers else first.offset
        data, header = memoryview(b""), None
        with contextlib.suppress(CorruptionError, ObjectNotFoundError):
            data = memoryview(self._get_range(pack, start, last.offset + last.stored_length - start))
            header = self._header(pack) if start else self._parse_header(pack, data)
        for wanted in run:
            record = wanted[0].places[0].record
            stored = data[record.offset - start : record.offset - start + record.stored_length]
            raw = None
            if header is not None:
                with contextlib.suppress(CorruptionError):
                    raw = memoryview(open_frame(self._repository.ring, header, stored, record, pack))
            intact: set[bytes] = set()  # versions of a file want the same chunk at several places
            for one in wanted:
                put(one.tag, self._cut_or_find(one, raw, intact, name))

    def _cut_or_find(
        self, wanted: Wanted, raw: memoryview | None, intact: set[bytes], name: Callable[[Any], str]
    ) -> bytes | memoryview:
        """The bytes of what is wanted, cut from its frame, or chunk by chunk from wherever they are."""
        if raw is not None:
            with contextlib.suppress(CorruptionError):
                for place in wanted.places:
                    if place.record.chunk_id not in intact:
                        self._cut(place.record.chunk_id, place, raw)
                        intact.add(place.record.chunk_id)
                start = wanted.places[0].record.inner_offset
                return raw[start : start + wanted.length]
        try:
            return b"".join(self.get(place.record.chunk_id) for place in wanted.places)
        except CorruptionError as error:
            raise CorruptionError(f"{name(wanted.tag)} cannot be restored: {error}") from error


def _windows(
    wanted: Iterable[Wanted | None],
) -> Iterator[tuple[dict[_FrameKey, list[Wanted]], bool]]:
    """What is wanted, by frame, in portions; True with those that end at a barrier."""
    window: dict[_FrameKey, list[Wanted]] = {}
    size_bytes = count = 0
    for item in wanted:
        if item is not BARRIER:
            key = _FrameKey(item.places[0].pack, item.places[0].record.frame)
            window.setdefault(key, []).append(item)
            size_bytes += item.length
            count += len(item.places)
            if size_bytes < _WINDOW_BYTES and count < _WINDOW_CHUNKS:
                continue
        yield window, item is BARRIER
        window, size_bytes, count = {}, 0, 0
    yield window, True


def _runs(window: dict[_FrameKey, list[Wanted]]) -> Iterator[list[list[Wanted]]]:
    """Frames that lie close together in a pack, to be fetched by one request."""
    run: list[list[Wanted]] = []
    for wanted in sorted(window.values(), key=_position):
        location = wanted[0].places[0]
        if run:
            first, last = run[0][0].places[0], run[-1][0].places[0].record
            gap = location.record.offset - (last.offset + last.stored_length)
            length = location.record.offset + location.record.stored_length - first.record.offset
            if first.pack != location.pack or gap > _GAP_BYTES or length > _RANGE_BYTES:
                yield run
                run = []
        run.append(wanted)
    if run:
        yield run


def _position(wanted: list[Wanted]) -> tuple[str, int]:
    return wanted[0].places[0].pack, wanted[0].places[0].record.offset


def read_lines(reader: ChunkReader, tree: dict[str, Any]) -> Iterator[bytes]:
    """Lines of a manifest's tree, each an entry, in order, not yet decoded."""
    return split_lines(map(reader.get, reader.ids(IdList.from_json(tree, "the tree"))))


def read_tree(reader: ChunkReader, tree: dict[str, Any]) -> Iterator[Entry]:
    """Entries of a manifest's tree, in order, not yet validated."""
    return map(decode_entry, read_lines(reader, tree))
