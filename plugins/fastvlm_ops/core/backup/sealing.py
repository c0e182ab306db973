"""Authenticated header and sealed objects (docs/backup-format.md §3 and §4)."""

from __future__ import annotations

import hmac
import json
import os
import struct
from dataclasses import dataclass
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.keys import KeyRing

FORMAT = 1
MAGIC = b"FVOB"
TAG_BYTES = 16
_HEADER = struct.Struct("<4sBcH16s32s")
HEADER_BYTES = _HEADER.size
ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Header:
    """First 56 bytes of every encrypted object; ``name`` is the object's, for messages."""

    kind: str
    epoch: int
    repository_id: str
    salt: bytes
    name: str = "a new object"

    @classmethod
    def new(cls, kind: str, ring: KeyRing, repository_id: str) -> Header:
        """:raises BackupError: there is a later epoch than the ring has."""
        ring.require_newest()
        return cls(kind, ring.current, repository_id, os.urandom(32))

    def pack(self) -> bytes:
        repository_id = bytes.fromhex(self.repository_id)
        return _HEADER.pack(MAGIC, FORMAT, self.kind.encode(), self.epoch, repository_id, self.salt)

    @classmethod
    def parse(cls, data: bytes, *, kind: str, repository_id: str, name: str) -> Header:
        """:raises CorruptionError: when it is not the header of such an object of this repository."""
        if len(data) < HEADER_BYTES:
            raise CorruptionError(f"{name} is truncated: {len(data)} bytes")
        magic, version, found, epoch, owner, salt = _HEADER.unpack_from(data)
        if magic != MAGIC or version != FORMAT:
            raise CorruptionError(f"{name} is not an object of format {FORMAT}")
        if found != kind.encode() or owner.hex() != repository_id:
            raise CorruptionError(f"{name} is not an object of kind {kind} of repository {repository_id}")
        return cls(kind, epoch, repository_id, salt, name)

    def cipher(self, ring: KeyRing) -> AESGCM:
        """:raises BackupError: the ring cannot get the object's epoch."""
        ring.require_epoch(self.epoch, self.name)
        return ring.object_cipher(self.epoch, self.salt, self.kind)


def nonce(counter: int) -> bytes:
    """Nonce number ``counter`` of an object."""
    return counter.to_bytes(12, "big")


def decompress(data: bytes, *, limit_bytes: int, name: str) -> bytes:
    """zstd, never to more than ``limit_bytes``.

    :raises CorruptionError: when it is not zstd, or larger.
    """
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= limit_bytes:
            raise CorruptionError(f"{name} states {size} bytes; at most {limit_bytes} expected")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=limit_bytes)
    except zstandard.ZstdError as error:
        raise CorruptionError(f"{name} cannot be decompressed: {error}") from error


def seal(ring: KeyRing, repository_id: str, kind: str, name: str, payload: bytes) -> bytes:
    """A sealed object: compressed, encrypted, bound to its name."""
    header = Header.new(kind, ring, repository_id)
    packed = header.pack()
    body = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(payload)
    return packed + header.cipher(ring).encrypt(nonce(0), body, packed + name.encode())


def unseal(
    ring: KeyRing, repository_id: str, kind: str, name: str, data: bytes, *, limit_bytes: int
) -> bytes:
    """The payload of a sealed object.

    :raises CorruptionError: when a byte differs, or it is another object under this name.
    """
    header = Header.parse(data, kind=kind, repository_id=repository_id, name=name)
    packed = data[:HEADER_BYTES]
    try:
        body = header.cipher(ring).decrypt(nonce(0), data[HEADER_BYTES:], packed + name.encode())
    except InvalidTag as error:
        raise CorruptionError(f"{name} is damaged or was forged (authentication failed)") from error
    return decompress(body, limit_bytes=limit_bytes, name=name)


def sign_line(content: dict[str, Any], key: bytes) -> bytes:
    """A JSON object and its MAC, each on a line."""
    line = json.dumps(content, separators=(",", ":")).encode()
    return line + b"\n" + blake3(line, key=key).hexdigest().encode() + b"\n"


def peek_line(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of a MACed line, not yet verified."""
    try:
        content = json.loads(data.split(b"\n", 1)[0])
    except ValueError as error:
        raise CorruptionError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptionError(f"{name} is not a JSON object")
    return content


def verify_line(data: bytes, key: bytes, name: str) -> dict[str, Any]:
    """:raises CorruptionError: when the MAC does not fit."""
    line, _, rest = data.partition(b"\n")
    expected = blake3(line, key=key).hexdigest().encode() + b"\n"
    if not hmac.compare_digest(rest, expected):
        raise CorruptionError(f"{name} is damaged or was forged (MAC does not fit)")
    return peek_line(data, name)
