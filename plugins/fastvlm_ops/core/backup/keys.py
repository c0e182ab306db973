"""Key ring, key slots and derivation (docs/backup-format.md §2)."""

from __future__ import annotations

import base64
import hmac
import json
import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fastvlm_ops.core.backup.errors import CorruptionError, WrongKeyError
from fastvlm_ops.core.backup.storage import S3Storage

SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, about 0.1 s
_SCRYPT_LIMIT = 1 << 23  # n·r: 1 GiB; a hostile slot must not exhaust memory
_SLOT_LIMIT_BYTES = 1 << 20
_CIPHERS_KEPT = 64


def derive(secret: bytes, info: str, *, salt: bytes | None = None, length: int = 32) -> bytes:
    """HKDF-SHA256 with one of the format's info strings."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info.encode()).derive(secret)


@dataclass(frozen=True)
class KeyRing:
    """The repository's secrets: a root, and one data key an epoch."""

    root: bytes
    epochs: dict[int, bytes]
    current: int

    @classmethod
    def generate(cls) -> KeyRing:
        return cls(os.urandom(32), {1: os.urandom(32)}, 1)

    @classmethod
    def from_json(cls, data: bytes) -> KeyRing:
        content = json.loads(data)
        epochs = {int(epoch): bytes.fromhex(key) for epoch, key in content["epochs"].items()}
        return cls(bytes.fromhex(content["root"]), epochs, int(content["current"]))

    def to_json(self) -> bytes:
        return json.dumps(
            {
                "root": self.root.hex(),
                "epochs": {str(epoch): key.hex() for epoch, key in self.epochs.items()},
                "current": self.current,
            }
        ).encode()

    def __repr__(self) -> str:  # never show key material in a log
        return f"KeyRing(epochs={sorted(self.epochs)}, current={self.current})"

    @cached_property
    def chunk_id_key(self) -> bytes:
        return derive(self.root, "fastvlm-ops/1/chunk-id")

    @cached_property
    def log_key(self) -> bytes:
        return derive(self.root, "fastvlm-ops/1/log")

    @cached_property
    def chunker_seed(self) -> int:
        """63 bits: the chunker's library doubles it."""
        return int.from_bytes(derive(self.root, "fastvlm-ops/1/chunker-seed", length=8), "little") >> 1

    def object_cipher(self, epoch: int, salt: bytes, kind: str) -> AESGCM:
        """The cipher of one object; its key is fresh because the salt is.

        The newest few are kept: a pack is opened frame by frame.
        """
        cipher = self._ciphers.get((epoch, salt, kind))
        if cipher is None:
            cipher = AESGCM(derive(self.epochs[epoch], f"fastvlm-ops/1/object/{kind}", salt=salt))
            if len(self._ciphers) >= _CIPHERS_KEPT:
                self._ciphers.clear()
            self._ciphers[epoch, salt, kind] = cipher
        return cipher

    @cached_property
    def _ciphers(self) -> dict[tuple[int, bytes, str], AESGCM]:
        return {}


def _slot_aad(repository_id: str, slot: str) -> bytes:
    return f"fastvlm-ops/1/key-slot/{repository_id}/{slot}".encode()


def _passphrase_key(passphrase: str, kdf: dict[str, Any]) -> bytes:
    n, r, p = int(kdf["n"]), int(kdf["r"]), int(kdf["p"])
    if kdf.get("name") != "scrypt" or n * r > _SCRYPT_LIMIT or p > 16:
        raise CorruptionError(
            f"key slot with an unacceptable key derivation {kdf.get('name')!r} n={n} r={r} p={p}"
        )
    return Scrypt(salt=base64.b64decode(kdf["salt"]), length=32, n=n, r=r, p=p).derive(passphrase.encode())


def write_passphrase_slot(storage: S3Storage, repository_id: str, ring: KeyRing, passphrase: str) -> str:
    """Wrap the ring by a passphrase into a new slot; returns the slot's id."""
    slot = uuid.uuid4().hex
    kdf = {"name": "scrypt", "salt": base64.b64encode(os.urandom(16)).decode(), **SCRYPT}
    nonce = os.urandom(12)
    wrapped = AESGCM(_passphrase_key(passphrase, kdf)).encrypt(
        nonce, ring.to_json(), _slot_aad(repository_id, slot)
    )
    content: dict[str, Any] = {
        "format": 1,
        "slot": slot,
        "kind": "passphrase",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kdf": kdf,
        "nonce": base64.b64encode(nonce).decode(),
        "key_ring": base64.b64encode(wrapped).decode(),
    }
    content["mac"] = _slot_mac(content, ring)
    storage.put(f"keys/{repository_id}/{slot}.json", json.dumps(content, indent=1).encode())
    return slot


def _slot_mac(slot: dict[str, Any], ring: KeyRing) -> str:
    """Over all members but itself, so that a slot can be verified without its passphrase."""
    content = {name: value for name, value in slot.items() if name != "mac"}
    line = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return blake3(line, key=ring.log_key).hexdigest()


def verify_slot(data: bytes, ring: KeyRing, name: str) -> None:
    """:raises CorruptionError: when a slot is not as it was written, or another under this name."""
    try:
        slot = json.loads(data)
        expected, found = _slot_mac(slot, ring), str(slot.get("mac", ""))
    except (ValueError, AttributeError) as error:
        raise CorruptionError(f"{name} is not a key slot: {error}") from error
    if not hmac.compare_digest(expected.encode(), found.encode()):
        raise CorruptionError(f"{name} is damaged or was forged (MAC does not fit)")
    if name != f"{name.rpartition('/')[0]}/{slot.get('slot')}.json":
        raise CorruptionError(f"{name} holds slot {slot.get('slot')}")


def open_ring(storage: S3Storage, repository_id: str, passphrase: str) -> KeyRing:
    """Open the key ring with the first slot that the passphrase fits.

    :raises WrongKeyError: when it fits none.
    """
    tried, damaged = 0, []
    for info in storage.list(f"keys/{repository_id}/"):
        tried += 1
        try:
            ring = _open_slot(
                storage.get(info.name, limit_bytes=_SLOT_LIMIT_BYTES), repository_id, passphrase
            )
        except (ValueError, KeyError, TypeError, CorruptionError) as error:
            damaged.append(f"{info.name} is damaged ({error})")
            continue
        if ring is not None:
            return ring
    if damaged or not tried:
        raise CorruptionError(
            f"no key slot of {storage} can be opened: {'; '.join(damaged) or 'there is none'}"
        )
    raise WrongKeyError(
        f"the repository passphrase fits none of the {tried} key slot(s) of {storage}; "
        "check repository_passphrase of the connection"
    )


def _open_slot(data: bytes, repository_id: str, passphrase: str) -> KeyRing | None:
    """The ring, or None when the slot is of another passphrase or of a kind without one."""
    slot = json.loads(data)
    if slot["format"] != 1 or slot["kind"] != "passphrase":
        return None
    cipher = AESGCM(_passphrase_key(passphrase, slot["kdf"]))
    nonce, wrapped = (base64.b64decode(slot[member], validate=True) for member in ("nonce", "key_ring"))
    try:
        return KeyRing.from_json(cipher.decrypt(nonce, wrapped, _slot_aad(repository_id, slot["slot"])))
    except InvalidTag:
        return None
