"""Verifying WAL: every segment and history in the bucket, opened and compared with what it says it holds."""

from __future__ import annotations

import hashlib

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.verify_packs import in_parallel
from fastvlm_ops.core.backup.verify_result import Findings, Share

_READERS = 4


def check_wal(repository: Repository, share: Share | None, findings: Findings) -> None:
    """Note what of the WAL is damaged. It hits no snapshot, each of which restores without it; what it keeps
    from being reached is said by the window of its component, once the damaged object is removed.

    :param share: only this one, by a hash of the names; None for all
    """
    listed = list(repository.storage.list("wal/"))
    if not listed:
        return
    from fastvlm_ops.core.backup.postgresql.wal_names import list_wal
    from fastvlm_ops.core.backup.postgresql.wal_store import WalStore

    ours: list[str] = []
    for listing in (listing for systems in list_wal(listed).values() for listing in systems.values()):
        ours += [info.name for info in listing.segments] + [stored.name for stored in listing.histories]
    gone = repository.log.state.condemned_names("wal")
    wanted = [name for name in ours if share is None or _number(name) % share[1] == share[0]]

    def check(name: str) -> str | None:
        try:
            WalStore(repository, name.split("/")[1]).header(name)
        except CorruptionError as error:
            if not isinstance(error.__cause__, ObjectNotFoundError):  # else it was removed since the listing
                return str(error)
        return None

    for name, problem in in_parallel(_READERS, check, (name for name in wanted if name not in gone)):
        if problem is not None:
            findings.problem(name, problem)


def _number(name: str) -> int:
    """Spreads names over shares; those of WAL are no hashes themselves."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
