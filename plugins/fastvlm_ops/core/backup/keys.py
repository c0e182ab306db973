"""Key ring, secrets, key slots and derivation (docs/backup-format.md §2)."""

from __future__ import annotations

import base64
import hmac
import json
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fastvlm_ops.core.backup.errors import BackupError, CorruptionError, StorageError
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.storage import S3Storage

Secret = str | KeyFile  # a passphrase, or the contents of a key file
Secrets = Secret | tuple[Secret, ...]

SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, about 0.1 s
FIRST_EPOCH = 1
SLOT_LIMIT_BYTES = 1 << 20
_SCRYPT_LIMIT = 1 << 23  # n·r: 1 GiB; a hostile slot must not exhaust memory
_CIPHERS_KEPT = 64


def derive(secret: bytes, info: str, *, salt: bytes | None = None, length: int = 32) -> bytes:
    """HKDF-SHA256 with one of the format's info strings."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info.encode()).derive(secret)


def secrets_of(secret: Secrets) -> tuple[Secret, ...]:
    """One secret or several, as a tuple."""
    return (secret,) if isinstance(secret, str | KeyFile) else secret


def kind_of(secret: Secret) -> str:
    """The kind of the slots that a secret can open."""
    return "passphrase" if isinstance(secret, str) else "key-file"


@dataclass(frozen=True)
class Opened:
    """The slot that a key ring was opened by. ``private_key`` is None for slots of earlier versions."""

    slot: str
    private_key: bytes | None = field(repr=False)


@dataclass(frozen=True)
class KeyRing:
    """The repository's secrets: a root, and one data key an epoch.

    ``current`` is the epoch that new objects are sealed under; it stays as it was when the ring was opened.
    ``epochs`` grows when an object of a later one is met. ``missing`` says of each epoch that there is, but
    that this ring could not get, why.
    """

    root: bytes
    epochs: dict[int, bytes]
    current: int
    opened: Opened | None = field(default=None, compare=False)
    missing: dict[int, BackupError] = field(default_factory=dict, compare=False)
    reload: Callable[[KeyRing], None] | None = field(default=None, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, compare=False)
    _sought: set[int] = field(default_factory=set, init=False, compare=False)

    @classmethod
    def generate(cls) -> KeyRing:
        return cls(os.urandom(32), {FIRST_EPOCH: os.urandom(32)}, FIRST_EPOCH)

    @classmethod
    def from_json(cls, data: bytes, *, slot: str = "") -> KeyRing:
        content = json.loads(data)
        epochs = {int(epoch): bytes.fromhex(key) for epoch, key in content["epochs"].items()}
        private = content.get("private_key")
        opened = Opened(slot, bytes.fromhex(private) if private else None)
        return cls(bytes.fromhex(content["root"]), epochs, int(content["current"]), opened)

    def to_json(self, private_key: bytes | None = None) -> bytes:
        """:param private_key: of the slot that this is for"""
        content: dict[str, Any] = {
            "root": self.root.hex(),
            "epochs": {str(epoch): key.hex() for epoch, key in self.epochs.items()},
            "current": self.current,
        }
        if private_key is not None:
            content["private_key"] = private_key.hex()
        return json.dumps(content).encode()

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

    def key_mac_key(self, epoch: int) -> bytes:
        """The key of MACs of what was written below ``keys/`` in an epoch: who lacks it cannot forge that.

        :raises CorruptionError: the ring lacks the epoch.
        """
        if epoch not in self.epochs:
            raise CorruptionError(f"it was written in epoch {epoch}, which this key ring lacks")
        return derive(self.root + self.epochs[epoch], "fastvlm-ops/1/key-mac")

    def require_epoch(self, epoch: int, name: str) -> None:
        """See to it that objects of an epoch can be read; epochs that are not known are looked up once.

        :param name: of the object, for messages
        :raises BackupError: of :class:`CorruptionError` when the epoch is lost, or of :class:`WrongKeyError`
            when the slot that opened this ring was left out of it.
        """
        if epoch in self.epochs:
            return
        with self._lock:
            if epoch not in self.epochs and epoch not in self._sought and self.reload is not None:
                self._sought.add(epoch)
                self.reload(self)
        if epoch in self.epochs:
            return
        if epoch in self.missing:
            reason = self.missing[epoch]
            raise type(reason)(f"{name}: {reason}")
        raise CorruptionError(f"{name}: key epoch {epoch} is not in the key ring")

    def require_newest(self) -> None:
        """:raises BackupError: there is a later epoch, which this ring cannot get: it must not write."""
        for epoch, reason in sorted(self.missing.items()):
            if epoch > self.current:
                raise type(reason)(f"nothing is written under epoch {self.current} any more: {reason}")

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


@dataclass(frozen=True)
class KeySlot:
    """A slot as it is stored; nothing of it is proven before :func:`verify_slot`.

    :param name: of the object
    :param epoch: that it was written in, and that its ring holds; None for slots of earlier versions
    :param exchange_key: public key that later epochs are sealed for; None for slots of earlier versions
    """

    name: str
    slot: str
    kind: str
    created: str
    label: str
    epoch: int | None
    exchange_key: bytes | None
    content: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, name: str, data: bytes) -> KeySlot:
        """:raises CorruptionError: it is no key slot, or another one under this name."""
        try:
            content = json.loads(data)
            if content["format"] != 1:
                raise ValueError(f"format {content['format']!r}; this version reads format 1")
            public = content.get("exchange_key")
            epoch = content.get("epoch")
            slot = cls(
                name=name,
                slot=str(content["slot"]),
                kind=str(content["kind"]),
                created=str(content["created"]),
                label=str(content.get("label", "")),
                epoch=None if epoch is None else int(epoch),
                exchange_key=None if public is None else base64.b64decode(public, validate=True),
                content=content,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"{name} is not a key slot: {error!r}") from error
        if name != f"{name.rpartition('/')[0]}/{slot.slot}.json":
            raise CorruptionError(f"{name} holds slot {slot.slot}")
        if json.dumps(content, indent=1).encode() != data:  # white space, or a member twice
            raise CorruptionError(f"{name} is damaged: it is not written as key slots are")
        return slot


def write_slot(
    storage: S3Storage, repository_id: str, ring: KeyRing, secret: Secret, *, label: str = ""
) -> str:
    """Wrap the ring by a secret into a new slot; returns the slot's id."""
    slot, private = uuid.uuid4().hex, X25519PrivateKey.generate()
    if isinstance(secret, str):
        kdf = {"name": "scrypt", "salt": _base64(os.urandom(16)), **SCRYPT}
    else:
        kdf = {"name": "hkdf", "salt": _base64(os.urandom(16))}
    nonce = os.urandom(12)
    wrapped = AESGCM(_wrapping_key(secret, kdf)).encrypt(
        nonce, ring.to_json(private.private_bytes_raw()), _slot_aad(repository_id, slot)
    )
    content: dict[str, Any] = {
        "format": 1,
        "slot": slot,
        "kind": kind_of(secret),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"label": label} if label else {}),
        "epoch": ring.current,
        "kdf": kdf,
        "nonce": _base64(nonce),
        "key_ring": _base64(wrapped),
        "exchange_key": _base64(private.public_key().public_bytes_raw()),
    }
    content["mac"] = _slot_mac(content, ring)
    name = slot_name(repository_id, slot)
    data = json.dumps(content, indent=1).encode()
    # Refused is also what our own write is, tried again after its answer was lost.
    if not storage.claim(name, data) and storage.get(name, limit_bytes=SLOT_LIMIT_BYTES) != data:
        raise StorageError(f"{storage}{name}: a conditional write to a new name was refused")
    return slot


def slot_name(repository_id: str, slot: str) -> str:
    """Name of a slot's object."""
    return f"keys/{repository_id}/{slot}.json"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _slot_aad(repository_id: str, slot: str) -> bytes:
    return f"fastvlm-ops/1/key-slot/{repository_id}/{slot}".encode()


def _wrapping_key(secret: Secret, kdf: dict[str, Any]) -> bytes:
    return _passphrase_key(secret, kdf) if isinstance(secret, str) else _key_file_key(secret, kdf)


def _passphrase_key(passphrase: str, kdf: dict[str, Any]) -> bytes:
    n, r, p = int(kdf["n"]), int(kdf["r"]), int(kdf["p"])
    if kdf.get("name") != "scrypt" or n * r > _SCRYPT_LIMIT or p > 16:
        raise CorruptionError(
            f"key slot with an unacceptable key derivation {kdf.get('name')!r} n={n} r={r} p={p}"
        )
    return Scrypt(salt=base64.b64decode(kdf["salt"]), length=32, n=n, r=r, p=p).derive(passphrase.encode())


def _key_file_key(file: KeyFile, kdf: dict[str, Any]) -> bytes:
    if kdf.get("name") != "hkdf":
        raise CorruptionError(f"key slot with an unacceptable key derivation {kdf.get('name')!r}")
    return derive(file.data, "fastvlm-ops/1/key-file", salt=base64.b64decode(kdf["salt"], validate=True))


def _slot_mac(content: dict[str, Any], ring: KeyRing) -> str:
    """Over all members but itself, so that a slot can be verified without its secret."""
    members = {name: value for name, value in content.items() if name != "mac"}
    line = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    epoch = content.get("epoch")
    key = ring.log_key if epoch is None else ring.key_mac_key(int(epoch))
    return blake3(line, key=key).hexdigest()


def verify_slot(data: bytes, ring: KeyRing, name: str) -> KeySlot:
    """:raises CorruptionError: when a byte of a slot differs, or it is another one under this name."""
    slot = KeySlot.parse(name, data)
    try:
        expected = _slot_mac(slot.content, ring)
    except CorruptionError as error:
        raise CorruptionError(f"{name} cannot be checked: {error}") from error
    if not hmac.compare_digest(expected.encode(), str(slot.content.get("mac", "")).encode()):
        raise CorruptionError(f"{name} is damaged or was forged (MAC does not fit)")
    return slot


def open_slot(name: str, data: bytes, repository_id: str, secret: Secret) -> KeyRing | None:
    """The ring, or None when the slot is of another secret, or of another kind.

    :raises CorruptionError: the slot is damaged.
    """
    slot = KeySlot.parse(name, data)
    if slot.kind != kind_of(secret):
        return None
    try:
        key = AESGCM(_wrapping_key(secret, slot.content["kdf"]))
        nonce, wrapped = (
            base64.b64decode(slot.content[member], validate=True) for member in ("nonce", "key_ring")
        )
        aad = _slot_aad(repository_id, slot.slot)
        ring = KeyRing.from_json(key.decrypt(nonce, wrapped, aad), slot=slot.slot)
    except InvalidTag:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{name} is damaged: {error!r}") from error
    verify_slot(data, ring, name)
    return ring
