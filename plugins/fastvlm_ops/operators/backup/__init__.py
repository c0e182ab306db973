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
    PruningIncompleteError,
    VerifyRepositoryOperator,
)
from fastvlm_ops.operators.backup.plan_restore import REQUEST_KEY, PlanRestoreOperator, restore_target
from fastvlm_ops.operators.backup.pruning import (
    ApprovePruningOperator,
    CollectGarbageOperator,
    ForgetBackupsOperator,
    PlanPruningOperator,
    PruningSetupError,
    RenewLocksOperator,
)
from fastvlm_ops.operators.backup.replicate import (
    ConfirmReplicationOperator,
    PrepareReplicationOperator,
    RecordReplicationOperator,
    RecordRestoreOperator,
    RenewReplicaLocksOperator,
    ReplicaIncompleteError,
    ReplicateBackupOperator,
    VerifyReplicaOperator,
)
from fastvlm_ops.operators.backup.restore import (
    ApproveRestoreOperator,
    ConfirmRestoreOperator,
    RestoreBackupOperator,
    RestoreIncompleteError,
)
from fastvlm_ops.operators.backup.shared import LocksNotRenewedError, RepositoryOperator, backup_set_id
from fastvlm_ops.operators.backup.wal import ServerUnreachableError, WalProblemError, WatchWalOperator

__all__ = [
    "REQUEST_KEY",
    "ApprovePruningOperator",
    "ApproveRestoreOperator",
    "BackUpChangesOperator",
    "BackupOverdueError",
    "CheckBackupAgeOperator",
    "CollectGarbageOperator",
    "ConfirmMaintenanceOperator",
    "ConfirmReplicationOperator",
    "ConfirmRestoreOperator",
    "CreateBackupOperator",
    "DamageFoundError",
    "ForgetBackupsOperator",
    "LocksNotRenewedError",
    "PlanPruningOperator",
    "PlanRestoreOperator",
    "PrepareReplicationOperator",
    "PrepareRepositoryOperator",
    "PruningIncompleteError",
    "PruningSetupError",
    "PublishBackupOperator",
    "RecordBackupOperator",
    "RecordReplicationOperator",
    "RecordRestoreOperator",
    "RenewLocksOperator",
    "RenewReplicaLocksOperator",
    "ReplicaIncompleteError",
    "ReplicateBackupOperator",
    "RepositoryOperator",
    "RestoreBackupOperator",
    "RestoreIncompleteError",
    "ServerUnreachableError",
    "UnverifiedBackupError",
    "VerifyBackupOperator",
    "VerifyReplicaOperator",
    "VerifyRepositoryOperator",
    "WalProblemError",
    "WatchWalOperator",
    "backup_set_id",
    "restore_target",
]
