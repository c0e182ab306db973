"""Manifests, trees and chunks back out of the bucket, each checked against what names it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.index import ChunkIndex, Location
from fastvlm_ops.core.backup.packs import check_chunk, open_frame
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sealing import FORMAT, HEADER_BYTES, Header
from fastvlm_ops.core.backup.tree import Entry, IdList, decode_entries

T = TypeVar("T")

_MANIFEST_LIMIT_BYTES = 64 << 20
_CACHE_BYTES = 8 << 20
_WINDOW_BYTES = 16 << 20
_RANGE_BYTES = 8 << 20
_GAP_BYTES = 128 << 10
_READERS = 4
_WINDOWS_AHEAD = 2


def read_manifest(repository: Repository, record: dict[str, Any]) -> dict[str, Any]:
    """The manifest that a ``snapshot`` entry of the log names.

    :raises CorruptionError: when it is missing, differs from the log's checksum, or is of another format.
    """
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
    if manifest["format"] != FORMAT or manifest["snapshot_id"] != record["snapshot_id"]:
        raise CorruptionError(f"{name} is not a manifest of format {FORMAT} of {record['snapshot_id']}")
    return manifest


class _FrameKey(NamedTuple):
    pack: str
    frame: int


class _Place(NamedTuple):
    """A chunk that is wanted, and where it lies."""

    chunk_id: bytes
    location: Location


@dataclass
class _Fetched:
    """Frames as opened, and the wanted chunks of them that are verified."""

    frames: dict[_FrameKey, bytes] = field(default_factory=dict)
    chunks: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class _Window:
    """Chunks that are fetched together, and the frames they lie in."""

    items: list[tuple[Any, bytes | None, Location | None]] = field(default_factory=list)
    wanted: dict[_FrameKey, list[_Place]] = field(default_factory=dict)
    carried: set[_FrameKey] = field(default_factory=set)
    raw_bytes: int = 0
    fetches: list[Future[_Fetched]] = field(default_factory=list)


class ChunkReader:
    """Reads chunks by id. ``fetched_bytes`` counts what came from the bucket."""

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._repository = repository
        self._index = index
        self._key = repository.ring.chunk_id_key
        self._headers: dict[str, Header] = {}
        self._cache: OrderedDict[_FrameKey, bytes] = OrderedDict()
        self._cached_bytes = 0
        self.fetched_bytes = 0

    # -- one chunk ---------------------------------------------------------------------------------

    def locate(self, chunk_id: bytes) -> Location:
        """:raises CorruptionError: when no pack holds the chunk."""
        location = self._index.find(chunk_id)
        if location is None:
            raise CorruptionError(f"chunk {chunk_id.hex()} is in no pack of {self._repository.storage}")
        return location

    def get(self, chunk_id: bytes) -> bytes:
        """The bytes of a chunk, from any pack that has it intact.

        :raises CorruptionError: when none has; says what is wrong with the last.
        """
        problem: Exception | None = None
        for location in self._index.locations(chunk_id):
            try:
                return self._cut(chunk_id, location, self._frame(location))
            except (CorruptionError, ObjectNotFoundError) as error:
                problem = error
        if problem is None:
            self.locate(chunk_id)
        raise CorruptionError(f"chunk {chunk_id.hex()} cannot be read: {problem}") from problem

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

    def _cut(self, chunk_id: bytes, location: Location, raw: bytes) -> bytes:
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
        header = self._header(location.pack)
        stored = self._get_range(location.pack, record.offset, record.stored_length)
        raw = open_frame(self._repository.ring, header, stored, record, location.pack)
        self._cache[key] = raw
        self._cached_bytes += len(raw)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])
        return raw

    def _header(self, pack: str) -> Header:
        header = self._headers.get(pack)
        if header is None:
            data = self._get_range(pack, 0, HEADER_BYTES)
            header = self._parse_header(pack, data)
        return header

    def _parse_header(self, pack: str, data: bytes) -> Header:
        header = Header.parse(data, kind="P", repository_id=self._repository.repository_id, name=pack)
        self._headers[pack] = header
        return header

    def _get_range(self, pack: str, offset: int, length: int) -> bytes:
        data = self._repository.storage.get_range(pack, offset, length)
        self.fetched_bytes += length
        return data

    # -- many chunks -------------------------------------------------------------------------------

    def stream(
        self, wanted: Iterable[tuple[T, bytes | None]], name: Callable[[T], str] = repr
    ) -> Iterator[tuple[T, bytes]]:
        """Chunks in the order asked for, each with the tag it was asked with.

        An id of None passes its tag through with no bytes, so that one stream can order everything a
        restore does. Neighbouring frames come in one request, and windows are fetched ahead, in bounded
        memory: about three windows of 16 MiB.

        :param name: what an error calls the thing with this tag.
        :raises CorruptionError: a chunk cannot be read from any pack; all before it have been yielded.
        """
        windows = self._windows(wanted)
        ahead: deque[_Window] = deque()
        before: dict[_FrameKey, bytes] = {}
        with ThreadPoolExecutor(_READERS, thread_name_prefix="fetch") as pool:
            try:
                while True:
                    while len(ahead) < _WINDOWS_AHEAD and (window := next(windows, None)) is not None:
                        self._submit(pool, window)
                        ahead.append(window)
                    if not ahead:
                        return
                    window = ahead.popleft()
                    fetched = _Fetched({key: before[key] for key in window.carried if key in before})
                    for fetch in window.fetches:
                        fetched.frames.update(fetch.result().frames)
                        fetched.chunks.update(fetch.result().chunks)
                    for tag, chunk_id, location in window.items:
                        try:
                            data = self._take(chunk_id, location, fetched)
                        except CorruptionError as error:
                            raise CorruptionError(f"{name(tag)} cannot be restored: {error}") from error
                        yield tag, data
                    before = fetched.frames
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, chunk_id: bytes | None, location: Location | None, fetched: _Fetched) -> bytes:
        if chunk_id is None or location is None:
            return b""
        data = fetched.chunks.get(chunk_id)
        if data is not None:
            return data
        raw = fetched.frames.get(_FrameKey(location.pack, location.record.frame))
        if raw is not None:
            try:
                return self._cut(chunk_id, location, raw)
            except CorruptionError:
                pass
        return self.get(chunk_id)  # this copy is unreadable: any other will do

    def _windows(self, wanted: Iterable[tuple[Any, bytes | None]]) -> Iterator[_Window]:
        window, before = _Window(), _Window()
        for tag, chunk_id in wanted:
            location = None if chunk_id is None else self.locate(chunk_id)
            window.items.append((tag, chunk_id, location))
            if location is None:
                continue
            key = _FrameKey(location.pack, location.record.frame)
            place = _Place(chunk_id, location)  # type: ignore[arg-type]
            if key in window.wanted:
                window.wanted[key].append(place)
                continue
            if key in window.carried:
                continue
            if key in before.wanted or key in before.carried:
                window.carried.add(key)
            else:
                window.wanted[key] = [place]
            window.raw_bytes += location.record.raw_length
            if window.raw_bytes >= _WINDOW_BYTES:
                yield window
                window, before = _Window(), window
        if window.items:
            yield window

    def _submit(self, pool: ThreadPoolExecutor, window: _Window) -> None:
        """One request for each run of frames that lie close together in a pack."""
        frames = sorted(window.wanted.values(), key=lambda places: _position(places[0]))
        run: list[list[_Place]] = []
        for places in frames:
            location = places[0].location
            if run:
                first, last = run[0][0].location, run[-1][0].location.record
                gap = location.record.offset - (last.offset + last.stored_length)
                length = location.record.offset + location.record.stored_length - first.record.offset
                if first.pack != location.pack or gap > _GAP_BYTES or length > _RANGE_BYTES:
                    window.fetches.append(pool.submit(self._fetch_run, run))
                    run = []
            run.append(places)
        if run:
            window.fetches.append(pool.submit(self._fetch_run, run))

    def _fetch_run(self, run: list[list[_Place]]) -> _Fetched:
        """Frames of one pack by one request; what is damaged is left out."""
        pack = run[0][0].location.pack
        first, last = run[0][0].location.record, run[-1][0].location.record
        start = 0 if first.offset == HEADER_BYTES and pack not in self._headers else first.offset
        fetched = _Fetched()
        try:
            data = memoryview(self._get_range(pack, start, last.offset + last.stored_length - start))
            header = self._header(pack) if start else self._parse_header(pack, bytes(data[:HEADER_BYTES]))
        except (CorruptionError, ObjectNotFoundError):
            return fetched
        for places in run:
            record = places[0].location.record
            stored = data[record.offset - start : record.offset - start + record.stored_length]
            with contextlib.suppress(CorruptionError):
                raw = open_frame(self._repository.ring, header, stored, record, pack)
                fetched.frames[_FrameKey(pack, record.frame)] = raw
                for chunk_id, location in places:
                    fetched.chunks[chunk_id] = self._cut(chunk_id, location, raw)
        return fetched


def _position(place: _Place) -> tuple[str, int]:
    return place.location.pack, place.location.record.offset


def read_tree(reader: ChunkReader, tree: dict[str, Any]) -> Iterator[Entry]:
    """Entries of a manifest's tree, in order, not yet validated."""
    ids = reader.ids(IdList.from_json(tree, "the tree"))
    pieces = (("the tree", chunk_id) for chunk_id in ids)
    yield from decode_entries(data for _, data in reader.stream(pieces))
