"""Looking after the keys of a repository: which slots there are, adding, removing, rotating.

Every change is one request, so whatever stops it leaves the keys as they were before it or after it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from fastvlm_ops.core.backup.errors import (
    CorruptionError,
    KeySlotError,
    ObjectNotFoundError,
    WrongKeyError,
)
from fastvlm_ops.core.backup.key_epochs import (
    EPOCH_LIMIT_BYTES,
    LAST_EPOCH,
    Epoch,
    epoch_name,
    epoch_of,
    list_keys,
    read_epoch,
    reload_epochs,
    seal_epoch,
)
from fastvlm_ops.core.backup.keys import (
    FIRST_EPOCH,
    SLOT_LIMIT_BYTES,
    KeyRing,
    KeySlot,
    Secret,
    Secrets,
    open_slot,
    secrets_of,
    slot_name,
    verify_slot,
    write_slot,
)
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.versions import Locked, Removed

LABEL_LENGTH = 64
_ATTEMPTS = 3


@dataclass(frozen=True)
class SlotState:
    """A slot, and what it is good for.

    :param reads_to: the last epoch that it can read; 0 where that cannot be told
    :param is_in_use: whether this repository was opened by it
    :param has_exchange_key: whether a new epoch can be sealed for it
    :param problem: what is wrong with it; empty when nothing is
    """

    slot: str
    kind: str
    created: str
    label: str
    reads_to: int
    is_in_use: bool
    has_exchange_key: bool
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"{self.slot} ({self.kind}{label}, {self.created or 'unreadable'})"


@dataclass(frozen=True)
class KeyState:
    """What lies below ``keys/``. ``problems``: what is wrong, by the object's name."""

    slots: list[SlotState]
    newest_epoch: int
    problems: dict[str, str]
    exchange_keys: dict[str, bytes]


@dataclass(frozen=True)
class RotationPlan:
    """A new epoch, and who gets its key.

    :param left_out: slots that do not get it: asked for, or left out of an epoch before this one
    :param refusal: why it cannot be made; None when it can
    """

    epoch: int
    receivers: list[SlotState]
    left_out: list[SlotState]
    refusal: str | None


def read_keys(repository: Repository) -> KeyState:
    """Every slot and epoch, verified by their MACs: also those that other secrets open."""
    storage, ring = repository.storage, repository.ring
    reload_epochs(storage, repository.repository_id, ring)
    names, epoch_names = list_keys(storage, repository.repository_id)
    problems: dict[str, str] = {}
    epochs = _read_epochs(storage, ring, epoch_names, problems)
    slots: dict[str, KeySlot] = {}
    for name in names:
        try:
            slots[name] = verify_slot(storage.get(name, limit_bytes=SLOT_LIMIT_BYTES), ring, name)
        except (CorruptionError, ObjectNotFoundError) as error:
            problems[name] = str(error)
    known = [slot.epoch or FIRST_EPOCH for slot in slots.values()]
    newest = max([FIRST_EPOCH, *ring.epochs, *known, *map(_number, epoch_names)])
    for number in range(FIRST_EPOCH + 1, newest + 1):
        name = epoch_name(repository.repository_id, number)
        if name not in epoch_names:
            problems[name] = f"{name} is missing: slots that do not hold epoch {number} cannot read it"
    in_use = ring.opened.slot if ring.opened else ""
    states = [_state(name, slots.get(name), epochs, problems.get(name, ""), in_use) for name in names]
    states.sort(key=lambda state: (state.created, state.slot))
    keys = {slot.slot: slot.exchange_key for slot in slots.values() if slot.exchange_key is not None}
    return KeyState(states, newest, problems, keys)


def _number(name: str) -> int:
    return epoch_of(name) or 0


def _read_epochs(
    storage: S3Storage, ring: KeyRing, names: list[str], problems: dict[str, str]
) -> dict[int, Epoch]:
    epochs: dict[int, Epoch] = {}
    for name in names:
        try:
            epoch = read_epoch(storage.get(name, limit_bytes=EPOCH_LIMIT_BYTES), name, ring)
            epochs[epoch.number] = epoch
        except (CorruptionError, ObjectNotFoundError) as error:
            problems[name] = str(error)
    return epochs


def _state(name: str, slot: KeySlot | None, epochs: dict[int, Epoch], problem: str, in_use: str) -> SlotState:
    if slot is None:
        slot_id = name.rpartition("/")[2].removesuffix(".json")
        return SlotState(slot_id, "unknown", "", "", 0, slot_id == in_use, False, problem)
    reads_to = slot.epoch or FIRST_EPOCH
    while reads_to + 1 in epochs and slot.slot in epochs[reads_to + 1].sealed:
        reads_to += 1
    return SlotState(
        slot.slot,
        slot.kind,
        slot.created,
        slot.label,
        reads_to,
        slot.slot == in_use,
        slot.exchange_key is not None,
    )


def find_slot(state: KeyState, wanted: str) -> SlotState:
    """The slot with this id, or with one that begins like this.

    :raises KeySlotError: there is none, or there are several.
    """
    found = [slot for slot in state.slots if wanted and slot.slot.startswith(wanted)]
    exact = [slot for slot in found if slot.slot == wanted]
    if len(exact or found) != 1:
        known = ", ".join(slot.slot for slot in state.slots)
        raise KeySlotError(f"{len(found)} key slots begin with {wanted!r}; there are: {known}")
    return (exact or found)[0]


def add_slot(repository: Repository, secret: Secret, *, label: str = "", renew: bool = False) -> str:
    """Add a slot that a secret opens, and open it on trial; returns its id.

    :param renew: whether the secret may open another slot already
    :raises KeySlotError: it does, or the label cannot be used.
    """
    storage, repository_id = repository.storage, repository.repository_id
    if len(label) > LABEL_LENGTH or not all(character.isprintable() for character in label):
        raise KeySlotError(f"a label has at most {LABEL_LENGTH} printable characters")
    present = None if renew else _opens(repository, secret, but="")
    if present is not None:
        raise KeySlotError(f"this secret opens key slot {present} already")
    for _ in range(_ATTEMPTS):
        ring = _newest_ring(repository)
        slot = write_slot(storage, repository_id, ring, secret, label=label)
        name = slot_name(repository_id, slot)
        if open_slot(name, storage.get(name, limit_bytes=SLOT_LIMIT_BYTES), repository_id, secret) is None:
            storage.remove(name)
            raise KeySlotError(f"{name} does not open by the secret that it was made for")
        if all(_number(epoch) <= ring.current for epoch in list_keys(storage, repository_id)[1]):
            return slot
        storage.remove(name)  # the key was rotated meanwhile, without this slot
    raise KeySlotError("the data key is being rotated again and again; try later")


def _newest_ring(repository: Repository) -> KeyRing:
    """The ring of a slot that is made now.

    :raises BackupError: there is an epoch that cannot be had.
    """
    reload_epochs(repository.storage, repository.repository_id, repository.ring)
    ring = dataclasses.replace(repository.ring, current=max(repository.ring.epochs))
    ring.require_newest()
    return ring


def _opens(repository: Repository, secret: Secret, *, but: str, newest: int = 0) -> str | None:
    """A slot that a secret opens, and that reads the newest epoch: its id.

    :param but: id of a slot that does not count
    """
    storage, repository_id = repository.storage, repository.repository_id
    state = read_keys(repository) if newest else None
    for name in list_keys(storage, repository_id)[0]:
        try:
            data = storage.get(name, limit_bytes=SLOT_LIMIT_BYTES)
            slot = KeySlot.parse(name, data).slot
            if slot == but or open_slot(name, data, repository_id, secret) is None:
                continue
        except (CorruptionError, ObjectNotFoundError):
            continue
        if state is None or find_slot(state, slot).reads_to >= newest:
            return slot
    return None


def plan_removal(repository: Repository, wanted: str, secrets: Secrets) -> SlotState:
    """The slot that would be removed.

    :param wanted: its id, or what it begins with
    :param secrets: those at hand: one of them has to open another slot, in the newest epoch
    :raises KeySlotError: there is no such slot, or none of the secrets opens another one.
    """
    state = read_keys(repository)
    slot = find_slot(state, wanted)
    for secret in secrets_of(secrets):
        if _opens(repository, secret, but=slot.slot, newest=state.newest_epoch) is not None:
            return slot
    use = "in use" if slot.is_in_use else "not in use"
    raise KeySlotError(
        f"key slot {slot} stays: it is {use}, and without it no secret at hand opens the repository as it is "
        "now; give the secret of another slot too, or add one"
    )


def remove_slot(repository: Repository, wanted: str, secrets: Secrets) -> Removed | Locked:
    """Remove a slot for good.

    :raises KeySlotError: as :func:`plan_removal`, or another slot was removed at the same time, so that
        none would be left: then it is put back.
    :raises AccessDeniedError: these credentials may not delete.
    """
    slot = plan_removal(repository, wanted, secrets)
    storage, name = repository.storage, slot_name(repository.repository_id, slot.slot)
    data = storage.get(name, limit_bytes=SLOT_LIMIT_BYTES)
    removed = storage.remove(name)
    if isinstance(removed, Locked):
        return removed
    if not any(_opens(repository, secret, but=slot.slot) for secret in secrets_of(secrets)):
        storage.claim(name, data)
        raise KeySlotError(
            f"key slot {slot} was put back: other slots were removed at the same time, and none was left"
        )
    return removed


def plan_rotation(repository: Repository, without: Collection[str] = ()) -> RotationPlan:
    """Say who would get the key of a new epoch.

    :param without: slots to leave out, by what their ids begin with
    :raises KeySlotError: there is no such slot.
    """
    state = read_keys(repository)
    newest = state.newest_epoch
    left_out = {find_slot(state, wanted).slot for wanted in without}
    left_out |= {slot.slot for slot in state.slots if not slot.problem and slot.reads_to < newest}
    receivers = [slot for slot in state.slots if slot.slot not in left_out]
    return RotationPlan(
        newest + 1,
        receivers,
        [slot for slot in state.slots if slot.slot in left_out],
        _refusal(repository, state, receivers),
    )


def _refusal(repository: Repository, state: KeyState, receivers: list[SlotState]) -> str | None:
    try:
        _newest_ring(repository)
    except (CorruptionError, WrongKeyError) as error:
        return str(error)
    below = f"keys/{repository.repository_id}/epochs/"
    reasons = [what for name, what in state.problems.items() if name.startswith(below)]
    reasons += [f"{slot.problem}; remove it, or leave it out" for slot in receivers if slot.problem]
    reasons += [
        f"key slot {slot} was made by an earlier version and has no exchange key; renew it by its secret "
        "(fastvlm-ops keys add --renew), or leave it out"
        for slot in receivers
        if not slot.problem and not slot.has_exchange_key
    ]
    if not any(slot.is_in_use for slot in receivers):
        reasons.append("the slot in use would be left out; open the repository by another one")
    if state.newest_epoch >= LAST_EPOCH:
        reasons.append(f"there is no epoch after {LAST_EPOCH}")
    return "; ".join(reasons) or None


def rotate_epoch(repository: Repository, without: Collection[str] = ()) -> RotationPlan:
    """Make a new epoch: what is stored from now on is sealed under a new key.

    Nothing is written again, and whoever has the repository open goes on with the epoch that it had.

    :returns: what was done; ``left_out`` also has slots that were added at the same time
    :raises KeySlotError: it cannot be made, or another rotation came first.
    """
    plan = plan_rotation(repository, without)
    if plan.refusal is not None:
        raise KeySlotError(f"the data key is not rotated: {plan.refusal}")
    storage, repository_id = repository.storage, repository.repository_id
    keys, key = read_keys(repository).exchange_keys, os.urandom(32)
    receivers = {slot.slot: keys[slot.slot] for slot in plan.receivers if slot.slot in keys}
    name = epoch_name(repository_id, plan.epoch)
    data = seal_epoch(repository.ring, repository_id, plan.epoch, key, receivers)
    # Refused is also what our own write is, tried again after its answer was lost.
    if not storage.claim(name, data) and storage.get(name, limit_bytes=EPOCH_LIMIT_BYTES) != data:
        raise KeySlotError(f"another rotation made epoch {plan.epoch} at the same time; this one made none")
    late = [slot for slot in read_keys(repository).slots if slot.slot not in receivers]
    known = {slot.slot for slot in plan.left_out}
    return dataclasses.replace(
        plan,
        receivers=[slot for slot in plan.receivers if slot.slot in receivers],
        left_out=plan.left_out + [slot for slot in late if slot.slot not in known],
    )
