"""Versions of objects and their locks: removing all of an object for good, locking what stays for longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from fastvlm_ops.core.backup.errors import ObjectNotFoundError, StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Call = Callable[[str, str, Callable[[], Any]], Any]

_VERSIONED = {"Enabled", "Suspended"}  # suspended buckets keep the versions they have


@dataclass(frozen=True)
class Removed:
    """Nothing of the object is left. ``versions`` counts what was deleted, delete markers included."""

    versions: int


@dataclass(frozen=True)
class Locked:
    """A version may not be removed before ``until``; None: a legal hold, until somebody lifts it."""

    until: datetime | None


@dataclass(frozen=True)
class Retention:
    """The lock of a version: how it is locked, and until when."""

    mode: str
    until: datetime


class Version(NamedTuple):
    """One version of the object with this key."""

    key: str
    version_id: str
    is_marker: bool = False


class Versions:
    """The versions of a bucket's objects.

    A plain DELETE in a bucket with versions only hides the object behind a delete marker: nothing is
    freed. So each version is deleted by its id. Whether the bucket keeps versions is asked once.

    :param call: ``call(operation, name, request)`` runs a request and translates its errors
    :param now: S3's own time
    """

    def __init__(self, client: S3Client, bucket: str, call: Call, now: Callable[[], datetime]) -> None:
        self._client = client
        self._bucket = bucket
        self._call = call
        self._now = now

    @cached_property
    def are_kept(self) -> bool:
        """Whether the bucket keeps versions, or has kept them.

        :raises AccessDeniedError: the permission s3:GetBucketVersioning is missing.
        """
        answer = self._call(
            "GetBucketVersioning", "", lambda: self._client.get_bucket_versioning(Bucket=self._bucket)
        )
        return bool(answer.get("Status") in _VERSIONED)

    def remove(self, name: str, key: str) -> Removed | Locked:
        """Delete every version of exactly this key that is not locked.

        :param name: for messages
        """
        removed = 0
        locked: list[Locked] = []
        for version in [one for one in self.below(name, key) if one.key == key]:
            lock = self._delete(name, version)
            if lock is None:
                removed += 1
            else:
                locked.append(lock)
        if not locked:
            return Removed(removed)
        dates = [lock.until for lock in locked]
        return Locked(None if None in dates else max(date for date in dates if date is not None))

    def below(self, name: str, prefix: str) -> Iterator[Version]:
        """All versions of keys that begin like this, delete markers among them.

        :param name: for messages
        """
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix}
        while True:
            page = self._page(name, arguments)
            for member, is_marker in (("Versions", False), ("DeleteMarkers", True)):
                for item in page.get(member, ()):
                    yield Version(item["Key"], item["VersionId"], is_marker)
            if not page.get("IsTruncated"):
                return
            arguments["KeyMarker"] = page["NextKeyMarker"]
            arguments["VersionIdMarker"] = page.get("NextVersionIdMarker", "")

    def _page(self, name: str, arguments: dict[str, Any]) -> Any:
        return self._call("ListBucketVersions", name, lambda: self._client.list_object_versions(**arguments))

    def retention(self, name: str, version: Version) -> Retention | None:
        """How a version is locked, perhaps until a date that has passed; None where it never was.

        :raises ObjectNotFoundError: it was removed meanwhile.
        """
        answer = self._head(name, self._where(version))
        until: datetime | None = answer.get("ObjectLockRetainUntilDate")
        return None if until is None else Retention(answer["ObjectLockMode"], until)

    def retain(self, name: str, version: Version, retention: Retention) -> None:
        """Lock a version; S3 refuses a date before the one that it has.

        :raises ObjectNotFoundError: it was removed meanwhile.
        :raises AccessDeniedError: the permission s3:PutObjectRetention is missing, or the date is too early.
        """
        lock: Any = {"Mode": retention.mode, "RetainUntilDate": retention.until}
        where = self._where(version)
        self._call(
            "PutObjectRetention", name, lambda: self._client.put_object_retention(**where, Retention=lock)
        )

    def _where(self, version: Version) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": version.key, "VersionId": version.version_id}

    def _head(self, name: str, where: dict[str, Any]) -> Any:
        return self._call("GetObjectVersion", name, lambda: self._client.head_object(**where))

    def _delete(self, name: str, version: Version) -> Locked | None:
        """Delete one version; its lock where that is why it cannot be deleted."""
        where = self._where(version)
        try:
            self._call("DeleteObjectVersion", name, lambda: self._client.delete_object(**where))
        except ObjectNotFoundError:
            return None  # another collector was faster
        except StorageError:  # a lock is reported as a missing permission, or in other words
            lock = None if version.is_marker else self._lock_of(name, where)
            if lock is None:
                raise
            return lock
        return None

    def _lock_of(self, name: str, where: dict[str, Any]) -> Locked | None:
        """The lock of a version; None where it has none, or none any more."""
        try:
            answer = self._head(name, where)
        except ObjectNotFoundError:
            return None
        if answer.get("ObjectLockLegalHoldStatus") == "ON":
            return Locked(None)
        until: datetime | None = answer.get("ObjectLockRetainUntilDate")
        if until is None or until <= self._now():
            return None
        return Locked(until)
