"""The commit log of the second place: the first one's, entry by entry, as far as it has been copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fastvlm_ops.core.backup.commit_log import CONDEMNED, LogState, entry_name, seq_of
from fastvlm_ops.core.backup.errors import CorruptionError, DivergedError, ObjectNotFoundError
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sealing import verify_line
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.verify_packs import in_parallel

_ENTRY_LIMIT_BYTES = 64 << 20
_READERS = 4
_NO_ENTRY = "0" * 64


@dataclass(frozen=True)
class SourceEntry:
    """An entry of the first place's log, verified."""

    seq: int
    data: bytes
    content: dict[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class ReplicaLog:
    """The log of the second place beside that of the first.

    ``seq`` is the last entry that both have, ``digest`` that entry's. ``repaired`` names entries that were
    missing or damaged in the second place and have been put back.
    """

    repository: Repository
    target: S3Storage
    seq: int = 0
    digest: str = _NO_ENTRY
    repaired: list[str] = field(default_factory=list)

    def compare(self) -> None:
        """Find out how far the second place is.

        :raises DivergedError: it has an entry that the first place has not; the message names it
        :raises CorruptionError: the first place lacks an entry, or one that the second place needs is damaged
        """
        ours = self._listed(self.repository.storage)
        theirs = self._listed(self.target)
        for number, name in enumerate(ours, 1):
            if name != entry_name(number):
                missing = f"{self.repository.storage}{entry_name(number)}"
                raise CorruptionError(f"{missing} is missing from the log")
        if foreign := [name for name in theirs if name not in ours]:
            self._diverged(foreign[0])
        if not theirs:
            return
        self.seq = seq_of(max(theirs))
        suspects = {name for name in list(ours)[: self.seq] if theirs.get(name) != ours[name]}
        suspects |= self._check_last()
        for name in sorted(suspects):
            self._mend(name, name in theirs)
        self.digest = hashlib.sha256(self._get(self.target, entry_name(self.seq))).hexdigest()

    def entries(self, last: int) -> Iterator[SourceEntry | CorruptionError]:
        """The first place's entries from the one after ``seq``; ends with what is wrong with one, if any is.

        :param last: seq of the last one that is wanted
        """
        digest = self.digest
        names = (entry_name(seq) for seq in range(self.seq + 1, last + 1))
        for name, found in in_parallel(_READERS, self._read, names):
            if isinstance(found, CorruptionError):
                yield found
                return
            if found.content["prev"] != digest:
                yield CorruptionError(f"{name} does not follow the entry before it")
                return
            digest = found.digest
            yield found

    def state_at(self, last: int) -> LogState:
        """What the log says when all up to ``last`` counts, which is not before ``seq``."""
        state = self._replica_state()
        for entry in self.entries(last):
            if isinstance(entry, CorruptionError):
                raise entry
            state.fold(entry.content, entry.digest)
        return state

    def extend(self, last: int) -> Iterator[SourceEntry]:
        """Claim the entries up to ``last``, in order; yields each that the second place has from now on.

        :raises DivergedError: somebody else has claimed one
        :raises CorruptionError: an entry is damaged in the first place
        """
        for entry in self.entries(last):
            if isinstance(entry, CorruptionError):
                raise entry
            name = entry_name(entry.seq)
            # Refused is also what our own write is, tried again after its answer was lost.
            if not self.target.claim(name, entry.data) and self._get(self.target, name) != entry.data:
                self._diverged(name)
            self.seq, self.digest = entry.seq, entry.digest
            yield entry

    def condemned(self, wanted: set[str], last: int) -> set[str]:
        """Which of these names an entry up to ``last`` condemns; reads backwards until all are found."""
        left = set(wanted)
        names = (entry_name(seq) for seq in range(last if wanted else 0, 0, -1))
        for _, found in in_parallel(_READERS, self._read, names):
            if not isinstance(found, CorruptionError):
                left -= condemned_by(found.content)
            if not left:
                break
        return wanted - left

    def _replica_state(self) -> LogState:
        view = Repository(self.target, self.repository.ring, self.repository.config_line)
        return view.refresh()

    def _listed(self, storage: S3Storage) -> dict[str, int]:
        return {info.name: info.size_bytes for info in storage.list("log/")}

    def _get(self, storage: S3Storage, name: str) -> bytes:
        return storage.get(name, limit_bytes=_ENTRY_LIMIT_BYTES)

    def _read(self, name: str) -> SourceEntry | CorruptionError:
        try:
            data = self._get(self.repository.storage, name)
            content = verify_line(data, self.repository.ring.log_key, name)
            if entry_name(content["seq"]) != name:
                raise CorruptionError(f"{name} holds entry {content['seq']}")
        except CorruptionError as error:
            return error
        except ObjectNotFoundError as error:
            return CorruptionError(str(error))
        return SourceEntry(content["seq"], data, content)

    def _check_last(self) -> set[str]:
        """Compare the newest entry that is whole: as each names the one before it, it speaks for all of them.

        :returns: damaged entries behind it
        """
        damaged: set[str] = set()
        for seq in range(self.seq, 0, -1):
            name = entry_name(seq)
            try:
                theirs = self._get(self.target, name)
                verify_line(theirs, self.repository.ring.log_key, name)
            except (CorruptionError, ObjectNotFoundError):
                damaged.add(name)
                continue
            if theirs != self._get(self.repository.storage, name):
                self._diverged(self._first_other(seq))
            return damaged
        return damaged

    def _first_other(self, seq: int) -> str:
        """The first entry that differs, where the one with this seq does: equal ones follow equal ones."""
        low, high = 1, seq
        while low < high:
            middle = (low + high) // 2
            if self._is_equal(entry_name(middle)):
                low = middle + 1
            else:
                high = middle
        return entry_name(low)

    def _is_equal(self, name: str) -> bool:
        try:
            return self._get(self.target, name) == self._get(self.repository.storage, name)
        except ObjectNotFoundError:
            return False

    def _mend(self, name: str, is_there: bool) -> None:
        """Put back an entry that is damaged or missing; its neighbours have shown which one belongs there."""
        found = self._read(name)
        if isinstance(found, CorruptionError):
            raise found
        if is_there:
            self.target.put(name, found.data)
        else:
            self.target.claim(name, found.data)
        self.repaired.append(name)

    def _diverged(self, name: str) -> NoReturn:
        raise DivergedError(
            f"{self.target}{name} is not the entry that {self.repository.storage} has there, if it has one:"
            " somebody has backed up into the second place, or the first was put back to an earlier state."
            " Nothing was changed; see docs/runbooks/backup_replicate.md"
        )


def condemned_by(content: dict[str, Any]) -> set[str]:
    """Names of all objects that an entry condemns."""
    if content["type"] != "condemn":
        return set()
    return {name for member in CONDEMNED for name in content["body"].get(member, ())}
