"""What the backup operators share: the repository, sources by name, ids of sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.shared import EvidenceOperator

if TYPE_CHECKING:
    from datetime import datetime

    from fastvlm_ops.core.backup.progress import Progress


class RepositoryOperator(EvidenceOperator):
    """Base of operators that work on the backup repository.

    :param s3_conn_id: connection of type ``fastvlm_s3`` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id",)

    def __init__(self, *, s3_conn_id: str = BackupRepositoryHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.s3_conn_id = s3_conn_id

    @property
    def hook(self) -> BackupRepositoryHook:
        """The hook to the repository."""
        return BackupRepositoryHook(self.s3_conn_id)

    @property
    def show(self) -> Callable[[Progress], None]:
        """What the engine calls every few seconds."""
        return lambda progress: self.log.info(progress.line())

    def note(self, what: str, write: Callable[[], bool]) -> None:
        """Add to the repository's log what the task did, which counts also where that cannot be written.

        :param what: for the warning
        :param write: adds the entry
        """
        from fastvlm_ops.core.backup.errors import BackupError

        try:
            write()
        except BackupError as error:
            self.log.warning("%s, but the log of the repository does not say so: %s", what, error)


def backup_set_id(kind: str, moment: datetime, key: str) -> str:
    """Return the id of a run's backup set, the same for each attempt, as in full-20260104T020000Z-1a2b3c4d.

    :param kind: ``full``, ``incremental`` or ``configuration``
    :param moment: what the run is about
    :param key: the run's key; its digest tells apart runs that are about the same moment
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{kind}-{moment:%Y%m%dT%H%M%SZ}-{digest}"
