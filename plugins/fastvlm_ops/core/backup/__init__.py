"""Backups to S3 in a documented format: snapshots, sets, restores. See docs/architecture.md.

Each name is imported when it is first asked for: a program that opens a repository does not wait for
what only a backup needs.
"""

from typing import TYPE_CHECKING

from fastvlm_ops.core import lazily

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.create import SnapshotResult, create_snapshot
    from fastvlm_ops.core.backup.errors import (
        AccessDeniedError,
        BackupError,
        BackupNotFoundError,
        BucketNotFoundError,
        ClockError,
        CorruptionError,
        CredentialsError,
        IncompleteSetError,
        MemoryLimitError,
        ObjectNotFoundError,
        RepositoryNotFoundError,
        RestoreTargetError,
        SourceError,
        StorageError,
        UnsafeEndpointError,
        WrongKeyError,
    )
    from fastvlm_ops.core.backup.probing import probe_conditional_writes
    from fastvlm_ops.core.backup.progress import Progress, format_bytes
    from fastvlm_ops.core.backup.repository import Repository, initialise_repository, open_repository
    from fastvlm_ops.core.backup.restore import RestoreResult, restore_snapshot
    from fastvlm_ops.core.backup.retention import RetentionPlan, RetentionPolicy, plan_retention
    from fastvlm_ops.core.backup.sets import BackupSet, SetMember, list_sets, publish_set, select_set
    from fastvlm_ops.core.backup.sources import FolderSource, Source
    from fastvlm_ops.core.backup.sqlite_source import SQLiteSource
    from fastvlm_ops.core.backup.storage import S3Storage, create_client
    from fastvlm_ops.core.backup.verify import verify_repository, verify_set_members
    from fastvlm_ops.core.backup.verify_result import VerifyResult

__all__ = [
    "AccessDeniedError",
    "BackupError",
    "BackupNotFoundError",
    "BackupSet",
    "BucketNotFoundError",
    "ClockError",
    "CorruptionError",
    "CredentialsError",
    "FolderSource",
    "IncompleteSetError",
    "MemoryLimitError",
    "ObjectNotFoundError",
    "Progress",
    "Repository",
    "RepositoryNotFoundError",
    "RestoreResult",
    "RestoreTargetError",
    "RetentionPlan",
    "RetentionPolicy",
    "S3Storage",
    "SQLiteSource",
    "SetMember",
    "SnapshotResult",
    "Source",
    "SourceError",
    "StorageError",
    "UnsafeEndpointError",
    "VerifyResult",
    "WrongKeyError",
    "create_client",
    "create_snapshot",
    "format_bytes",
    "initialise_repository",
    "list_sets",
    "open_repository",
    "plan_retention",
    "probe_conditional_writes",
    "publish_set",
    "restore_snapshot",
    "select_set",
    "verify_repository",
    "verify_set_members",
]

_MODULES = {
    "SnapshotResult": "create",
    "create_snapshot": "create",
    "AccessDeniedError": "errors",
    "BackupError": "errors",
    "BackupNotFoundError": "errors",
    "BucketNotFoundError": "errors",
    "ClockError": "errors",
    "CorruptionError": "errors",
    "CredentialsError": "errors",
    "IncompleteSetError": "errors",
    "MemoryLimitError": "errors",
    "ObjectNotFoundError": "errors",
    "RepositoryNotFoundError": "errors",
    "RestoreTargetError": "errors",
    "SourceError": "errors",
    "StorageError": "errors",
    "UnsafeEndpointError": "errors",
    "WrongKeyError": "errors",
    "Progress": "progress",
    "format_bytes": "progress",
    "Repository": "repository",
    "initialise_repository": "repository",
    "open_repository": "repository",
    "RestoreResult": "restore",
    "restore_snapshot": "restore",
    "RetentionPlan": "retention",
    "RetentionPolicy": "retention",
    "plan_retention": "retention",
    "BackupSet": "sets",
    "SetMember": "sets",
    "list_sets": "sets",
    "publish_set": "sets",
    "select_set": "sets",
    "FolderSource": "sources",
    "Source": "sources",
    "SQLiteSource": "sqlite_source",
    "S3Storage": "storage",
    "create_client": "storage",
    "probe_conditional_writes": "probing",
    "verify_repository": "verify",
    "verify_set_members": "verify",
    "VerifyResult": "verify_result",
}

__getattr__ = lazily(__name__, _MODULES)
