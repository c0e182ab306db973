"""What can go wrong with a backup; each message names the file, the key or the permission."""

from __future__ import annotations


class BackupError(Exception):
    """Base of every error the engine raises on purpose.

    ``retryable`` tells a scheduler whether trying again can help.
    """

    retryable = False


class StorageError(BackupError):
    """The endpoint did not answer, or answered with something unexpected."""

    retryable = True


class ObjectNotFoundError(StorageError):
    """An object that should be in the bucket is not."""

    retryable = False


class BucketNotFoundError(StorageError):
    """The bucket does not exist."""

    retryable = False


class CredentialsError(StorageError):
    """Missing, wrong or expired credentials."""

    retryable = False


class AccessDeniedError(StorageError):
    """The credentials are valid but lack a permission, which is named."""

    retryable = False


class ClockError(StorageError):
    """The endpoint refuses requests because this machine's clock is too far from its own."""

    retryable = False


class UnsafeEndpointError(StorageError):
    """The endpoint ignores ``If-None-Match``, so that two writers could destroy each other's commits."""

    retryable = False


class ObjectLockError(StorageError):
    """Objects are to be locked, but the bucket takes no locked objects."""

    retryable = False


class RepositoryNotFoundError(BackupError):
    """There is no repository under this bucket and prefix."""


class MemoryLimitError(BackupError):
    """This process may have too little memory for a backup or a restore."""


class WrongKeyError(BackupError):
    """The passphrase or key file opens none of the repository's key slots, or not all that is stored."""


class KeyFileError(BackupError):
    """A key file is missing, too short, or others than its owner can read it."""


class KeySlotError(BackupError):
    """A key slot cannot be added or removed, or the data key not rotated; nothing was changed."""


class SourceError(BackupError):
    """A path to back up is missing, empty, unreadable or inconsistent."""


class DumpError(SourceError):
    """A database did not answer, or the program that exports it failed; that may pass."""

    retryable = True


class CorruptionError(BackupError):
    """Something in the repository is damaged, missing or forged."""


class BackupNotFoundError(BackupError):
    """No such backup set or snapshot."""


class IncompleteSetError(BackupError):
    """A backup set cannot be published because a component has no snapshot in this run."""


class PruningRefusedError(BackupError):
    """Forgetting or collecting would take away more than it may, or cannot tell what is needed."""


class RestoreTargetError(BackupError):
    """The target of a restore cannot be used: not empty, outside its root, too small."""


class OtherRepositoryError(BackupError):
    """Where the second place is to be, there is another repository, or something that is none."""


class DivergedError(BackupError):
    """The log of the second place says what the first one's does not: somebody has backed up into it."""


class RecoveryError(BackupError):
    """A target that a recovery cannot reach: not within the window, behind a gap, on another timeline."""


class TrialError(BackupError):
    """What was recovered does not start, does not reach its target, or fails a check."""
