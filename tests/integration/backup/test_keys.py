"""Several secrets for one repository: adding, removing, rotating; what is damaged, forged or cut short."""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastvlm_ops.core.backup import (
    CorruptionError,
    Repository,
    S3Storage,
    StorageError,
    WrongKeyError,
    create_client,
    initialise_repository,
    keys,
    open_repository,
    restore_snapshot,
    verify_repository,
)
from fastvlm_ops.core.backup.errors import KeySlotError
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.key_slots import (
    add_slot,
    plan_removal,
    plan_rotation,
    read_keys,
    remove_slot,
    rotate_epoch,
)
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.versions import Locked, Removed
from tests.fault_proxy import Fault, FaultProxy, Request, drop, lose_answer
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

KEY_FILE = KeyFile(b"a key file of the tests, long enough")
OTHER = "another passphrase of the tests"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deriving a key from a passphrase need not be slow here."""
    monkeypatch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one.bin").write_bytes(os.urandom(100_000))
    return folder


def slots_of(repository: Repository) -> list[str]:
    below = f"keys/{repository.repository_id}/"
    names = [info.name.removeprefix(below) for info in repository.storage.list(below)]
    return [name.removesuffix(".json") for name in names if "/" not in name]


def slot_by(storage: S3Storage, secret: keys.Secret) -> str:
    opened = open_repository(storage, secret).ring.opened
    assert opened is not None
    return opened.slot


def name_of(repository: Repository, slot: str) -> str:
    return keys.slot_name(repository.repository_id, slot)


def epochs_of(storage: S3Storage, *prefixes: str) -> dict[str, int]:
    """Key epoch of each sealed object, as its header says."""
    return {
        info.name: int.from_bytes(storage.get_range(info.name, 6, 2), "little")
        for prefix in prefixes or ("packs/", "index/", "snapshots/")
        for info in storage.list(prefix)
    }


def restored(repository: Repository, snapshot_id: str, target: Path) -> dict[bytes, Any]:
    restore_snapshot(repository, snapshot_id, target)
    return describe(target)


# -- opening ------------------------------------------------------------------------------------------


def test_each_of_several_secrets_opens(storage: S3Storage, folder: Path, tmp_path: Path) -> None:
    repository = initialise_repository(storage, (PASSPHRASE, KEY_FILE))
    add_slot(repository, OTHER, label="of the restore team")
    snapshot = back_up(repository, folder, "run-1")
    secrets: list[keys.Secrets] = [PASSPHRASE, KEY_FILE, OTHER, (OTHER + "?", KEY_FILE)]
    for number, secret in enumerate(secrets):
        opened = open_repository(storage, secret)
        assert opened.ring == repository.ring
        assert restored(opened, snapshot.snapshot_id, tmp_path / str(number)) == describe(folder)
    state = read_keys(repository)
    assert sorted((slot.label, slot.kind) for slot in state.slots) == [
        ("", "key-file"),
        ("", "passphrase"),
        ("of the restore team", "passphrase"),
    ]
    assert (state.problems, state.newest_epoch) == ({}, 1)
    assert [slot.slot for slot in state.slots if slot.is_in_use] == [slot_by(storage, PASSPHRASE)]


def test_a_secret_is_not_added_twice(repository: Repository) -> None:
    with pytest.raises(KeySlotError, match=r"opens key slot .* already"):
        add_slot(repository, PASSPHRASE)
    with pytest.raises(KeySlotError, match="at most 64 printable characters"):
        add_slot(repository, OTHER, label="two\nlines")
    assert len(slots_of(repository)) == 1


@pytest.mark.parametrize("secret", ["not the passphrase", KeyFile(b"x" * 40)], ids=["passphrase", "file"])
def test_a_wrong_key_is_refused_before_anything_else_is_read(
    seaweedfs: SeaweedFS, storage: S3Storage, folder: Path, secret: keys.Secret
) -> None:
    repository = initialise_repository(storage, (PASSPHRASE, KEY_FILE))
    add_slot(repository, OTHER)
    back_up(repository, folder, "run-1")
    rotate_epoch(repository)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy, proxy.faults(None) as requests:
        remote = S3Storage(client_of(seaweedfs, proxy.endpoint_url), storage.bucket, storage.prefix)
        with pytest.raises(WrongKeyError, match=r"fits none of the 3 key slot\(s\)") as caught:
            open_repository(remote, secret)
    below = f"keys/{repository.repository_id}/"
    assert sorted((request.operation, request.name) for request in requests) == sorted(
        [
            ("GetObject", "config.json"),
            ("ListObjectsV2", below),
            *(("GetObject", f"{below}{slot}.json") for slot in slots_of(repository)),
        ]
    )
    assert "(1 key-file, 2 passphrase)" in str(caught.value)
    assert "not the passphrase" not in str(caught.value)
    assert "xxx" not in f"{caught.value}{secret!r}"


def client_of(seaweedfs: SeaweedFS, endpoint_url: str, **options: Any) -> S3Client:
    return create_client(
        endpoint_url=endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
        **options,
    )


def test_damaged_slots_do_not_hide_good_ones(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: b"{",
        lambda data: data.replace(b'"created": "2', b'"created": "3'),
        lambda data: data.replace(b'"n": 2', b'"n": 2147483648'),
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
    ]
    for number, damage in enumerate(damages):
        slot = add_slot(repository, f"a passphrase with the number {number}")
        name = name_of(repository, slot)
        storage.put(name, damage(storage.get(name, limit_bytes=1 << 20)))
    assert open_repository(storage, PASSPHRASE).ring == repository.ring
    assert len(read_keys(repository).problems) == len(damages)
    with pytest.raises(WrongKeyError, match=r"is damaged or was forged \(MAC does not fit\)"):
        open_repository(storage, "a passphrase with the number 1", chunks=True)
    with pytest.raises(WrongKeyError, match=r"fits none of the 2 key slot.*; damaged: keys/.*keys/"):
        open_repository(storage, "of nobody")
    storage.delete(name_of(repository, slot_by(storage, PASSPHRASE)))
    for slot in slots_of(repository):
        storage.put(name_of(repository, slot), b"{}")
    with pytest.raises(CorruptionError, match=r"no key slot of s3://.* can be opened: keys/"):
        open_repository(storage, PASSPHRASE)
    for slot in slots_of(repository):
        storage.delete(name_of(repository, slot))
    with pytest.raises(CorruptionError, match="there is none"):
        open_repository(storage, PASSPHRASE)


# -- rotating -----------------------------------------------------------------------------------------


def test_rotating_writes_nothing_again_and_every_secret_reads_all(
    storage: S3Storage, folder: Path, tmp_path: Path
) -> None:
    repository = initialise_repository(storage, (PASSPHRASE, KEY_FILE))
    first = back_up(repository, folder, "run-1")
    before = {info.name: (info.size_bytes, info.last_modified) for info in storage.list("")}
    tree = describe(folder)
    plan = rotate_epoch(repository)
    assert (plan.epoch, len(plan.receivers), plan.left_out, plan.refusal) == (2, 2, [], None)
    after = {info.name: (info.size_bytes, info.last_modified) for info in storage.list("")}
    assert after.keys() - before.keys() == {f"keys/{repository.repository_id}/epochs/00002.json"}
    assert {name: after[name] for name in before} == before
    assert set(epochs_of(storage).values()) == {1}

    late = add_slot(repository, OTHER)
    (folder / "two.bin").write_bytes(os.urandom(90_000))
    second = back_up(open_repository(storage, KEY_FILE), folder, "run-2", "incremental")
    assert rotate_epoch(open_repository(storage, PASSPHRASE)).epoch == 3
    (folder / "three.bin").write_bytes(os.urandom(80_000))
    third = back_up(open_repository(storage, PASSPHRASE), folder, "run-3", "incremental")
    epochs = epochs_of(storage)
    assert {epochs[name] for name in before if name in epochs} == {1}
    assert set(epochs.values()) == {1, 2, 3}
    secrets: list[keys.Secret] = [PASSPHRASE, KEY_FILE, OTHER]
    for number, secret in enumerate(secrets):
        opened = open_repository(storage, secret)
        assert (opened.ring.current, sorted(opened.ring.epochs)) == (3, [1, 2, 3])
        assert restored(opened, first.snapshot_id, tmp_path / f"{number}-1") == tree
        restore_snapshot(opened, second.snapshot_id, tmp_path / f"{number}-2")
        assert restored(opened, third.snapshot_id, tmp_path / f"{number}-3") == describe(folder)
        assert verify_repository(opened, level="full").ok
    assert {slot.reads_to for slot in read_keys(repository).slots} == {3}
    assert late in {slot.slot for slot in read_keys(repository).slots}


def test_a_slot_that_was_removed_before_cannot_read_the_new_epoch(
    storage: S3Storage, folder: Path, tmp_path: Path
) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    slot = add_slot(repository, OTHER)
    old = storage.get(name_of(repository, slot), limit_bytes=1 << 20)
    first = back_up(repository, folder, "run-1")
    assert remove_slot(repository, slot, PASSPHRASE) == Removed(1)
    with pytest.raises(WrongKeyError):
        open_repository(storage, OTHER)
    rotate_epoch(repository)
    (folder / "secret.bin").write_bytes(os.urandom(200_000))
    second = back_up(open_repository(storage, PASSPHRASE), folder, "run-2")

    storage.put(name_of(repository, slot), old)  # whoever has kept a copy puts it back
    replayed = open_repository(storage, OTHER)
    assert sorted(replayed.ring.epochs) == [1]
    records = replayed.refresh().snapshots
    assert read_manifest(replayed, records[first.snapshot_id])["run_key"] == "run-1"
    with pytest.raises(WrongKeyError, match="was left out of epoch 2"):
        read_manifest(replayed, records[second.snapshot_id])
    with pytest.raises(WrongKeyError, match=f"key slot {slot} was left out of epoch 2"):
        restore_snapshot(replayed, second.snapshot_id, tmp_path / "second")
    assert not (tmp_path / "second" / "secret.bin").exists()
    with pytest.raises(WrongKeyError, match="nothing is written under epoch 1 any more"):
        replayed.seal("M", "snapshots/other/one", b"{}")
    current = open_repository(storage, PASSPHRASE)
    states = {state.slot: state.reads_to for state in read_keys(current).slots}
    assert states == {slot: 1, slot_by(storage, PASSPHRASE): 2}
    plan = rotate_epoch(current)  # and later epochs pass it by
    assert [(state.slot, state.reads_to) for state in plan.left_out] == [(slot, 1)]
    assert sorted(open_repository(storage, OTHER).ring.epochs) == [1]


def test_a_forged_slot_gets_no_later_epoch(storage: S3Storage) -> None:
    """Who was left out knows the root and the first epoch: enough for a slot of then, not for one of now."""
    repository = initialise_repository(storage, PASSPHRASE)
    outsider = open_repository(storage, PASSPHRASE).ring
    rotate_epoch(repository)
    assert sorted(outsider.epochs) == [1]
    keys.write_slot(storage, repository.repository_id, outsider, OTHER)
    honest = open_repository(storage, PASSPHRASE)
    assert [state.slot for state in plan_rotation(honest).left_out] == [slot_by(storage, OTHER)]
    (name,) = [name_of(repository, state.slot) for state in plan_rotation(honest).left_out]
    content = json.loads(storage.get(name, limit_bytes=1 << 20)) | {"epoch": 2}
    storage.put(name, json.dumps(content, indent=1).encode())
    assert "MAC does not fit" in (plan_rotation(honest).refusal or "")


def test_a_writer_that_is_at_work_goes_on_and_a_reader_learns_of_the_new_epoch_once(
    seaweedfs: SeaweedFS, storage: S3Storage, folder: Path, tmp_path: Path
) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    writer = open_repository(storage, PASSPHRASE)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        remote = S3Storage(client_of(seaweedfs, proxy.endpoint_url), storage.bucket, storage.prefix)
        reader = open_repository(remote, PASSPHRASE)
        rotate_epoch(repository)
        old = back_up(writer, folder, "run-1")
        assert set(epochs_of(storage).values()) == {1}
        new = back_up(open_repository(storage, PASSPHRASE), folder, "run-2", component="other")
        with proxy.faults(None) as requests:
            reader.refresh()
            assert restored(reader, new.snapshot_id, tmp_path / "new") == describe(folder)
            assert restored(reader, old.snapshot_id, tmp_path / "old") == describe(folder)
        below = f"keys/{repository.repository_id}/"
        assert [request.place for request in requests if request.name.startswith("keys/")] == [
            f"ListObjectsV2 {below}",
            f"GetObject {below}epochs/00002.json",
        ]
    assert reader.ring.current == 1


def test_of_two_rotations_at_once_one_wins(storage: S3Storage) -> None:
    initialise_repository(storage, PASSPHRASE)
    both = [open_repository(storage, PASSPHRASE) for _ in range(2)]
    barrier = threading.Barrier(2)
    honest = S3Storage.claim

    class Meeting(S3Storage):
        def claim(self, name: str, data: bytes) -> bool:
            barrier.wait(30)
            return honest(self, name, data)

    for repository in both:
        repository.storage = Meeting(storage.client, storage.bucket, storage.prefix)

    def rotate(repository: Repository) -> str:
        try:
            return f"made {rotate_epoch(repository).epoch}"
        except KeySlotError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(rotate, both))
    assert said == ["another rotation made epoch 2 at the same time; this one made none", "made 2"]
    assert open_repository(storage, PASSPHRASE).ring.current == 2


def test_a_slot_that_is_added_during_a_rotation_is_in_it(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)

    class Slow(S3Storage):
        """Somebody rotates just before the new slot is written."""

        def claim(self, name: str, data: bytes) -> bool:
            if self.is_early:
                self.is_early = False
                rotate_epoch(open_repository(storage, PASSPHRASE))
            return super().claim(name, data)

        is_early = True

    repository.storage = Slow(storage.client, storage.bucket, storage.prefix)
    slot = add_slot(repository, OTHER)
    assert open_repository(storage, OTHER).ring.current == 2
    assert sorted(slots_of(repository)) == sorted([slot, slot_by(storage, PASSPHRASE)])


# -- slots of earlier versions --------------------------------------------------------------------------


def old_slot(storage: S3Storage, repository: Repository, passphrase: str) -> str:
    """A slot as versions wrote it that knew of no epochs."""
    slot, ring = uuid.uuid4().hex, repository.ring
    kdf = {"name": "scrypt", "salt": base64.b64encode(os.urandom(16)).decode(), "n": 2, "r": 1, "p": 1}
    nonce = os.urandom(12)
    kek = AESGCM(keys._passphrase_key(passphrase, kdf))
    aad = f"fastvlm-ops/1/key-slot/{repository.repository_id}/{slot}".encode()
    content: dict[str, Any] = {
        "format": 1,
        "slot": slot,
        "kind": "passphrase",
        "created": "2026-01-01T00:00:00+00:00",
        "kdf": kdf,
        "nonce": base64.b64encode(nonce).decode(),
        "key_ring": base64.b64encode(kek.encrypt(nonce, ring.to_json(), aad)).decode(),
    }
    content["mac"] = keys._slot_mac(content, ring)
    storage.put(name_of(repository, slot), json.dumps(content, indent=1).encode())
    return slot


def test_slots_of_earlier_versions_open_and_are_renewed_before_a_rotation(
    storage: S3Storage, folder: Path, tmp_path: Path
) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    slots = [old_slot(storage, repository, OTHER), old_slot(storage, repository, "of a third person")]
    old = open_repository(storage, OTHER)
    snapshot = back_up(old, folder, "run-1")
    assert verify_repository(old, level="log").ok
    with pytest.raises(KeySlotError, match="has no exchange key; renew it") as caught:
        rotate_epoch(repository)
    assert all(slot in str(caught.value) for slot in slots)
    renewed = add_slot(old, OTHER, renew=True)
    assert remove_slot(old, slots[0], OTHER) == Removed(1)
    with pytest.raises(KeySlotError) as caught:
        rotate_epoch(repository)
    assert slots[0] not in str(caught.value)
    assert slots[1] in str(caught.value)
    plan = rotate_epoch(repository, without=[slots[1][:8]])
    assert [slot.slot for slot in plan.left_out] == [slots[1]]
    assert slot_by(storage, OTHER) == renewed
    assert open_repository(storage, OTHER).ring.current == 2
    left_out = open_repository(storage, "of a third person")  # reads what it could read before
    assert restored(left_out, snapshot.snapshot_id, tmp_path / "target") == describe(folder)


# -- removing -----------------------------------------------------------------------------------------


def test_the_last_slot_that_works_stays(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    mine = slot_by(storage, PASSPHRASE)
    with pytest.raises(KeySlotError, match="it is in use"):
        plan_removal(repository, mine, PASSPHRASE)
    other = add_slot(repository, KEY_FILE)
    with pytest.raises(KeySlotError, match="it is in use"):  # that another one is there proves nothing
        remove_slot(repository, mine, PASSPHRASE)
    with pytest.raises(KeySlotError, match="it is in use"):
        remove_slot(repository, mine, (PASSPHRASE, "not that either"))
    with pytest.raises(KeySlotError, match="0 key slots begin with 'nothing'"):
        remove_slot(repository, "nothing", PASSPHRASE)
    with pytest.raises(KeySlotError, match="0 key slots begin with ''"):
        remove_slot(repository, "", PASSPHRASE)
    assert sorted(slots_of(repository)) == sorted([mine, other])
    assert remove_slot(repository, mine, (PASSPHRASE, KEY_FILE)) == Removed(1)
    assert slots_of(repository) == [other]
    with pytest.raises(WrongKeyError):
        open_repository(storage, PASSPHRASE)


def test_a_slot_that_was_left_out_does_not_count_as_another_that_works(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    other = add_slot(repository, OTHER)
    rotate_epoch(repository, without=[other])
    with pytest.raises(KeySlotError, match="it is in use"):
        remove_slot(open_repository(storage, PASSPHRASE), slot_by(storage, PASSPHRASE), (PASSPHRASE, OTHER))
    assert remove_slot(repository, other, PASSPHRASE) == Removed(1)


def test_a_damaged_slot_can_be_removed(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    name = name_of(repository, add_slot(repository, OTHER))
    storage.put(name, b"{}")
    (damaged,) = [state for state in read_keys(repository).slots if state.problem]
    assert name in (plan_rotation(repository).refusal or "")
    remove_slot(repository, damaged.slot, PASSPHRASE)
    assert plan_rotation(repository).refusal is None


def test_of_two_removals_at_once_one_is_undone_when_no_slot_would_be_left(storage: S3Storage) -> None:
    repository = initialise_repository(storage, PASSPHRASE)
    other = add_slot(repository, OTHER)
    mine = slot_by(storage, PASSPHRASE)

    class Slow(S3Storage):
        """Somebody else removes the slot that ours relies on, just before."""

        def remove(self, name: str) -> Removed | Locked:
            storage.remove(name_of(repository, mine))
            return super().remove(name)

    repository.storage = Slow(storage.client, storage.bucket, storage.prefix)
    with pytest.raises(KeySlotError, match="was put back"):
        remove_slot(repository, other, PASSPHRASE)
    assert open_repository(storage, OTHER).ring == repository.ring


def test_a_locked_slot_stays_until_it_is_free_and_is_left_out_meanwhile(s3_client: S3Client) -> None:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    storage = S3Storage(s3_client, bucket, "kit", ObjectPolicy("GOVERNANCE", 2))
    repository = initialise_repository(storage, PASSPHRASE)
    slot = add_slot(repository, OTHER)
    result = remove_slot(repository, slot, PASSPHRASE)
    assert isinstance(result, Locked)
    assert result.until is not None
    assert timedelta(days=1, hours=23) < result.until - datetime.now(UTC) < timedelta(days=2, minutes=5)
    assert open_repository(storage, OTHER).ring.current == 1, "it still opens"
    plan = rotate_epoch(repository, without=[slot])
    assert [left.slot for left in plan.left_out] == [slot]
    assert sorted(open_repository(storage, OTHER).ring.epochs) == [1]
    assert sorted(open_repository(storage, PASSPHRASE).ring.epochs) == [1, 2]


# -- whatever stops it --------------------------------------------------------------------------------


def add(repository: Repository) -> None:
    add_slot(repository, KEY_FILE)


def remove(repository: Repository) -> None:
    (other,) = [slot for slot in slots_of(repository) if slot != slot_by(repository.storage, PASSPHRASE)]
    remove_slot(repository, other, PASSPHRASE)


def rotate(repository: Repository) -> None:
    rotate_epoch(repository)


WRITING = ("PutObject", "DeleteObject")


@pytest.mark.parametrize("action", [add, remove, rotate], ids=lambda action: action.__name__)
def test_stopped_at_any_request_it_leaves_a_repository_that_opens(
    action: Callable[[Repository], None], seaweedfs: SeaweedFS, s3_client: S3Client, bucket: str, folder: Path
) -> None:
    def begin(number: int) -> S3Storage:
        storage = S3Storage(s3_client, bucket, f"{action.__name__}-{number}")
        add_slot(initialise_repository(storage, PASSPHRASE), OTHER)
        return storage

    with FaultProxy(seaweedfs.endpoint_url, "") as proxy:
        client = client_of(seaweedfs, proxy.endpoint_url, attempts=1)

        def run(storage: S3Storage, rule: Callable[[Request], Fault | None] | None) -> list[Request]:
            proxy.prefix = storage.prefix
            remote = S3Storage(client, bucket, storage.prefix)
            repository = Repository(remote, ring_of(storage), config_of(storage))
            with proxy.faults(rule) as requests:
                action(repository)
            return list(requests)

        # What only reads changes nothing, so stopping there is as stopping at what is written next, or
        # after all of it.
        assert [request.operation in WRITING for request in run(begin(0), None)].count(True) == 1
        for number, (fault, is_after) in enumerate([(drop, False), (lose_answer, False), (drop, True)], 1):
            storage = begin(number)
            before = back_up(open_repository(storage, PASSPHRASE), folder, "run-1")
            with pytest.raises(StorageError):
                run(storage, at_the_write(fault, is_after=is_after))
            opened = open_repository(storage, PASSPHRASE)
            assert is_done(action, opened) == (fault is lose_answer or is_after)
            assert verify_repository(opened, level="full").ok
            assert back_up(opened, folder, "run-2", "incremental").parent == before.snapshot_id
            if not is_done(action, opened):
                action(opened)
            assert is_done(action, open_repository(storage, PASSPHRASE))


def at_the_write(fault: Fault, *, is_after: bool) -> Callable[[Request], Fault | None]:
    """A fault for the request that writes, or for the one after it."""
    written = False

    def rule(request: Request) -> Fault | None:
        nonlocal written
        is_it = written if is_after else request.operation in WRITING
        written = written or request.operation in WRITING
        return fault if is_it else None

    return rule


def is_done(action: Callable[[Repository], None], repository: Repository) -> bool:
    kinds = sorted(slot.kind for slot in read_keys(repository).slots)
    if action is add:
        return "key-file" in kinds
    return len(kinds) == 1 if action is remove else repository.ring.current >= 2


def ring_of(storage: S3Storage) -> keys.KeyRing:
    return open_repository(storage, PASSPHRASE).ring


def config_of(storage: S3Storage) -> bytes:
    return storage.get("config.json", limit_bytes=1 << 20)


# -- what verifying finds -----------------------------------------------------------------------------


@pytest.fixture
def rotated(storage: S3Storage, folder: Path) -> Repository:
    """Two slots and two epochs, opened by the first slot."""
    repository = initialise_repository(storage, PASSPHRASE)
    add_slot(repository, KEY_FILE)
    rotate_epoch(repository)
    repository = open_repository(storage, PASSPHRASE)
    back_up(repository, folder, "run-1")
    return repository


def problems(repository: Repository) -> dict[str, str]:
    result = verify_repository(repository, level="log")
    assert result.ok == (not result.problems)
    return {problem.object: problem.what for problem in result.problems}


def test_verifying_finds_a_slot_of_another_secret_that_was_changed(
    rotated: Repository, storage: S3Storage
) -> None:
    assert problems(rotated) == {}
    name = name_of(rotated, slot_by(storage, KEY_FILE))
    content = json.loads(storage.get(name, limit_bytes=1 << 20))
    content["exchange_key"] = base64.b64encode(os.urandom(32)).decode()
    storage.put(name, json.dumps(content, indent=1).encode())
    assert "MAC does not fit" in problems(rotated)[name]
    assert "MAC does not fit" in (plan_rotation(rotated).refusal or "")


def test_verifying_finds_an_epoch_that_was_changed_or_is_missing(
    rotated: Repository, storage: S3Storage, folder: Path
) -> None:
    name = f"keys/{rotated.repository_id}/epochs/00002.json"
    whole = storage.get(name, limit_bytes=1 << 20)
    storage.put(name, whole.replace(b'"created":"2', b'"created":"3'))
    assert "MAC does not fit" in problems(rotated)[name]
    opened = open_repository(storage, PASSPHRASE)  # what was stored before can be read
    assert problems(opened)[name] == problems(rotated)[name]
    assert not verify_repository(opened, level="full").ok
    with pytest.raises(CorruptionError, match="nothing is written under epoch 1 any more"):
        back_up(opened, folder, "run-2", component="other")
    storage.delete(name)
    assert "is missing" in problems(rotated)[name]
    storage.put(name, whole)
    assert problems(rotated) == {}
    storage.put(f"keys/{rotated.repository_id}/epochs/3.json", whole)
    assert "is not the name of an epoch" in str(problems(rotated))


def test_an_epoch_that_nobody_made_is_refused(rotated: Repository, storage: S3Storage) -> None:
    """Without the key of the epoch before, none can be made."""
    name = f"keys/{rotated.repository_id}/epochs/00003.json"
    storage.put(name, storage.get(name.replace("00003", "00002"), limit_bytes=1 << 20))
    assert "damaged or was forged" in problems(rotated)[name]
    assert isinstance(open_repository(storage, PASSPHRASE).ring.missing[3], CorruptionError)
