"""Epochs of the data key, and opening a key ring (docs/backup-format.md §2).

A later epoch is an object with the new key sealed once for each slot, so that what was stored before need
not be written again, and whoever rotates need not know the other slots' secrets.
"""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastvlm_ops.core.backup.errors import (
    BackupError,
    CorruptionError,
    ObjectNotFoundError,
    WrongKeyError,
)
from fastvlm_ops.core.backup.keys import (
    SLOT_LIMIT_BYTES,
    KeyRing,
    KeySlot,
    Opened,
    Secret,
    Secrets,
    derive,
    kind_of,
    open_slot,
    secrets_of,
)
from fastvlm_ops.core.backup.sealing import FORMAT, sign_line, verify_line
from fastvlm_ops.core.backup.storage import S3Storage

LAST_EPOCH = (1 << 16) - 1  # what an object's header can say
EPOCH_LIMIT_BYTES = 4 << 20
_NO_NONCE = bytes(12)  # each key seals once

_SECRETS = {"passphrase": "the repository passphrase", "key-file": "the key file"}
_FIELDS = {"passphrase": "repository_passphrase", "key-file": "repository_key_file"}


@dataclass(frozen=True)
class Epoch:
    """An epoch as it is stored, verified. ``sealed``: its key by slot, as JSON has it."""

    name: str
    number: int
    created: str
    sealed: dict[str, dict[str, str]] = field(repr=False)


def epoch_name(repository_id: str, epoch: int) -> str:
    """Name of the object of an epoch from the second one on."""
    return f"keys/{repository_id}/epochs/{epoch:05d}.json"


def epoch_of(name: str) -> int | None:
    """The epoch whose object has this name; None when it is none's."""
    folder, _, file = name.rpartition("/epochs/")
    digits = file.removesuffix(".json")
    is_epoch = folder and digits.isdecimal() and f"{int(digits):05d}.json" == file
    return int(digits) if is_epoch else None


def list_keys(storage: S3Storage, repository_id: str) -> tuple[list[str], list[str]]:
    """Names of the slots, and of what lies below ``epochs/``."""
    below = f"keys/{repository_id}/"
    names = [info.name for info in storage.list(below)]
    epochs = [name for name in names if name.startswith(f"{below}epochs/")]
    return [name for name in names if name not in set(epochs)], epochs


def seal_epoch(
    ring: KeyRing, repository_id: str, epoch: int, key: bytes, receivers: dict[str, bytes]
) -> bytes:
    """The object of a new epoch.

    :param ring: that has the epoch before
    :param receivers: public key by slot
    """
    content = {
        "format": FORMAT,
        "epoch": epoch,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sealed": {
            slot: _seal_for(public, key, _aad(repository_id, epoch, slot))
            for slot, public in receivers.items()
        },
    }
    return sign_line(content, ring.key_mac_key(epoch - 1))


def read_epoch(data: bytes, name: str, ring: KeyRing) -> Epoch:
    """An epoch's object, verified.

    :raises CorruptionError: a byte of it differs, it is another epoch's, or the ring lacks the one before it.
    """
    number = epoch_of(name)
    if number is None or not 1 < number <= LAST_EPOCH:
        raise CorruptionError(f"{name} is not the name of an epoch")
    if number - 1 not in ring.epochs:
        raise CorruptionError(f"{name} cannot be checked: epoch {number - 1}, which it follows, is missing")
    content = verify_line(data, ring.key_mac_key(number - 1), name)
    try:
        epoch = Epoch(name, int(content["epoch"]), str(content["created"]), dict(content["sealed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptionError(f"{name} is not an epoch: {error!r}") from error
    if epoch.number != number:
        raise CorruptionError(f"{name} holds epoch {epoch.number}")
    return epoch


def _aad(repository_id: str, epoch: int, slot: str) -> bytes:
    return f"fastvlm-ops/1/epoch/{repository_id}/{epoch}/{slot}".encode()


def _seal_for(public: bytes, key: bytes, aad: bytes) -> dict[str, str]:
    ephemeral = X25519PrivateKey.generate()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    sealed = _exchanged(shared, ephemeral_public, public).encrypt(_NO_NONCE, key, aad)
    return {
        "ephemeral": base64.b64encode(ephemeral_public).decode(),
        "key": base64.b64encode(sealed).decode(),
    }


def _exchanged(shared: bytes, ephemeral_public: bytes, public: bytes) -> AESGCM:
    return AESGCM(derive(shared, "fastvlm-ops/1/epoch-key", salt=ephemeral_public + public))


def _unseal(epoch: Epoch, repository_id: str, opened: Opened) -> bytes:
    """The key of an epoch.

    :raises WrongKeyError: it was not sealed for the slot that was opened.
    """
    sealed = epoch.sealed.get(opened.slot)
    if sealed is None or opened.private_key is None:
        raise WrongKeyError(
            f"key slot {opened.slot} was left out of epoch {epoch.number}; open the repository by a slot "
            "that is in it (fastvlm-ops keys list)"
        )
    private = X25519PrivateKey.from_private_bytes(opened.private_key)
    try:
        ephemeral = base64.b64decode(sealed["ephemeral"], validate=True)
        shared = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        cipher = _exchanged(shared, ephemeral, private.public_key().public_bytes_raw())
        wrapped = base64.b64decode(sealed["key"], validate=True)
        return cipher.decrypt(_NO_NONCE, wrapped, _aad(repository_id, epoch.number, opened.slot))
    except (ValueError, KeyError, TypeError, InvalidTag) as error:
        raise CorruptionError(f"{epoch.name}: the key for slot {opened.slot} cannot be opened") from error


def load_epochs(storage: S3Storage, repository_id: str, ring: KeyRing, names: Iterable[str]) -> None:
    """Add the epochs that the ring lacks; why one cannot be had is noted in ``ring.missing``.

    :param names: what lies below ``epochs/``
    """
    numbered = {number: name for name in names if (number := epoch_of(name)) is not None}
    for number, name in sorted(numbered.items()):
        if number in ring.epochs or ring.opened is None:
            continue
        try:
            data = storage.get(name, limit_bytes=EPOCH_LIMIT_BYTES)
            ring.epochs[number] = _unseal(read_epoch(data, name, ring), repository_id, ring.opened)
            ring.missing.pop(number, None)
        except (CorruptionError, WrongKeyError, ObjectNotFoundError) as error:
            ring.missing[number] = error
    if WrongKeyError in map(type, ring.missing.values()):
        _blame_the_slot(ring)


def _blame_the_slot(ring: KeyRing) -> None:
    """After an epoch that the slot was left out of, later ones cannot be checked either: for that reason."""
    reason = next(error for _, error in sorted(ring.missing.items()) if isinstance(error, WrongKeyError))
    first = next(number for number, error in ring.missing.items() if error is reason)
    for number in ring.missing:
        if number > first:
            ring.missing[number] = reason


def reload_epochs(storage: S3Storage, repository_id: str, ring: KeyRing) -> None:
    """Add the epochs that were made since the ring was opened."""
    load_epochs(storage, repository_id, ring, list_keys(storage, repository_id)[1])


class _Slots:
    """The slots, each read once; what is wrong with them is noted by name."""

    def __init__(self, storage: S3Storage, names: list[str]) -> None:
        self.damaged: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._data: dict[str, bytes] = {}
        for name in names:
            try:
                data = storage.get(name, limit_bytes=SLOT_LIMIT_BYTES)
                self._kinds[name] = KeySlot.parse(name, data).kind
                self._data[name] = data
            except (CorruptionError, ObjectNotFoundError) as error:
                self.damaged[name] = str(error)

    @property
    def intact(self) -> Counter[str]:
        """How many slots of each kind are not known to be damaged."""
        return Counter(kind for name, kind in self._kinds.items() if name not in self.damaged)

    def opened_by(self, secrets: tuple[Secret, ...], repository_id: str) -> Iterator[KeyRing]:
        for secret in secrets:
            for name, data in self._data.items():
                try:
                    ring = open_slot(name, data, repository_id, secret)
                except CorruptionError as error:
                    self.damaged[name] = str(error)
                    continue
                if ring is not None:
                    yield ring


def open_ring(storage: S3Storage, repository_id: str, secret: Secrets) -> KeyRing:
    """Open the key ring with the first slot that a secret fits and that is in the newest epoch.

    Where every slot that opens was left out of a later epoch, the first of them is taken: who meets an object
    of that epoch is told so. Damaged slots do not keep others from being tried.

    :raises WrongKeyError: a secret fits no slot.
    :raises CorruptionError: no slot can be tried, for all are damaged, or there is none.
    """
    secrets = secrets_of(secret)
    names, epochs = list_keys(storage, repository_id)
    slots = _Slots(storage, names)
    first: KeyRing | None = None
    for found in slots.opened_by(secrets, repository_id):
        load_epochs(storage, repository_id, found, epochs)
        ring = dataclasses.replace(
            found,
            current=max(found.epochs),
            reload=lambda ring: reload_epochs(storage, repository_id, ring),
        )
        if not any(isinstance(error, WrongKeyError) for error in ring.missing.values()):
            return ring
        first = first or ring
    if first is not None:
        return first
    raise _refusal(storage, secrets, slots)


def _refusal(storage: S3Storage, secrets: tuple[Secret, ...], slots: _Slots) -> BackupError:
    kinds = sorted({kind_of(secret) for secret in secrets}, reverse=True)
    intact, damaged = slots.intact, "; ".join(slots.damaged.values())
    if not intact or (damaged and not any(intact[kind] for kind in kinds)):
        return CorruptionError(f"no key slot of {storage} can be opened: {damaged or 'there is none'}")
    what = " or ".join(_SECRETS[kind] for kind in kinds)
    found = ", ".join(f"{number} {kind}" for kind, number in sorted(intact.items()))
    fields = " and ".join(_FIELDS[kind] for kind in kinds)
    return WrongKeyError(
        f"{what} fits none of the {intact.total()} key slot(s) of {storage} ({found}); "
        f"check {fields} of the connection{f'; damaged: {damaged}' if damaged else ''}"
    )
