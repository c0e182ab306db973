"""Slots and epochs byte by byte, and key files on a disk."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvlm_ops.core.backup import CorruptionError, WrongKeyError, keys
from fastvlm_ops.core.backup.errors import BackupError, KeyFileError
from fastvlm_ops.core.backup.key_epochs import epoch_name, epoch_of, load_epochs, read_epoch, seal_epoch
from fastvlm_ops.core.backup.key_files import KeyFile, read_private
from fastvlm_ops.core.backup.keys import KeyRing, Opened, open_slot, verify_slot, write_slot
from fastvlm_ops.core.backup.sealing import seal, unseal

REPOSITORY = "ab" * 16
PASSPHRASE = "a passphrase of the tests"
KEY_FILE = KeyFile(bytes(range(40)))
RING = KeyRing.generate()


class Memory:
    """As much of a storage as slots and epochs need."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.listed = 0

    def claim(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) is data

    def get(self, name: str, *, limit_bytes: int) -> bytes:
        return self.objects[name]


@pytest.fixture(scope="module")
def slots() -> dict[str, tuple[str, bytes, keys.Secret]]:
    """Name, bytes and secret of a slot of each kind."""
    found: dict[str, tuple[str, bytes, keys.Secret]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})
        for secret in (PASSPHRASE, KEY_FILE):
            memory: Any = Memory()
            slot = write_slot(memory, REPOSITORY, RING, secret, label="die Schlüsselwärterin")
            (name,) = memory.objects
            assert name == keys.slot_name(REPOSITORY, slot)
            found[keys.kind_of(secret)] = (name, memory.objects[name], secret)
    return found


changes = st.tuples(st.sampled_from(["passphrase", "key-file"]), st.integers(0, 10_000), st.integers(1, 255))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(changes)
def test_any_changed_byte_of_a_slot_is_refused(
    slots: dict[str, tuple[str, bytes, keys.Secret]], change: tuple[str, int, int]
) -> None:
    kind, offset, difference = change
    name, whole, secret = slots[kind]
    changed = bytearray(whole)
    changed[offset % len(whole)] ^= difference
    with pytest.raises(CorruptionError):
        verify_slot(bytes(changed), RING, name)
    with suppress(CorruptionError):  # else it is as one of another secret
        assert open_slot(name, bytes(changed), REPOSITORY, secret) is None


@pytest.mark.parametrize("kind", ["passphrase", "key-file"])
def test_a_slot_opens_by_its_own_secret_alone(
    slots: dict[str, tuple[str, bytes, keys.Secret]], kind: str
) -> None:
    name, whole, secret = slots[kind]
    ring = open_slot(name, whole, REPOSITORY, secret)
    assert ring == RING
    assert ring.opened is not None
    assert verify_slot(whole, RING, name).label == "die Schlüsselwärterin"
    private = X25519PrivateKey.from_private_bytes(ring.opened.private_key or b"")
    assert verify_slot(whole, RING, name).exchange_key == private.public_key().public_bytes_raw()
    for other in ("another", KeyFile(bytes(40)), *(one for _, _, one in slots.values() if one != secret)):
        assert open_slot(name, whole, REPOSITORY, other) is None
    assert open_slot(name, whole, "cd" * 16, secret) is None  # of another repository
    with pytest.raises(CorruptionError, match="holds slot"):
        open_slot(name.replace(".json", "0.json"), whole, REPOSITORY, secret)
    shown = f"{ring!r} {ring.opened!r} {secret!r} {verify_slot(whole, RING, name)!r}"
    for key in (RING.root, RING.epochs[1], ring.opened.private_key or b"", bytes(range(40))):
        assert key.hex() not in shown
        assert repr(key)[2:-1] not in shown


@pytest.mark.parametrize(
    "changed",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 2}',
        b"\xff\xfe",
        b'{"format": 1, "slot": 1}',
    ],
    ids=["empty", "list", "null", "no members", "one member", "format", "no text", "two members"],
)
def test_what_is_no_slot_is_refused(changed: bytes) -> None:
    with pytest.raises(CorruptionError, match="is not a key slot"):
        verify_slot(changed, RING, f"keys/{REPOSITORY}/one.json")


def epoch_two(receivers: dict[str, X25519PrivateKey]) -> tuple[str, bytes, bytes]:
    key = os.urandom(32)
    public = {slot: private.public_key().public_bytes_raw() for slot, private in receivers.items()}
    return epoch_name(REPOSITORY, 2), seal_epoch(RING, REPOSITORY, 2, key, public), key


def opened(slot: str, private: X25519PrivateKey, memory: Any) -> KeyRing:
    ring = KeyRing(RING.root, dict(RING.epochs), 1, Opened(slot, private.private_bytes_raw()))
    load_epochs(memory, REPOSITORY, ring, list(memory.objects))
    return ring


MINE = X25519PrivateKey.generate()
EPOCH = epoch_two({"mine": MINE, "other": X25519PrivateKey.generate()})


@settings(deadline=None, max_examples=400)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_of_an_epoch_is_refused(offset: int, difference: int) -> None:
    name, whole, _ = EPOCH
    changed = bytearray(whole)
    changed[offset % len(whole)] ^= difference
    with pytest.raises(CorruptionError):
        read_epoch(bytes(changed), name, RING)


def test_an_epoch_is_for_the_slots_it_names() -> None:
    name, data, key = EPOCH
    memory: Any = Memory()
    memory.objects[name] = data
    ring = opened("mine", MINE, memory)
    assert (ring.epochs[2], ring.missing) == (key, {})
    outsider = opened("third", X25519PrivateKey.generate(), memory)
    assert sorted(outsider.epochs) == [1]
    with pytest.raises(WrongKeyError, match="key slot third was left out of epoch 2"):
        outsider.require_newest()
    stranger = opened("other", MINE, memory)  # under another's name, with a key that does not fit
    assert isinstance(stranger.missing[2], CorruptionError)
    with pytest.raises(CorruptionError, match="the key for slot other cannot be opened"):
        stranger.require_epoch(2, "packs/aa/one")
    with pytest.raises(CorruptionError, match="MAC does not fit"):
        read_epoch(data, epoch_name(REPOSITORY, 3), ring)
    assert key.hex() not in data.decode()


def test_after_an_epoch_that_a_slot_was_left_out_of_come_no_others() -> None:
    name, data, key = EPOCH
    knowing = KeyRing(RING.root, {**RING.epochs, 2: key}, 2)
    memory: Any = Memory()
    memory.objects[name] = data
    third = MINE.public_key().public_bytes_raw()
    memory.objects[epoch_name(REPOSITORY, 3)] = seal_epoch(
        knowing, REPOSITORY, 3, os.urandom(32), {"x": third}
    )
    outsider = opened("x", MINE, memory)  # named by the third, but it cannot be checked without the second
    assert sorted(outsider.epochs) == [1]
    assert [type(error) for _, error in sorted(outsider.missing.items())] == [WrongKeyError, WrongKeyError]


def test_an_object_of_an_epoch_that_is_not_known_makes_the_keys_be_read_once() -> None:
    key, asked, learns = os.urandom(32), [], False

    def reload(ring: KeyRing) -> None:
        asked.append(sorted(ring.epochs))
        if learns:
            ring.epochs[2] = key

    sealed = seal(KeyRing(RING.root, {**RING.epochs, 2: key}, 2), REPOSITORY, "M", "one", b"payload")
    ring = KeyRing(RING.root, dict(RING.epochs), 1, reload=reload)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="one: key epoch 2 is not in the key ring"):
            unseal(ring, REPOSITORY, "M", "one", sealed, limit_bytes=100)
    assert asked == [[1]]
    learns, ring = True, KeyRing(RING.root, dict(RING.epochs), 1, reload=reload)
    for _ in range(2):
        assert unseal(ring, REPOSITORY, "M", "one", sealed, limit_bytes=100) == b"payload"
    assert asked == [[1], [1]]
    assert seal(ring, REPOSITORY, "M", "two", b"")[6:8] == b"\x01\x00", "it goes on with its epoch"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("keys/x/epochs/00002.json", 2),
        ("keys/x/epochs/65535.json", 65535),
        ("keys/x/epochs/2.json", None),
        ("keys/x/epochs/00002", None),
        ("keys/x/epochs/00002.json.json", None),
        ("keys/x/00002.json", None),
        ("keys/x/epochs/-0002.json", None),
    ],
)
def test_names_of_epochs(name: str, number: int | None) -> None:
    assert epoch_of(name) == number


@pytest.mark.parametrize("number", [0, 1, 65536])
def test_there_is_no_object_of_the_first_epoch_nor_after_the_last(number: int) -> None:
    with pytest.raises(CorruptionError, match="is not the name of an epoch"):
        read_epoch(EPOCH[1], epoch_name(REPOSITORY, number), RING)


def test_rings_without_a_private_key_are_read() -> None:
    ring = KeyRing.from_json(RING.to_json(), slot="one")
    assert ring == RING
    assert ring.opened == Opened("one", None)
    assert json.loads(RING.to_json(b"p" * 32))["private_key"] == (b"p" * 32).hex()


# -- key files ----------------------------------------------------------------------------------------


def test_a_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made, path = KeyFile.generate(), tmp_path / "key"
    umask = os.umask(0)
    try:
        made.write(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyFile.read(path) == made != KeyFile.generate()
    with pytest.raises(KeyFileError, match="is there already"):
        KeyFile.generate().write(path)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="is there already"):
        KeyFile.generate().write(tmp_path / "link")
    with pytest.raises(KeyFileError, match="cannot be written: No such file"):
        KeyFile.generate().write(tmp_path / "absent" / "key")
    assert KeyFile.read(path) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_key_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    KeyFile.generate().write(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=rf"\(mode {mode:04o}\): chmod 600 {path}"):
        KeyFile.read(path)
    path.chmod(0o400)
    KeyFile.read(path)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    cases: list[tuple[bytes, str]] = [(b"short", "at least 32 bytes, not 5"), (bytes(1 << 21), "larger than")]
    for data, message in cases:
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(BackupError, match=f"{path}.*{message}"):
            KeyFile.read(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, message in (
        ("pipe", "is not a file"),
        (".", "Is a directory"),
        ("absent", "cannot be read: No such"),
    ):
        with pytest.raises(KeyFileError, match=message):
            read_private(tmp_path / name)
