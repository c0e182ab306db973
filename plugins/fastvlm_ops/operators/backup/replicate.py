"""Keeps a second place of the backups: copies, verifies what is there, and says how far behind it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import load_components
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.backup.catalogue import RecordBackupOperator
from fastvlm_ops.operators.backup.shared import (
    LockRenewingOperator,
    LocksNotRenewedError,
    RepositoryOperator,
)
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.core.config import Replica

_TEXT_CHARACTERS = 8000


class ReplicaIncompleteError(Exception):
    """The second place lacks something, or what it holds is not known to be intact."""

    retryable = False


class _ReplicaOperator(RepositoryOperator):
    """Base of operators that work on both places; which one the second is, ``components.yaml`` says."""

    def execute(self, context: Context) -> Any:
        self.__dict__.pop("replica_hook", None)
        return super().execute(context)

    @cached_property
    def replica(self) -> Replica:
        """The section ``replica`` of ``components.yaml``."""
        return load_components(settings.include_dir()).replica

    @cached_property
    def replica_hook(self) -> BackupRepositoryHook:
        """The hook to the second place."""
        return BackupRepositoryHook(self.replica.connection)

    def hooks_by_place(self) -> Mapping[str, BackupRepositoryHook]:
        """Return both hooks."""
        from fastvlm_ops.core.backup.usage import REPLICA_SUFFIX

        hooks = {"": self.hook}
        if "replica_hook" in self.__dict__:  # else the file that names it may be what is wrong
            hooks[REPLICA_SUFFIX] = self.replica_hook
        return hooks


class PrepareReplicationOperator(_ReplicaOperator):
    """Check everything that a replication needs before anything is sent."""

    def work(self, context: Context) -> dict[str, Any]:
        """Check both connections, and that the second bucket is empty or holds this repository."""
        from fastvlm_ops.core.backup.replica_place import prepare_place

        target = self.replica_hook.get_storage()
        repository = self.hook.open_repository()
        is_there = prepare_place(repository, target)
        self.log.info(
            "%s is ready: %s", target, "it holds the repository already" if is_there else "it is empty"
        )
        return {
            "repository_id": repository.repository_id,
            "connection": self.replica.connection,
            "is_new": not is_there,
        }


class ReplicateBackupOperator(_ReplicaOperator):
    """Copy what the second place lacks. Damage is a result, which :class:`ConfirmReplicationOperator` fails
    for: the rest is copied.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Copy, and say what was copied, what is damaged, and how far behind the second place is."""
        from fastvlm_ops.core.backup.replicating import replicate

        result = replicate(
            self.hook.open_repository(),
            self.replica_hook.get_storage(),
            run_key=run_key(context),
            verify_share=share_of_day(as_of(context), self.replica.shares),
            mirror_removals=self.replica.mirror_removals,
            progress=self.show,
        )
        text = result.text()
        (self.log.info if result.ok else self.log.error)(text)
        return {**result.as_dict(), "connection": self.replica.connection, "text": text[:_TEXT_CHARACTERS]}


class VerifyReplicaOperator(_ReplicaOperator):
    """Verify the second place as a restore would find it: opened by its own connection, with its passphrase.

    Every chunk of every backup is in a pack that is there, with the checksum it must have, and one share of
    the packs is read in full: another one each day. Its log says nothing of it, since it is the first one's.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Verify; what is found goes to XCom whatever it is."""
        from fastvlm_ops.core.backup.verify import verify_repository

        share = share_of_day(as_of(context), self.replica.shares)
        repository = self.replica_hook.open_repository()
        result = verify_repository(repository, level="share", share=share, progress=self.show)
        (self.log.info if result.ok else self.log.error)(result.text())
        return {**result.as_dict(), "text": result.text()[:_TEXT_CHARACTERS]}


class RenewReplicaLocksOperator(_ReplicaOperator, LockRenewingOperator):
    """Lock for longer what the second place holds, where less than half of its days are left."""

    def open(self) -> Repository:
        """Open the second place by its own connection."""
        return self.replica_hook.open_repository()

    def leave_out(self, repository: Repository) -> Collection[str]:
        """Return what ``mirror_removals`` waits to remove; the log there says nothing of it any more."""
        from fastvlm_ops.core.backup.errors import BackupError
        from fastvlm_ops.core.backup.replicating import removed_names

        if not self.replica.mirror_removals:
            return ()
        try:
            return removed_names(self.hook.open_repository(), repository.storage)
        except (BackupError, ConnectionSettingError) as error:  # then above all the second place has to stay
            self.log.warning("What was removed from the first place is locked too: %s", error)
            return ()


class ConfirmReplicationOperator(EvidenceOperator):
    """The verdict: fails unless all of the log was copied, what lies in the second place is intact, and its
    locks were renewed.

    Belongs last with ``trigger_rule="all_done"``.

    :param replication: output of :class:`ReplicateBackupOperator`; None when it failed (templated)
    :param verification: output of :class:`VerifyReplicaOperator`; None when it failed (templated)
    :param renewed: output of :class:`RenewReplicaLocksOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = ("replication", "verification", "renewed")

    def __init__(self, *, replication: Any, verification: Any, renewed: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replication = replication
        self.verification = verification
        self.renewed = renewed

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh all results."""
        unrenewed = None if self.renewed else LocksNotRenewedError()
        problems = self._problems()
        if problems:
            raise ReplicaIncompleteError("\n".join([*problems, *([str(unrenewed)] if unrenewed else [])]))
        if unrenewed:
            raise unrenewed
        self.log.info("The second place has all that was committed by %s", self.replication["complete_until"])
        return {key: self.replication[key] for key in ("sequence", "complete_until", "behind_entries")}

    def _problems(self) -> list[str]:
        """What was not copied or is not intact; nothing where all is."""
        if not self.replication:
            return ["nothing is known to have been copied; see the tasks before this one"]
        if not self.verification:
            what = "the second place was not verified, so that nothing is known of it"
            return [f"{what}; see the task that verifies"]
        return [found["text"] for found in (self.replication, self.verification) if not found["ok"]]

    def subject(self) -> dict[str, Any]:
        """Say how far the second place is."""
        return {"sequence": (self.replication or {}).get("sequence")}


class RecordReplicationOperator(RecordBackupOperator):
    """Record how far the second place is, bring the catalogue up to date, and write the metrics of both.

    :param replication: output of :class:`ReplicateBackupOperator`; None when it failed (templated)
    :param verification: output of :class:`VerifyReplicaOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "replication",
        "verification",
    )

    def __init__(self, *, replication: Any, verification: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replication = replication
        self.verification = verification

    def work(self, context: Context) -> dict[str, Any]:
        """Write it down, then do what is done after every backup."""
        from fastvlm_ops.core.backup.replica_state import record_replication

        if self.replication:
            with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
                record_replication(store, run_key(context), self.replication, self.verification)
        return super().work(context)


class RecordRestoreOperator(RecordBackupOperator):
    """Bring the catalogue up to date, unless it was restored from another place than it is of."""

    def work(self, context: Context) -> dict[str, Any]:
        """Do nothing for a second place: its log may be behind, and the first one may be gone."""
        if self.s3_conn_id != BackupRepositoryHook.default_conn_name:
            self.log.info(
                "Restored from %s; the catalogue is of %s, and stays as it is",
                self.s3_conn_id,
                BackupRepositoryHook.default_conn_name,
            )
            return {"refreshed": False}
        return super().work(context)


def share_of_day(moment: datetime, shares: int) -> tuple[int, int]:
    """Return the share that a day's run looks at: each of ``shares`` once in as many days.

    :param moment: what the run is about
    :param shares: how many there are, at least 1
    """
    return moment.date().toordinal() % shares, shares
