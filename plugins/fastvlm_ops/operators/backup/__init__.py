"""Backs the kit up, maintains its backups, and restores it."""

from fastvlm_ops.operators.backup.catalogue import (
    BackupOverdueError,
    CheckBackupAgeOperator,
    RecordBackupOperator,
)
from fastvlm_ops.operators.backup.create import (
    BackUpChangesOperator,
    CreateBackupOperator,
    PrepareRepositoryOperator,
    PublishBackupOperator,
    UnverifiedBackupError,
    VerifyBackupOperator,
)
from fastvlm_ops.operators.backup.maintenance import (
    ConfirmMaintenanceOperator,
    DamageFoundError,
    PlanRetentionOperator,
    VerifyRepositoryOperator,
)
from fastvlm_ops.operators.backup.plan_restore import REQUEST_KEY, PlanRestoreOperator, restore_target
from fastvlm_ops.operators.backup.restore import (
    ApproveRestoreOperator,
    ConfirmRestoreOperator,
    RestoreBackupOperator,
    RestoreIncompleteError,
)
from fastvlm_ops.operators.backup.shared import RepositoryOperator, backup_set_id
from fastvlm_ops.operators.backup.wal import ServerUnreachableError, WalProblemError, WatchWalOperator

__all__ = [
    "REQUEST_KEY",
    "ApproveRestoreOperator",
    "BackUpChangesOperator",
    "BackupOverdueError",
    "CheckBackupAgeOperator",
    "ConfirmMaintenanceOperator",
    "ConfirmRestoreOperator",
    "CreateBackupOperator",
    "DamageFoundError",
    "PlanRestoreOperator",
    "PlanRetentionOperator",
    "PrepareRepositoryOperator",
    "PublishBackupOperator",
    "RecordBackupOperator",
    "RepositoryOperator",
    "RestoreBackupOperator",
    "RestoreIncompleteError",
    "ServerUnreachableError",
    "UnverifiedBackupError",
    "VerifyBackupOperator",
    "VerifyRepositoryOperator",
    "WalProblemError",
    "WatchWalOperator",
    "backup_set_id",
    "restore_target",
]
