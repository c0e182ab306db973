"""Packs: frames of chunks, a footer that lists them (docs/backup-format.md §5)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.keys import KeyRing
from fastvlm_ops.core.backup.sealing import HEADER_BYTES, TAG_BYTES, Header, decompress, nonce
from fastvlm_ops.core.backup.storage import S3Storage

RECORD = struct.Struct("<32s5IH2B")
MAXIMUM_FRAME_BYTES = 16 << 20
PACK_BYTES = 8 << 20
SOLID_FRAME_BYTES = 1 << 20
SMALL_CHUNK_BYTES = 64 << 10
_TRAILER = struct.Struct("<I4s")
_END_MAGIC = b"FVOE"
_FOOTER_NONCE = b"\xff" * 12
_FOOTER_GUESS_BYTES = 128 << 10
STORED, ZSTD = 0, 1
_SAMPLE_BYTES = 8 << 10
_LEAST_SAMPLE_BYTES = 1 << 10
_CLEAR_GAIN = 0.97
_LEVEL = 1  # weights gain nothing from higher levels, database pages lose by them
_WORTHWHILE = 0.98


class Record(NamedTuple):
    """Where one chunk lies; lengths and offsets in bytes."""

    chunk_id: bytes
    offset: int
    stored_length: int
    raw_length: int
    inner_offset: int
    length: int
    frame: int
    codec: int
    stride: int


RECORDS = np.dtype(
    [
        ("chunk_id", "V32"),
        *((name, "<u4") for name in ("offset", "stored_length", "raw_length", "inner_offset", "length")),
        ("frame", "<u2"),
        ("codec", "u1"),
        ("stride", "u1"),
    ]
)


def check_records(data: bytes | memoryview, name: str) -> None:
    """:raises CorruptionError: when a record contradicts itself."""
    if len(data) % RECORD.size:
        raise CorruptionError(f"{name}: a list of records of {len(data)} bytes")
    records = np.frombuffer(data, RECORDS)
    ends = records["inner_offset"].astype(np.uint64) + records["length"]
    bad = (records["raw_length"] > MAXIMUM_FRAME_BYTES) | (ends > records["raw_length"])
    bad |= records["length"] == 0
    if bad.any():
        chunk_id = bytes(records["chunk_id"][bad.argmax()])
        raise CorruptionError(f"{name}: record of chunk {chunk_id.hex()} has impossible sizes")


def parse_records(data: bytes | memoryview, name: str) -> list[Record]:
    """:raises CorruptionError: when a record contradicts itself."""
    check_records(data, name)
    return [Record(*fields) for fields in RECORD.iter_unpack(data)]


@dataclass
class Frame:
    """Chunks that are compressed together."""

    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    raw_bytes: int = 0

    def add(self, chunk_id: bytes, data: bytes) -> None:
        self.chunks.append((chunk_id, data))
        self.raw_bytes += len(data)


class FrameGrouper:
    """Collects chunks into the frames of one pack: large ones alone, small ones together."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.raw_bytes = 0
        self._solid: Frame | None = None

    def add(self, chunk_id: bytes, data: bytes) -> None:
        self.raw_bytes += len(data)
        if len(data) >= SMALL_CHUNK_BYTES:
            frame = Frame()
            self.frames.append(frame)
        else:
            if self._solid is None or self._solid.raw_bytes + len(data) > SOLID_FRAME_BYTES:
                self._solid = Frame()
                self.frames.append(self._solid)
            frame = self._solid
        frame.add(chunk_id, data)

    @property
    def is_full(self) -> bool:
        return self.raw_bytes >= PACK_BYTES

    def join(self, other: FrameGrouper) -> None:
        """Take over what another one has collected."""
        self.raw_bytes += other.raw_bytes
        self.frames += other.take()

    def take(self) -> list[Frame]:
        """The frames collected so far, for a pack; it begins anew."""
        frames, self.frames = self.frames, []
        self.raw_bytes, self._solid = 0, None
        return frames


@dataclass(frozen=True)
class EncodedPack:
    """A pack ready to be sent; ``records`` is the plain text of its footer."""

    name: str
    digest: bytes
    data: bytes
    records: bytes


def pack_object_name(digest: bytes) -> str:
    return f"packs/{digest.hex()[:2]}/{digest.hex()}"


_WORDS: dict[int, np.dtype[np.unsignedinteger]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


def split_planes(raw: bytes, stride: int) -> memoryview:
    """Bytes k, k+stride, … of each plane k together; the rest unsplit. By shifts, several times as fast as
    a transposed copy.
    """
    count = len(raw) // stride
    whole = count * stride
    words = np.frombuffer(raw, _WORDS[stride], count)
    split = np.empty(len(raw), np.uint8)
    planes = split[:whole].reshape(stride, count)
    planes[0] = words  # the lowest byte of each
    for k in range(1, stride):
        planes[k] = words >> (8 * k)
    split[whole:] = np.frombuffer(raw, np.uint8, offset=whole)
    return split.data


def join_planes(split: bytes, stride: int) -> memoryview:
    """The inverse of :func:`split_planes`."""
    count = len(split) // stride
    whole = count * stride
    planes = np.frombuffer(split, np.uint8, whole).reshape(stride, count)
    joined = np.empty(len(split), np.uint8)
    joined[whole:] = np.frombuffer(split, np.uint8, offset=whole)
    words = joined[:whole].view(_WORDS[stride])
    words[:] = planes[stride - 1]
    for k in range(stride - 2, -1, -1):
        words <<= 8
        words |= planes[k]
    return joined.data


def choose_stride(raw: bytes) -> int:
    """The stride whose planes have clearly the least entropy.

    Weights have exponents that repeat and mantissas that are noise: apart, the former compress. Entropy
    of order 0 of a sample from the middle sees that, where compressing so small a sample would not.
    """
    start = max(0, (len(raw) - _SAMPLE_BYTES) // 2) // 4 * 4
    sample = np.frombuffer(raw, np.uint8)[start : start + _SAMPLE_BYTES]
    if len(sample) < _LEAST_SAMPLE_BYTES:
        return 1
    # How often each value occurs at the positions k, k+4, …; then in the planes of each stride.
    counts = np.bincount(sample + _POSITIONS[: len(sample)], minlength=1024).reshape(4, 256)
    bits = _entropy(_PLANES @ counts)
    entropy = {1: bits[0], 2: bits[1:3].mean(), 4: bits[3:].mean()}
    best = 1  # smaller samples look less random: a longer stride has to be clearly better
    for stride in (2, 4):
        if entropy[stride] < _CLEAR_GAIN * entropy[best]:
            best = stride
    return best


_POSITIONS = (np.arange(_SAMPLE_BYTES, dtype=np.uint16) % 4) * 256
# The planes of stride 1, 2 and 4, as sums of those of stride 4.
_PLANES = np.array(
    [[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Bits a byte of each row, from how often each value occurs in it, at most ``_SAMPLE_BYTES`` times."""
    totals = counts.sum(axis=1)
    entropy: np.ndarray = np.log2(totals) - _TERMS[counts].sum(axis=1) / totals
    return entropy


_TERMS = np.arange(_SAMPLE_BYTES + 1) * np.log2(np.maximum(np.arange(_SAMPLE_BYTES + 1), 1))


def _compress(split: bytes | memoryview, stride: int, compressor: zstandard.ZstdCompressor) -> bytes:
    """One zstd frame; a block ends where a plane does, so that each has its own statistics."""
    if stride == 1:
        return compressor.compress(split)
    plane_bytes = len(split) // stride
    stream = compressor.compressobj(size=len(split))
    parts = []
    for start in range(0, len(split), plane_bytes):
        parts.append(stream.compress(split[start : start + plane_bytes]))
        parts.append(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*parts, stream.flush()])


def _encode_frame(raw: bytes, compressor: zstandard.ZstdCompressor) -> tuple[bytes, int, int]:
    """Body, codec and stride; read back, so that what faulty memory or a codec broke is found in time.

    :raises CorruptionError: when it does not read back equal.
    """
    stride = choose_stride(raw)
    split = raw if stride == 1 else split_planes(raw, stride)
    body = _compress(split, stride, compressor)
    if len(body) >= _WORTHWHILE * len(raw):
        return raw, STORED, 1
    found = decompress(body, limit_bytes=len(split), name="a new frame")
    if not _are_equal(found, split):
        raise CorruptionError("a frame did not read back as it was written: faulty memory?")
    return body, ZSTD, stride


def _are_equal(one: bytes, other: bytes | memoryview) -> bool:
    """Eight bytes at a time: comparing a memoryview with bytes takes twenty times as long."""
    whole = len(one) // 8 * 8
    return (
        len(one) == len(other)
        and np.array_equal(np.frombuffer(one, "<u8", whole // 8), np.frombuffer(other, "<u8", whole // 8))
        and bytes(one[whole:]) == bytes(other[whole:])
    )


def _decode_frame(body: bytes, raw_length: int, codec: int, stride: int, name: str) -> bytes | memoryview:
    if codec == ZSTD:
        body = decompress(body, limit_bytes=raw_length, name=name)
    elif codec != STORED:
        raise CorruptionError(f"{name} has unknown codec {codec}")
    if len(body) != raw_length:
        raise CorruptionError(f"{name} has {len(body)} bytes, not {raw_length}")
    if stride not in (1, *_WORDS):
        raise CorruptionError(f"{name} has unknown stride {stride}")
    return body if stride == 1 else join_planes(body, stride)


def encode_pack(ring: KeyRing, repository_id: str, frames: list[Frame]) -> EncodedPack:
    """Compress and encrypt every frame, and list the chunks in the footer.

    Takes the frames out of the list as it goes, so that their raw bytes do not stay until the end.
    """
    header = Header.new("P", ring, repository_id)
    packed_header = header.pack()
    cipher = header.cipher(ring)
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    parts: list[bytes] = [packed_header]
    records: list[bytes] = []
    offset = HEADER_BYTES
    frames.reverse()
    for number in range(len(frames)):
        frame = frames.pop()
        raw = frame.chunks[0][1] if len(frame.chunks) == 1 else b"".join(data for _, data in frame.chunks)
        body, codec, stride = _encode_frame(raw, compressor)
        stored = cipher.encrypt(nonce(number), body, packed_header)
        inner = 0
        for chunk_id, data in frame.chunks:
            fields = (chunk_id, offset, len(stored), len(raw), inner, len(data), number, codec, stride)
            records.append(RECORD.pack(*fields))
            inner += len(data)
        parts.append(stored)
        offset += len(stored)
    listing = b"".join(records)
    footer = cipher.encrypt(_FOOTER_NONCE, listing, packed_header)
    parts += [footer, _TRAILER.pack(len(footer), _END_MAGIC)]
    data = b"".join(parts)
    digest = hashlib.sha256(data).digest()
    return EncodedPack(pack_object_name(digest), digest, data, listing)


def open_frame(
    ring: KeyRing, header: Header, stored: bytes | memoryview, record: Record, name: str
) -> bytes | memoryview:
    """The raw bytes of a frame.

    :raises CorruptionError: when it is damaged or its sizes lie.
    """
    try:
        body = header.cipher(ring).decrypt(nonce(record.frame), stored, header.pack())
    except InvalidTag as error:
        raise CorruptionError(f"{name}: frame {record.frame} is damaged (authentication failed)") from error
    return _decode_frame(
        body, record.raw_length, record.codec, record.stride, f"{name}: frame {record.frame}"
    )


def check_chunk(chunk_id: bytes, data: bytes | memoryview, key: bytes, name: str) -> None:
    """:raises CorruptionError: when the bytes are not those of the chunk."""
    if blake3(data, key=key).digest() != chunk_id:
        raise CorruptionError(f"{name}: chunk {chunk_id.hex()} does not have its contents")


def read_footer(storage: S3Storage, ring: KeyRing, repository_id: str, name: str, size_bytes: int) -> bytes:
    """The records of a pack, from its own footer.

    :raises CorruptionError: when the pack is truncated or damaged there.
    """
    tail = storage.get_range(name, -min(size_bytes, _FOOTER_GUESS_BYTES), size_bytes)
    header_data = tail[:HEADER_BYTES] if len(tail) == size_bytes else storage.get_range(name, 0, HEADER_BYTES)
    header = Header.parse(header_data, kind="P", repository_id=repository_id, name=name)
    length, magic = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != _END_MAGIC or not TAG_BYTES <= length <= size_bytes - HEADER_BYTES - _TRAILER.size:
        raise CorruptionError(f"{name} is truncated: it has no footer")
    if length + _TRAILER.size > len(tail):
        tail = storage.get_range(name, -(length + _TRAILER.size), length + _TRAILER.size)
    footer = tail[-(length + _TRAILER.size) : -_TRAILER.size]
    try:
        return header.cipher(ring).decrypt(_FOOTER_NONCE, footer, header_data)
    except InvalidTag as error:
        raise CorruptionError(f"{name}: the footer is damaged (authentication failed)") from error
