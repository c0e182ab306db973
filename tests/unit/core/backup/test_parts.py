"""Properties of the engine's parts, without a server."""

from __future__ import annotations

import os
import random
import string
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvlm_ops.core.backup.chunking import (
    BUFFER_BYTES,
    CONTENT_PARAMETERS,
    TREE_PARAMETERS,
    ChunkerParameters,
    ContentChunker,
    PageChunker,
    ReadInto,
    page_chunk_bytes,
    require_compiled_chunker,
)
from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.index import ChunkIndex, PackRecords, decode_segment, encode_segment
from fastvlm_ops.core.backup.keys import KeyRing
from fastvlm_ops.core.backup.packs import (
    PACK_BYTES,
    RECORD,
    SOLID_FRAME_BYTES,
    Frame,
    FrameGrouper,
    encode_pack,
    join_planes,
    open_frame,
    parse_records,
    split_planes,
)
from fastvlm_ops.core.backup.sealing import (
    HEADER_BYTES,
    Header,
    decompress,
    seal,
    sign_line,
    unseal,
    verify_line,
)
from fastvlm_ops.core.backup.tree import Entry, IdList, decode_entry, encode_entry, split_lines

RING = KeyRing.generate()
REPOSITORY = "ab" * 16


def reader(data: bytes, most: int = 1 << 30) -> ReadInto:
    """Gives the data in reads of at most ``most`` bytes, as a pipe or a network file system would."""
    position = 0

    def read_into(buffer: memoryview) -> int:
        nonlocal position
        piece = data[position : position + min(len(buffer), most)]
        buffer[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    return read_into


def pieces(chunker: ContentChunker | PageChunker, data: bytes, most: int = 1 << 30) -> list[bytes]:
    return [bytes(chunk) for chunks in chunker.cut(reader(data, most)) for chunk in chunks]


# -- chunking -----------------------------------------------------------------------------------------


def test_the_compiled_chunker_is_there() -> None:
    require_compiled_chunker()


@pytest.mark.parametrize("size", [0, 1, 4095, 65_536, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES + 77])
@pytest.mark.parametrize("parameters", [CONTENT_PARAMETERS, TREE_PARAMETERS])
def test_chunks_are_the_same_however_the_data_arrives(size: int, parameters: ChunkerParameters) -> None:
    data = random.Random(size).randbytes(size)
    whole = pieces(ContentChunker(parameters, seed=7), data)
    assert b"".join(whole) == data
    assert whole == pieces(ContentChunker(parameters, seed=7), data, most=100_003)
    assert all(len(chunk) <= parameters.maximum for chunk in whole)
    assert all(len(chunk) >= parameters.minimum for chunk in whole[:-1])


def test_an_insertion_changes_only_the_chunks_around_it() -> None:
    data = random.Random(1).randbytes(24 << 20)
    changed = data[: 5 << 20] + os.urandom(1000) + data[5 << 20 :]
    chunker = ContentChunker(CONTENT_PARAMETERS, seed=7)
    before, after = set(pieces(chunker, data)), set(pieces(chunker, changed))
    assert sum(map(len, after - before)) < 3 * CONTENT_PARAMETERS.maximum


def test_another_seed_cuts_elsewhere() -> None:
    """Boundaries must not tell which known file this is."""
    data = random.Random(1).randbytes(8 << 20)
    one, other = (pieces(ContentChunker(CONTENT_PARAMETERS, seed), data) for seed in (7, 8))
    assert len(set(one) & set(other)) <= 1


@given(st.integers(0, 1 << 18), st.sampled_from([512, 4096, 8192, 65_536]))
@settings(max_examples=30, deadline=None)
def test_pages_stay_where_they_are(size: int, page_bytes: int) -> None:
    data = random.Random(size).randbytes(size)
    chunks = pieces(PageChunker(page_chunk_bytes(page_bytes, size)), data, most=30_011)
    assert b"".join(chunks) == data
    assert all(len(chunk) % page_bytes == 0 for chunk in chunks[:-1])


def test_large_database_files_have_larger_chunks_and_not_many() -> None:
    """A bound on what a file costs in the index, up to 2 GiB; those of 1 GiB are PostgreSQL's segments."""
    sizes = [page_chunk_bytes(8192, size << 20) >> 10 for size in (0, 1, 128, 129, 512, 1024, 2048, 10_000)]
    assert sizes == [8, 8, 8, 16, 32, 64, 128, 128]
    assert all((size << 20) / page_chunk_bytes(4096, size << 20) <= 16_384 for size in range(2049))
    assert page_chunk_bytes(65_536, 1) == 65_536


# -- packs --------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000), st.sampled_from([2, 4]))
def test_planes_join_again(data: bytes, stride: int) -> None:
    split = split_planes(data, stride)
    assert join_planes(split, stride) == data
    whole = len(data) // stride * stride
    assert split == b"".join(data[k:whole:stride] for k in range(stride)) + data[whole:]


def chunk_of(kind: str, size: int) -> bytes:
    rng = np.random.default_rng(size)
    if kind == "noise":
        return rng.bytes(size)
    if kind == "text":
        return (b"key: value\n" * (size // 11 + 1))[:size]
    dtype = np.float16 if kind == "fp16" else np.float32
    return (rng.standard_normal(size) * 0.02).astype(dtype).tobytes()[:size]


def open_pack(data: bytes, records: bytes) -> dict[bytes, bytes]:
    header = Header.parse(data, kind="P", repository_id=REPOSITORY, name="pack")
    found = {}
    for record in parse_records(records, "pack"):
        stored = data[record.offset : record.offset + record.stored_length]
        raw = open_frame(RING, header, stored, record, "pack")
        found[record.chunk_id] = raw[record.inner_offset : record.inner_offset + record.length]
    return found


@pytest.mark.parametrize(("kind", "most"), [("noise", 1.001), ("text", 0.01), ("fp16", 0.85), ("fp32", 0.87)])
def test_a_pack_holds_its_chunks_and_weights_gain_from_planes(kind: str, most: float) -> None:
    chunks = [chunk_of(kind, size) for size in (300_000, 65_536, 1000, 64_000, 70_001)]
    ids = [blake3(chunk, key=RING.chunk_id_key).digest() for chunk in chunks]
    grouper = FrameGrouper()
    for chunk_id, chunk in zip(ids, chunks, strict=True):
        grouper.add(chunk_id, chunk)
    assert len(grouper.frames) == 4  # the two small ones share one
    pack = encode_pack(RING, REPOSITORY, grouper.frames)
    assert open_pack(pack.data, pack.records) == dict(zip(ids, chunks, strict=True))
    overhead = HEADER_BYTES + 5 * RECORD.size + 5 * 16 + 8
    assert len(pack.data) - overhead <= most * sum(map(len, chunks))


def test_equal_contents_make_different_packs() -> None:
    one, other = (encode_pack(RING, REPOSITORY, [Frame([(b"i" * 32, b"data")], 4)]) for _ in range(2))
    assert one.name != other.name


def test_frames_and_packs_stay_within_their_sizes() -> None:
    grouper = FrameGrouper()
    count = 0
    while not grouper.is_full:
        grouper.add(b"i" * 32, bytes(60_000))
        count += 1
    assert PACK_BYTES <= count * 60_000 < PACK_BYTES + 60_000
    assert max(frame.raw_bytes for frame in grouper.frames) <= SOLID_FRAME_BYTES


@pytest.mark.parametrize("field", [3, 4, 5])
def test_records_with_impossible_sizes_are_refused(field: int) -> None:
    values: list[object] = [b"i" * 32, 56, 100, 1000, 0, 1000, 0, 1, 1]
    parse_records(RECORD.pack(*values), "pack")
    values[field] = 1 << 30
    with pytest.raises(CorruptionError, match="impossible sizes"):
        parse_records(RECORD.pack(*values), "pack")


# -- sealing ------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_sealed_object_is_found() -> None:
    data = seal(RING, REPOSITORY, "M", "snapshots/a/b", b'{"some": "manifest"}')
    assert unseal(RING, REPOSITORY, "M", "snapshots/a/b", data, limit_bytes=100) == b'{"some": "manifest"}'
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptionError):
            unseal(RING, REPOSITORY, "M", "snapshots/a/b", bytes(damaged), limit_bytes=100)
    with pytest.raises(CorruptionError):
        unseal(RING, REPOSITORY, "M", "snapshots/a/c", data, limit_bytes=100)
    with pytest.raises(CorruptionError):
        unseal(RING, "cd" * 16, "M", "snapshots/a/b", data, limit_bytes=100)


def test_every_flipped_bit_of_a_log_line_is_found() -> None:
    data = sign_line({"seq": 1, "type": "snapshot"}, RING.log_key)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(CorruptionError):
            verify_line(bytes(damaged), RING.log_key, "log/1")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstandard.compress(bytes(1 << 28))
    with pytest.raises(CorruptionError, match=f"states {1 << 28} bytes; at most 1000"):
        decompress(bomb, limit_bytes=1000, name="bomb")
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))
    with pytest.raises(CorruptionError):
        decompress(unsized, limit_bytes=1000, name="bomb")


def test_deriving_a_key_takes_what_it_should() -> None:
    """In a process of its own: here the tests have made it quick."""
    code = "from fastvlm_ops.core.backup import keys; print(keys.SCRYPT)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "{'n': 32768, 'r': 8, 'p': 1}\n"


def test_keys_are_not_shown() -> None:
    assert RING.root.hex() not in repr(RING)
    assert KeyRing.from_json(RING.to_json()) == RING


# -- index --------------------------------------------------------------------------------------------


def test_index_finds_every_chunk_and_no_other() -> None:
    rng = random.Random(4)
    ids = [rng.randbytes(32) for _ in range(500)]
    ids += [ids[0][:8] + rng.randbytes(24) for _ in range(3)]  # same first eight bytes
    ids += [bytes(32), b"\xff" * 32, b"z" * 31 + b"\0"]
    packs = [
        PackRecords(
            f"packs/{digest[:2]}/{digest}",
            1000 + number,
            b"".join(RECORD.pack(item, 56, 9, 9, 0, 9, 0, 0, 1) for item in ids[number::3]),
        )
        for number, digest in enumerate(rng.randbytes(32).hex() for _ in range(3))
    ]
    payload = encode_segment(packs, supersedes=["index/old"])
    assert decode_segment(payload, "segment") == (["index/old"], packs)
    index = ChunkIndex.build(packs)
    for number, chunk_id in enumerate(ids):
        location = index.find(chunk_id)
        assert location is not None
        assert location.record.chunk_id == chunk_id
        assert location.pack == packs[number % 3].name
    assert index.find(rng.randbytes(32)) is None
    assert index.find(ids[0][:8] + rng.randbytes(24)) is None
    assert ChunkIndex.build([]).find(ids[0]) is None


@given(st.integers(0, 400))
def test_a_cut_segment_is_refused(length: int) -> None:
    record = RECORD.pack(b"i" * 32, 56, 9, 9, 0, 9, 0, 0, 1)
    payload = encode_segment([PackRecords(f"packs/ab/{'ab' * 32}", 10, record * 6)])
    if length < len(payload):
        try:
            _, packs = decode_segment(payload[:length], "segment")
        except CorruptionError:
            return
        assert packs == []  # cut right behind the header: says nothing, and claims nothing


# -- tree ---------------------------------------------------------------------------------------------

PATHS = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda part: b"/" not in part and b"\0" not in part),
    min_size=1,
    max_size=4,
).map(b"/".join)
IDS = st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(["directory", "file", "symlink", "fifo", "socket"]))
    entry = Entry(
        path=draw(PATHS),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 1 << 32)),
        gid=draw(st.integers(0, 1 << 32)),
        mtime_ns=draw(st.integers(-(1 << 60), 1 << 62)),
        user=draw(st.text(string.ascii_letters, max_size=8)),
        xattrs=draw(st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=20), max_size=2)),
    )
    if kind == "symlink":
        entry.target = draw(st.binary(max_size=40))
    if kind == "file":
        entry.size = draw(st.integers(0, 1 << 50))
        entry.blake3 = draw(st.binary(min_size=32, max_size=32)).hex()
        entry.contents = IdList(draw(IDS), nested=draw(st.booleans()))
        entry.extents = draw(st.none() | st.just([(0, 10), (20, 5)]))
    return entry


@given(entries())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_entries_come_back(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(st.lists(entries(), max_size=6), st.integers(1, 50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_trees_may_be_cut_anywhere(members: list[Entry], size: int) -> None:
    data = b"".join(map(encode_entry, members))

    def cut() -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    assert list(map(decode_entry, split_lines(cut()))) == members
    if data:
        with pytest.raises(CorruptionError, match="ends in the middle"):
            list(split_lines([data[:-1]]))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'{"path": "x"}',
        b'{"path": "x", "type": "device", "mode": 0, "uid": 0, "gid": 0, "mtime_ns": 0}',
        b'{"path": "x", "type": "file", "mode": 0, "uid": 0, "gid": 0, "mtime_ns": 0, "chunks": ["ab"]}',
        b'{"path_b64": "?", "type": "file", "mode": 0, "uid": 0, "gid": 0, "mtime_ns": 0}',
        b'{"path": "x", "type": "file", "mode": 0, "uid": 0, "gid": 0, "mtime_ns": 0, "extents": [1]}',
    ],
)
def test_malformed_entries_are_refused(line: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_entry(line)
