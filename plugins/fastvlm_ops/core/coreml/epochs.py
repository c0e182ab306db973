"""What must be the same for two runs to be comparable.

A new system or a new compiler changes the speed of a model that nobody touched. Such a change starts a new
epoch: it has no baseline yet, so there is nothing that could have become worse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvlm_ops.core.coreml.records import RunRecord

_KEY_LENGTH = 16


@dataclass(frozen=True)
class Epoch:
    """What a run ran on.

    :param hardware_class: results of different classes are never compared
    :param device_model: as the maker names it
    :param identifier_hash: of the very device: another one of the same model is not the same
    :param os_version: ``18.1``
    :param os_build: ``22B83``
    :param toolchain: name and version of what ran the model, in order
    :param compute_unit: that Core ML was allowed to use
    """

    hardware_class: str
    device_model: str
    identifier_hash: str
    os_version: str
    os_build: str
    toolchain: tuple[tuple[str, str], ...]
    compute_unit: str

    @classmethod
    def of(cls, device: Mapping[str, Any], toolchain: Mapping[str, str], compute_unit: str) -> Epoch:
        """Return the epoch of a device as it is now.

        :param device: a :class:`Device` as JSON
        :param toolchain: of the backend
        :param compute_unit: that Core ML may use
        """
        return cls(
            hardware_class=str(device.get("hardware_class", "")),
            device_model=str(device.get("model", "")),
            identifier_hash=str(device.get("identifier_hash", "")),
            os_version=str(device.get("os_version", "")),
            os_build=str(device.get("os_build", "")),
            toolchain=tuple(sorted((str(name), str(version)) for name, version in toolchain.items())),
            compute_unit=str(compute_unit),
        )

    @property
    def key(self) -> str:
        """Short, and the same for the same epoch on every machine: 16 hex digits."""
        parts = [
            *(self.hardware_class, self.device_model, self.identifier_hash, self.os_version, self.os_build),
            *(list(pair) for pair in self.toolchain),
            self.compute_unit,
        ]
        return sha256(json.dumps(parts).encode()).hexdigest()[:_KEY_LENGTH]


def epoch_of(run: RunRecord) -> Epoch:
    """Return the epoch of a run that was recorded.

    :param run: the run
    """
    return Epoch.of(run.device, run.toolchain, run.compute_unit)


def what_changed(before: Epoch, after: Epoch) -> str:
    """Return what differs, as in ``OS 18.1 → 18.2``; empty where nothing does.

    :param before: the epoch that has a baseline
    :param after: the new one
    """
    pairs = [
        ("hardware", before.hardware_class, after.hardware_class),
        ("device", before.device_model, after.device_model),
        ("OS", *_systems(before, after)),
        ("compute unit", before.compute_unit, after.compute_unit),
    ]
    old, new = dict(before.toolchain), dict(after.toolchain)
    pairs += [(name, old.get(name, "none"), new.get(name, "none")) for name in sorted({*old, *new})]
    changes = [f"{name} {was or 'unknown'} → {now or 'unknown'}" for name, was, now in pairs if was != now]
    if before.identifier_hash != after.identifier_hash and before.device_model == after.device_model:
        changes.insert(0, f"another {after.device_model or 'device'}")
    return ", ".join(changes)


def _systems(before: Epoch, after: Epoch) -> tuple[str, str]:
    """Both systems; with their builds only where the version alone does not tell them apart."""
    if before.os_version == after.os_version and before.os_build != after.os_build:
        was, now = (f"{one.os_version} ({one.os_build or 'unknown build'})" for one in (before, after))
        return was, now
    return before.os_version, after.os_version
