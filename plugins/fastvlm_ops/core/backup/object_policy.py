"""What objects are stored with: their lock, and the storage class of packs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

LockMode = Literal["GOVERNANCE", "COMPLIANCE"]


@dataclass(frozen=True)
class ObjectPolicy:
    """How long nobody may remove what is stored, and which storage class packs have.

    Every object is locked (S3 Object Lock) for ``lock_days`` from the moment it is stored, by S3's clock,
    and again by :func:`~.lock_renewal.renew_locks`; the bucket must have been created with Object Lock. What
    the probe of conditional writes stores is not.
    ``storage_class`` is that of packs alone: everything else is read by each run.

    :raises ValueError: a mode without days, days without a mode, or an unknown mode.
    """

    lock_mode: LockMode | None = None
    lock_days: int = 0
    storage_class: str | None = None

    def __post_init__(self) -> None:
        if self.lock_mode not in (None, "GOVERNANCE", "COMPLIANCE"):
            raise ValueError(f"lock_mode {self.lock_mode!r}: GOVERNANCE or COMPLIANCE")
        if (self.lock_mode is None) != (self.lock_days == 0) or self.lock_days < 0:
            raise ValueError(f"lock_mode {self.lock_mode!r} with lock_days {self.lock_days}: both or neither")

    def arguments(self, name: str, now: datetime) -> dict[str, Any]:
        """Arguments of the PUT that stores the object ``name``.

        :param now: S3's own time, as far as it is known
        """
        arguments: dict[str, Any] = {}
        if self.storage_class is not None and name.startswith("packs/"):
            arguments["StorageClass"] = self.storage_class
        if self.lock_mode is not None and not name.startswith("probe/"):
            arguments["ObjectLockMode"] = self.lock_mode
            arguments["ObjectLockRetainUntilDate"] = now + timedelta(days=self.lock_days)
        return arguments
