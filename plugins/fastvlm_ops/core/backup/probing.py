"""Proving that an endpoint honours conditional writes."""

from __future__ import annotations

import uuid

from fastvlm_ops.core.backup.errors import StorageError, UnsafeEndpointError
from fastvlm_ops.core.backup.storage import S3Storage

IGNORED = (
    "{}: the endpoint ignores If-None-Match, so two backups could overwrite each other's commits; "
    "use a server with conditional writes"
)


def probe_conditional_writes(storage: S3Storage) -> None:
    """Prove that the endpoint honours ``If-None-Match: *``, on which every commit rests.

    Several servers accept the header and ignore it. Needs no permission to delete.

    :raises UnsafeEndpointError: when a second conditional write to the same name is accepted.
    """
    name = f"probe/{uuid.uuid4().hex}"
    # Refused is also what our own write is, tried again after its answer was lost.
    if not storage.claim(name, b"first") and storage.get(name, limit_bytes=1 << 10) != b"first":
        raise UnsafeEndpointError(f"{storage}: a conditional write to a new name was refused")
    overwritten = storage.claim(name, b"second")
    _remove_quietly(storage, name)
    if overwritten:
        raise UnsafeEndpointError(IGNORED.format(storage))


def _remove_quietly(storage: S3Storage, name: str) -> None:
    try:
        storage.delete(name)
    except StorageError:  # a backup role may lack s3:DeleteObject: five bytes stay behind
        return
