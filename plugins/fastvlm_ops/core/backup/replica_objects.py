"""Copying objects to the second place: what is missing there, each authenticated on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.storage import ObjectInfo, S3Storage
from fastvlm_ops.core.backup.verify_packs import in_parallel
from fastvlm_ops.core.backup.verify_result import Share

_WORKERS = 4  # each holds one object
_OBJECT_LIMIT_BYTES = (1 << 30) + (1 << 20)  # WAL segments may be of 1 GiB
_SEALED = {"index": "I", "snapshots": "M", "wal": "W"}

Why = Literal["missing", "size", "share"]
Did = Literal["copied", "repaired", "fine", "unchecked", "gone", "damaged"]


class Job(NamedTuple):
    """An object of the first place, and why it is looked at: missing, of another size, its share's turn."""

    info: ObjectInfo
    why: Why


class Outcome(NamedTuple):
    """What became of it; ``what`` is wrong with it where it is damaged."""

    did: Did
    what: str = ""


@dataclass
class Copied:
    """What all copying amounts to: counts, bytes, names of what was repaired, is gone or damaged.

    ``extra`` names what only the second place has, where it was asked for; ``extra_objects`` counts it.
    """

    objects: int = 0
    size_bytes: int = 0
    present: int = 0
    checked: int = 0
    unchecked: int = 0
    extra_objects: int = 0
    repaired: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    extra: set[str] = field(default_factory=set)


class ObjectCopier:
    """Copies what lies below one prefix after the other.

    :param share: of the objects that are there already, those whose checksums are compared
    :param want_extra: also name what only the second place has
    """

    def __init__(
        self,
        repository: Repository,
        target: S3Storage,
        share: Share | None,
        meter: ProgressMeter,
        *,
        want_extra: bool,
    ) -> None:
        self._repository = repository
        self._source = repository.storage
        self._target = target
        self._share = share
        self._meter = meter
        self._want_extra = want_extra
        self.copied = Copied()

    def copy(
        self,
        prefix: str,
        skip: Collection[str],
        manifests: dict[str, str],
        *,
        listed: Iterable[ObjectInfo] | None = None,
        again: bool = False,
    ) -> set[str]:
        """Copy what the second place lacks of a prefix.

        :param skip: condemned: such an object counts as gone in both places
        :param manifests: SHA-256 of those that the log names
        :param listed: what the first place has below the prefix, where it was listed before
        :param again: this prefix was copied before: what is there is not counted or checked a second time
        :returns: what was listed and is gone by now
        """
        gone: set[str] = set()
        ours = self._source.list(prefix) if listed is None else listed
        jobs = self._jobs(iter(ours), self._target.list(prefix), skip, again)
        for job, outcome in in_parallel(_WORKERS, lambda job: self._do(job, manifests), jobs):
            name = job.info.name
            self._count(job.info, outcome)
            if outcome.did == "gone":
                gone.add(name)
            elif outcome.did == "damaged":
                self.copied.damaged[name] = outcome.what
        self.copied.gone |= gone
        return gone

    def _count(self, info: ObjectInfo, outcome: Outcome) -> None:
        copied = self.copied
        if outcome.did in ("copied", "repaired"):
            copied.objects += 1
            copied.size_bytes += info.size_bytes
            self._meter.add(files=1, read_bytes=info.size_bytes, transferred_bytes=info.size_bytes)
        if outcome.did == "repaired":
            copied.repaired.append(info.name)
        elif outcome.did == "fine":
            copied.checked += 1
        elif outcome.did == "unchecked":
            copied.unchecked += 1

    def _jobs(
        self,
        source: Iterator[ObjectInfo],
        target: Iterator[ObjectInfo],
        skip: Collection[str],
        again: bool,
    ) -> Iterator[Job]:
        """Both listings side by side, as they come: neither is held as a whole."""
        for ours, theirs in side_by_side(source, target):
            if ours is None:
                assert theirs is not None  # noqa: S101 - one of the two is there
                self.copied.extra_objects += not again
                if self._want_extra:
                    self.copied.extra.add(theirs.name)
            elif ours.name in skip or ours.name in self.copied.damaged:
                continue
            elif theirs is None:
                yield Job(ours, "missing")
            elif theirs.size_bytes != ours.size_bytes:
                yield Job(ours, "size")
            elif not again:
                self.copied.present += 1
                if self._share is not None and in_share_by_name(ours.name, self._share):
                    yield Job(ours, "share")

    def _do(self, job: Job, manifests: dict[str, str]) -> Outcome:
        name = job.info.name
        if job.why == "share":
            outcome = self._compare(name)
            if outcome is not None:
                return outcome
        try:
            data = self._source.get(name, limit_bytes=_OBJECT_LIMIT_BYTES)
            digest = authenticate(self._repository, name, data, manifests.get(name))
        except ObjectNotFoundError:
            return Outcome("gone")
        except CorruptionError as error:
            return Outcome("damaged", str(error))
        self._target.put(name, data, digest)
        return Outcome("copied" if job.why == "missing" else "repaired")

    def _compare(self, name: str) -> Outcome | None:
        """By the checksums that the endpoints keep; None where they differ."""
        try:
            theirs = self._target.head(name).sha256
            ours = name.rpartition("/")[2] if _is_pack(name) else self._source.head(name).sha256
        except ObjectNotFoundError:
            return None
        if theirs is None or ours is None:
            return Outcome("unchecked")
        return Outcome("fine") if theirs == ours else None


def authenticate(repository: Repository, name: str, data: bytes, sha256: str | None = None) -> bytes:
    """Check that an object is what was stored under its name; returns its SHA-256.

    A pack's name is its SHA-256. The log has that of each manifest it names; what it does not name, index
    segments and WAL are sealed: their tag covers every byte, and their name.

    :param sha256: that the log has of it
    :raises CorruptionError: it is damaged, or another object under this name
    """
    digest = hashlib.sha256(data)
    expected = name.rpartition("/")[2] if _is_pack(name) else sha256
    if expected is None:
        kind = _SEALED[name.partition("/")[0]]
        repository.unseal(kind, name, data, limit_bytes=_OBJECT_LIMIT_BYTES)
    elif digest.hexdigest() != expected:
        raise CorruptionError(f"{name} does not have the bytes that it was stored with")
    return digest.digest()


def side_by_side(
    ours: Iterator[ObjectInfo], theirs: Iterator[ObjectInfo]
) -> Iterator[tuple[ObjectInfo | None, ObjectInfo | None]]:
    """Pairs of equal names of two sorted listings; what only one has, with None for the other."""
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.name < right.name):
            yield left, None
            left = next(ours, None)
        elif left is None or right.name < left.name:
            yield None, right
            right = next(theirs, None)
        else:
            yield left, right
            left, right = next(ours, None), next(theirs, None)


def in_share_by_name(name: str, share: Share) -> bool:
    """Whether an object falls into a share; by its name, so that each does once in as many runs."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    return number % share[1] == share[0]


def _is_pack(name: str) -> bool:
    return name.startswith("packs/")
