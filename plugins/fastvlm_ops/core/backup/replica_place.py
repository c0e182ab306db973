"""The second place itself: is it one, is it ours, and does it hold the same configuration and keys."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from fastvlm_ops.core.backup.errors import (
    CorruptionError,
    ObjectNotFoundError,
    OtherRepositoryError,
    StorageError,
    UnsafeEndpointError,
    WrongKeyError,
)
from fastvlm_ops.core.backup.key_epochs import epoch_of, read_epoch
from fastvlm_ops.core.backup.keys import verify_slot
from fastvlm_ops.core.backup.probing import IGNORED, probe_conditional_writes
from fastvlm_ops.core.backup.repository import CONFIG_NAME, Repository
from fastvlm_ops.core.backup.sealing import peek_line
from fastvlm_ops.core.backup.storage import S3Storage

_SMALL_LIMIT_BYTES = 1 << 20


def prepare_place(repository: Repository, target: S3Storage) -> bool:
    """Check that a bucket can be the second place of a repository; nothing of the repository is written.

    :returns: whether it holds the repository already
    :raises StorageError: or a subclass: it does not answer, may not be written, ignores conditional writes
    :raises OtherRepositoryError: it is the first place, or holds something else
    """
    target.check_bucket()
    _require_another_place(repository.storage, target)
    held = _configuration(target)
    if held is None:
        _require_empty(repository, target)
        probe_conditional_writes(target)
        return False
    _require_same(repository, target, held)
    return True


@dataclass(frozen=True)
class KeyCopies:
    """What copying the keys has found.

    :param extra: what only the second place has: whoever knew such a slot's secret still opens it
    :param damaged: what was not copied, and why
    """

    extra: tuple[str, ...]
    damaged: dict[str, str]


def open_place(repository: Repository, target: S3Storage) -> KeyCopies:
    """Check the second place, then give it the keys and, claimed, the configuration where it lacks them.

    The keys go first: whoever finds a configuration finds a key slot for it.

    :raises StorageError: or a subclass: see :func:`prepare_place`
    :raises OtherRepositoryError: it is the first place, or holds something else
    """
    is_there = prepare_place(repository, target)
    keys = copy_keys(repository, target)
    if not is_there:
        target.claim(CONFIG_NAME, repository.config_line)
        held = _configuration(target)
        if held is None:
            raise StorageError(f"{target}{CONFIG_NAME}: refused as existing, but it is not there")
        _require_same(repository, target, held)  # another one may have been faster
    if target.claim(CONFIG_NAME, repository.config_line):
        raise UnsafeEndpointError(IGNORED.format(target))
    return keys


def _require_another_place(source: S3Storage, target: S3Storage) -> None:
    """What is written to one must not appear in the other, whatever their addresses look like."""
    name = f"probe/{uuid.uuid4().hex}"
    target.claim(name, b"place")
    try:
        source.head(name)
    except ObjectNotFoundError:
        return
    else:
        raise OtherRepositoryError(
            f"{target} is the place of the repository itself, so that there would be no second one; name"
            " another bucket, best at another provider"
        )
    finally:
        _remove_quietly(target, name)


def _remove_quietly(storage: S3Storage, name: str) -> None:
    try:
        storage.delete(name)
    except StorageError:  # the role that replicates may do without s3:DeleteObject: five bytes stay behind
        return


def _configuration(target: S3Storage) -> bytes | None:
    try:
        return target.get(CONFIG_NAME, limit_bytes=_SMALL_LIMIT_BYTES)
    except ObjectNotFoundError:
        return None


def _require_same(repository: Repository, target: S3Storage, held: bytes) -> None:
    if held == repository.config_line:
        return
    try:
        other = peek_line(held, CONFIG_NAME).get("repository_id")
    except CorruptionError:
        other = None
    if other == repository.repository_id:
        what = f"{target}{CONFIG_NAME} is damaged, or was written by somebody else"
        raise OtherRepositoryError(f"{what}: put it back as it is in {repository.storage}")
    raise OtherRepositoryError(
        f"{target} holds {'repository ' + str(other) if other else 'something that is no repository'}, not"
        f" {repository.repository_id}: name an empty bucket or prefix"
    )


def _require_empty(repository: Repository, target: S3Storage) -> None:
    """Only what an earlier attempt has left may be there."""
    ours = (f"keys/{repository.repository_id}/", "probe/")
    for info in target.list(""):
        if not info.name.startswith(ours):
            raise OtherRepositoryError(
                f"{target} holds {info.name}, but no repository: name an empty bucket or prefix"
            )


def copy_keys(repository: Repository, target: S3Storage) -> KeyCopies:
    """Copy the slots and epochs that the second place lacks or has otherwise; they are few: all are compared.

    Again before the log is copied, since an epoch may be made meanwhile: what is sealed under it was listed
    after it had been stored.

    :raises StorageError: or a subclass: one of the places does not answer or refuses
    """
    source, below = repository.storage, f"keys/{repository.repository_id}/"
    there = {info.name for info in target.list(below)}
    damaged = {}
    for info in source.list(below):
        there_is = info.name in there
        there.discard(info.name)
        try:
            data = source.get(info.name, limit_bytes=_SMALL_LIMIT_BYTES)
            _verify_key(repository, info.name, data)
        except (CorruptionError, WrongKeyError) as error:
            damaged[info.name] = str(error)
            continue
        except ObjectNotFoundError:  # a slot that was removed since it was listed
            continue
        if not there_is or target.get(info.name, limit_bytes=_SMALL_LIMIT_BYTES) != data:
            target.put(info.name, data)
    return KeyCopies(tuple(sorted(there)), damaged)


def _verify_key(repository: Repository, name: str, data: bytes) -> None:
    """:raises CorruptionError: or WrongKeyError: it is damaged, or cannot be checked."""
    epoch = epoch_of(name)
    if epoch is None:
        verify_slot(data, repository.ring, name)
    else:
        repository.ring.require_epoch(epoch - 1, name)
        read_epoch(data, name, repository.ring)
