"""Verifying what says which snapshots exist: configuration, key slots, commit log, manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.core.backup.commit_log import CHECKPOINT_EVERY, LogState, entry_name
from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.key_slots import read_keys
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.repository import CONFIG_NAME, Repository
from fastvlm_ops.core.backup.sealing import verify_line
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.verify_packs import in_parallel
from fastvlm_ops.core.backup.verify_result import Findings

_SMALL_LIMIT_BYTES = 1 << 20
_ENTRY_LIMIT_BYTES = 64 << 20
_MANIFEST_LIMIT_BYTES = 64 << 20
_READERS = 8

MALFORMED = (CorruptionError, ValueError, KeyError, TypeError, AttributeError)


def check_configuration(repository: Repository, findings: Findings) -> None:
    """``config.json``, every key slot, also those that another secret opens, and every epoch."""
    storage, ring = repository.storage, repository.ring
    try:
        data = storage.get(CONFIG_NAME, limit_bytes=_SMALL_LIMIT_BYTES)
        if verify_line(data, ring.log_key, CONFIG_NAME) != repository.config:
            raise CorruptionError("is another configuration than the one this repository was opened with")
    except (CorruptionError, ObjectNotFoundError) as error:
        findings.problem(CONFIG_NAME, str(error), blocks=True)
    state = read_keys(repository)
    whole = sum(not slot.problem for slot in state.slots)
    below = f"keys/{repository.repository_id}/"
    for name, what in state.problems.items():
        findings.problem(name, what, blocks=not whole and not name.startswith(f"{below}epochs/"))
    if not state.slots:
        findings.problem(below, "there is no key slot", blocks=True)


@dataclass
class _Chain:
    """The log as it is read from its first entry. ``whole`` until an entry is missing or damaged."""

    findings: Findings
    blocks_from: int
    state: LogState = field(default_factory=LogState)
    whole: bool = True

    def problem(self, seq: int, name: str, what: str) -> None:
        blocks = seq >= self.blocks_from
        if blocks:
            what += "; no snapshot can be opened until it is put back as it was"
        self.findings.problem(name, what, blocks=blocks)
        self.whole = False

    def add(self, seq: int, name: str, data: bytes, key: bytes) -> None:
        """:raises CorruptionError: or another of ``MALFORMED``, when the entry cannot be understood."""
        entry = verify_line(data, key, name)
        if entry["seq"] != seq:
            raise CorruptionError(f"{name} holds entry {entry['seq']}")
        if entry["prev"] != self.state.digest and self.state.seq == seq - 1:
            self.problem(seq, name, f"{name} does not follow the entry before it")
        if (entry["type"] == "checkpoint") != (seq % CHECKPOINT_EVERY == 0):
            self.problem(seq, name, f"{name} is a {entry['type']} entry at the place of another type")
        before = self.state.checkpoint() if entry["type"] == "checkpoint" and self.whole else None
        self.state.fold(entry, hashlib.sha256(data).hexdigest())
        if entry["type"] == "checkpoint":
            if before is not None and _ordered(before) != _ordered(self.state.checkpoint()):
                self.problem(seq, name, f"{name} does not say what the entries before it amount to")
            self.whole = True


def _ordered(checkpoint: dict[str, Any]) -> list[Any]:
    """Comparable together with the order of snapshots and sets, which decides what is the latest."""
    return [list(checkpoint["snapshots"].items()), list(checkpoint["sets"].items()), checkpoint["condemned"]]


def check_log(repository: Repository, findings: Findings) -> LogState:
    """Every entry from the first: MAC, chain, and that checkpoints are what folding gives.

    Goes on after a damaged entry; what that entry said is unknown then, up to the next checkpoint.
    """
    storage, key = repository.storage, repository.ring.log_key
    known = repository.log.state.seq
    names = sorted(info.name for info in storage.list("log/"))
    chain = _Chain(findings, len(names) // CHECKPOINT_EVERY * CHECKPOINT_EVERY)
    expected = 1
    for name, data in in_parallel(_READERS, lambda name: _get(storage, name), iter(names)):
        seq = _seq_of(name)
        if seq is None or seq < expected:
            chain.problem(expected, name, f"{name} is not an entry of the log")
            continue
        if seq > expected:
            what = (
                f"is missing from the log, {seq - expected} entries" if seq - expected > 1 else "is missing"
            )
            findings.problem(entry_name(expected), what, blocks=True)
            chain.whole = False
        expected = seq + 1
        if isinstance(data, Exception):
            chain.problem(seq, name, str(data))
            continue
        try:
            chain.add(seq, name, data, key)
        except MALFORMED as error:
            chain.problem(seq, name, f"{error}")
    if known >= expected:
        what = f"is missing: this repository was opened with a log of {known} entries"
        findings.problem(entry_name(expected), what, blocks=True)
    return chain.state


def _seq_of(name: str) -> int | None:
    digits = name.removeprefix("log/").removesuffix(".json")
    return int(digits) if digits.isdecimal() and entry_name(int(digits)) == name else None


def _get(storage: S3Storage, name: str) -> bytes | Exception:
    try:
        return storage.get(name, limit_bytes=_ENTRY_LIMIT_BYTES)
    except (CorruptionError, ObjectNotFoundError) as error:
        return error


def read_manifests(
    repository: Repository, records: list[dict[str, Any]], findings: Findings
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each snapshot's record with its manifest, None for one that is damaged, which has been noted."""

    def read(record: dict[str, Any]) -> dict[str, Any] | Exception:
        try:
            manifest = read_manifest(repository, record)
            totals = manifest["totals"]
            return {
                "snapshot_id": manifest["snapshot_id"],
                "tree": manifest["tree"],
                "totals": {name: int(totals[name]) for name in ("files", "size_bytes")},
            }
        except MALFORMED as error:
            return error

    for record, manifest in in_parallel(_READERS, read, iter(records)):
        if isinstance(manifest, Exception):
            findings.problem(record["manifest"], str(manifest))
            yield record, None
        else:
            yield record, manifest


def check_other_manifests(repository: Repository, used: set[str], findings: Findings) -> None:
    """Manifests that no live snapshot has: forgotten, or left by a run that was stopped before its commit."""

    def read(name: str) -> str | None:
        try:
            data = repository.storage.get(name, limit_bytes=_MANIFEST_LIMIT_BYTES)
            repository.unseal("M", name, data, limit_bytes=_MANIFEST_LIMIT_BYTES)
        except ObjectNotFoundError:  # removed since it was listed
            return None
        except CorruptionError as error:
            return str(error)
        return None

    names = (info.name for info in repository.storage.list("snapshots/") if info.name not in used)
    for name, what in in_parallel(_READERS, read, names):
        if what is not None:
            findings.problem(name, what, needed=False)
