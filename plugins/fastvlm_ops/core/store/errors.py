"""What can go wrong with the operations database; each message names the row, the key or the remedy."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error the store raises on purpose.

    ``retryable`` tells a scheduler whether trying again can help.
    """

    retryable = False


class StoreUrlError(StoreError):
    """The address of the database cannot be used."""


class StoreUnavailableError(StoreError):
    """The database does not answer, or refuses who asks."""

    retryable = True


class SchemaVersionError(StoreError):
    """The tables are older or newer than the code."""


class UpsertError(StoreError):
    """Rows that cannot be written by their natural key."""


class LeaseLostError(StoreError):
    """The lease has expired, was released, or belongs to a later holder."""


class ClaimLostError(StoreError):
    """The message was claimed by another worker since, or is done."""


class ArtefactConflictError(StoreError):
    """Other bytes are stored under this name already."""


class ArtefactStorageError(StoreError):
    """S3 did not answer, or refused."""

    retryable = True


class ArtefactDamagedError(StoreError):
    """An artefact is missing, or is not what was stored."""


class RetentionError(StoreError):
    """A table does not say how old its rows may get."""
