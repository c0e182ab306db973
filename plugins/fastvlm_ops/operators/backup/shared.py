"""What the backup operators share: the repository, sources by name, ids of sets."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.shared import EvidenceOperator, run_key

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from fastvlm_ops.core.backup.progress import Progress
    from fastvlm_ops.core.backup.repository import Repository


_UNRENEWED = (
    "locks were not renewed, or not all of them, so that what backups need can be removed once its days have"
    " passed; see the task that renews them. What it has not renewed, its next run does"
)


class LocksNotRenewedError(Exception):
    """What backups need is not locked for as long as it should be: the task that renews locks has failed."""

    retryable = False

    def __init__(self, message: str = _UNRENEWED) -> None:
        super().__init__(message)


class RepositoryOperator(EvidenceOperator):
    """Base of operators that work on the backup repository.

    What each attempt has asked S3 for, whether it succeeded or not, becomes a row of ``backup_usage``.

    :param s3_conn_id: connection of type ``fastvlm_s3`` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id",)

    def __init__(self, *, s3_conn_id: str = BackupRepositoryHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> Any:
        self.__dict__.pop("hook", None)  # each attempt counts for itself
        try:
            return super().execute(context)
        finally:
            self._record_usage(context)

    @cached_property
    def hook(self) -> BackupRepositoryHook:
        """The hook to the repository; its clients count what the task does."""
        return BackupRepositoryHook(self.s3_conn_id)

    def hooks_by_place(self) -> Mapping[str, BackupRepositoryHook]:
        """Return the hooks whose requests count, by what is written behind the task's name."""
        return {"": self.hook}

    def _record_usage(self, context: Context) -> None:
        """Write a row for each place; what cannot be written is lost, which harms no backup."""
        try:
            used = {place: hook.usage for place, hook in self.hooks_by_place().items()}
            if not any(used.values()):
                return
            from fastvlm_ops.core.backup.usage_rows import record_usage

            conn_id = getattr(self, "operations_db_conn_id", OperationsDatabaseHook.default_conn_name)
            with OperationsDatabaseHook(conn_id).open_store() as store:
                for place, usage in used.items():
                    if usage is not None:
                        record_usage(store, run_key(context), task_label(context) + place, usage)
        except Exception as error:  # of many kinds, by what is wrong with the database
            self.log.warning("What this task has asked S3 for is not recorded: %s", error)

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


class LockRenewingOperator(RepositoryOperator):
    """Base of the operators that lock for longer what one of the places still needs.

    Does so where ``components.yaml`` has ``object_lock``, and asks S3 for nothing where it has not. Belongs
    behind what removes and verifies, with ``trigger_rule="all_done"``: locks run out whatever came of that.
    """

    @abstractmethod
    def open(self) -> Repository:
        """Open the repository of that place."""

    def leave_out(self, repository: Repository) -> Collection[str]:
        """Return names that are to be removed for another reason than that the log has condemned them.

        :param repository: of that place
        """
        return ()

    def work(self, context: Context) -> dict[str, Any]:
        """Renew; what was renewed is not due when it is tried again."""
        from fastvlm_ops.core.backup.lock_renewal import LockRenewal, renew_locks

        # Of the file itself: a broken one must not pass for one that locks nothing.
        if load_components(settings.include_dir()).object_lock is None:
            self.log.info("Nothing is locked: components.yaml has no object_lock")
            return {"done": True, "configured": False, **LockRenewal().as_dict()}
        repository = self.open()
        result = renew_locks(repository, leave_out=self.leave_out(repository), progress=self.show)
        self.log.info(
            "%s: %d objects locked for longer, %d are for long enough; all until %s at least",
            repository.storage,
            result.renewed,
            result.long_enough,
            result.until,
        )
        return {"done": True, "configured": True, **result.as_dict()}


def task_label(context: Context) -> str:
    """Return the name of an attempt, as in ``create_backup[2]``, ``create_backup[2] try 2``.

    :param context: of the task
    """
    instance = context["ti"]
    mapped, attempt = getattr(instance, "map_index", -1), getattr(instance, "try_number", 1)
    label = getattr(instance, "task_id", "task")
    return f"{label}{f'[{mapped}]' if mapped >= 0 else ''}{f' try {attempt}' if attempt > 1 else ''}"


def backup_set_id(kind: str, moment: datetime, key: str) -> str:
    """Return the id of a run's backup set, the same for each attempt, as in full-20260104T020000Z-1a2b3c4d.

    :param kind: ``full``, ``incremental`` or ``configuration``
    :param moment: what the run is about
    :param key: the run's key; its digest tells apart runs that are about the same moment
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{kind}-{moment:%Y%m%dT%H%M%SZ}-{digest}"
