"""The S3 verbs the engine uses, over an S3 client, with its errors translated into ours.

Names are relative to the repository's prefix. One client serves all threads.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from fastvlm_ops.core.backup.clients import Client
from fastvlm_ops.core.backup.clients import create_client as create_client
from fastvlm_ops.core.backup.clocks import say_ahead
from fastvlm_ops.core.backup.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ClockError,
    CorruptionError,
    CredentialsError,
    ObjectLockError,
    ObjectNotFoundError,
    StorageError,
    UnsafeEndpointError,
)
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.versions import Locked, Removed, Retention, Version, Versions

T = TypeVar("T")

_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
}
_DENIED_CODES = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_MISSING_CODES = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_LOCKING = {"PutObject", "PutObjectRetention"}
_CONFLICT_ATTEMPTS = 8
_BODY_ATTEMPTS = 3


@dataclass(frozen=True)
class ObjectInfo:
    """An object as listed or headed. ``sha256`` (hex) only where the endpoint keeps checksums.

    ``storage_class`` is what a listing says of it; None where it says nothing, and for what was headed.
    """

    name: str
    size_bytes: int
    last_modified: datetime
    sha256: str | None = None
    storage_class: str | None = None


@dataclass(frozen=True)
class ObjectVersion:
    """A version of an object, which may be an earlier one."""

    name: str
    version_id: str


class S3Storage:
    """One bucket and prefix.

    :param policy: what objects are stored with
    :raises StorageError: or one of its subclasses, from every method.
    """

    def __init__(
        self, client: Client, bucket: str, prefix: str = "", policy: ObjectPolicy | None = None
    ) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.policy = policy or ObjectPolicy()
        self._versions = Versions(client, bucket, self._call, self.now)
        self._told: tuple[datetime, float] | None = None  # S3's time, and ours on the monotonic clock then
        self._usage_meter = client.meter

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def usage(self) -> Usage:
        """What this client has used so far; all that use it share the count."""
        return self._usage_meter.usage

    def check_bucket(self) -> None:
        """The bucket exists and these credentials may list it."""
        try:
            self._call("HeadBucket", "", lambda: self.client.head_bucket(Bucket=self.bucket))
        except ObjectNotFoundError as error:
            raise BucketNotFoundError(f"bucket {self.bucket!r} does not exist at {self._endpoint}") from error
        except AccessDeniedError:
            # The answer to a HEAD has no body, so wrong credentials look like a missing permission; and a
            # role may be allowed to list below its prefix alone.
            next(self.list("config.json"), None)

    def put(self, name: str, data: bytes, sha256: bytes | None = None) -> None:
        """Store an object; S3 itself refuses it when it was damaged on the way.

        :param sha256: digest of ``data`` where it is known already.
        """
        digest = sha256 if sha256 is not None else hashlib.sha256(data).digest()
        self._call(
            "PutObject",
            name,
            lambda: self.client.put_object(
                Bucket=self.bucket,
                Key=self.prefix + name,
                Body=data,
                ChecksumSHA256=base64.b64encode(digest).decode(),
                **self.policy.arguments(name, self.now()),
            ),
        )

    def claim(self, name: str, data: bytes) -> bool:
        """Store an object only where none is (``If-None-Match: *``); False when there is one.

        False may also follow a lost answer to our own request: the caller compares the contents.
        """
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                answer = self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.prefix + name,
                    Body=data,
                    ChecksumSHA256=digest,
                    IfNoneMatch="*",
                    **self.policy.arguments(name, self.now()),
                )
                self._note_time(answer)
                return True
            except ClientError as error:
                self._note_time(error.response)
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:
                    return False
                if status == 501:
                    raise UnsafeEndpointError(
                        f"{self._endpoint} does not implement conditional writes (If-None-Match)"
                    ) from error
                if status != 409:
                    raise self._translate("PutObject", name, error) from error
            except BotoCoreError as error:
                raise self._translate("PutObject", name, error) from error
            time.sleep(0.05 * 2**attempt)
        raise StorageError(
            f"{self}{name}: still in conflict with another writer after {_CONFLICT_ATTEMPTS} tries"
        )

    def get(self, name: str, *, limit_bytes: int) -> bytes:
        """The whole object, refused when it is larger than ``limit_bytes``."""

        def check(size_bytes: int) -> None:
            if size_bytes > limit_bytes:
                raise CorruptionError(f"{self}{name} is {size_bytes} bytes; at most {limit_bytes} expected")

        return self._read(name, check)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; from the end when ``offset`` is negative."""
        wanted = f"bytes={offset}-{offset + length - 1}" if offset >= 0 else f"bytes={offset}"
        data = self._read(name, Range=wanted)
        if offset >= 0 and len(data) != length:
            raise CorruptionError(f"{self}{name} is truncated: {len(data)} of {length} bytes at {offset}")
        return data

    def _read(self, name: str, check: Callable[[int], None] = lambda _: None, **extra: str) -> bytes:
        """The body of a GET, asked for again when it breaks off: boto3 tries again only until it begins."""
        arguments: Any = {"Bucket": self.bucket, "Key": self.prefix + name, **extra}
        attempt = 1
        while True:
            response = self._call("GetObject", name, lambda: self.client.get_object(**arguments))
            with contextlib.closing(response["Body"]) as body:
                check(response["ContentLength"])
                try:
                    data: bytes = body.read()
                    self._usage_meter.received(len(data))
                    return data
                except BotoCoreError as error:
                    if attempt == _BODY_ATTEMPTS:
                        raise self._translate("GetObject", name, error) from error
            attempt += 1

    def head(self, name: str) -> ObjectInfo:
        """Size and checksum of an object without reading it."""
        response: Any = self._call(
            "HeadObject",
            name,
            lambda: self.client.head_object(
                Bucket=self.bucket, Key=self.prefix + name, ChecksumMode="ENABLED"
            ),
        )
        checksum = response.get("ChecksumSHA256")
        return ObjectInfo(
            name,
            response["ContentLength"],
            response["LastModified"],
            base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None,
        )

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects below a prefix in the order of their names."""
        token: str | None = None
        while True:
            arguments: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
            if token is not None:
                arguments["ContinuationToken"] = token
            elif start_after:
                arguments["StartAfter"] = self.prefix + start_after
            page = self._list_page(prefix, arguments)
            for item in page.get("Contents", ()):
                yield ObjectInfo(
                    item["Key"][len(self.prefix) :],
                    item["Size"],
                    item["LastModified"],
                    storage_class=item.get("StorageClass"),
                )
            if not page.get("IsTruncated"):
                return
            token = page["NextContinuationToken"]

    def _list_page(self, prefix: str, arguments: dict[str, Any]) -> Any:
        return self._call("ListObjectsV2", prefix, lambda: self.client.list_objects_v2(**arguments))

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens when there is none."""
        self._call(
            "DeleteObject",
            name,
            lambda: self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name),
        )

    def remove(self, name: str) -> Removed | Locked:
        """Remove an object for good: every version of it, where the bucket keeps versions.

        Nothing happens when there is none. A version that is locked stays, which is no error.
        """
        if self._versions.are_kept:
            return self._versions.remove(name, self.prefix + name)
        self.delete(name)
        return Removed(1)

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Every version of the objects below a prefix, earlier ones and those hidden by a delete marker too.

        In a bucket that keeps no versions, each object is one.
        """
        for version in self._versions.below(prefix, self.prefix + prefix):
            if not version.is_marker:
                yield ObjectVersion(version.key[len(self.prefix) :], version.version_id)

    def retention_of(self, version: ObjectVersion) -> Retention | None:
        """How S3 has locked a version, perhaps until a date that has passed; None where it never was.

        :raises ObjectNotFoundError: it was removed meanwhile.
        """
        return self._versions.retention(version.name, self._located(version))

    def retain(self, version: ObjectVersion, retention: Retention) -> None:
        """Lock a version for longer; S3 refuses to do so for shorter.

        :raises ObjectNotFoundError: it was removed meanwhile.
        """
        self._versions.retain(version.name, self._located(version), retention)

    def _located(self, version: ObjectVersion) -> Version:
        return Version(self.prefix + version.name, version.version_id)

    def now(self) -> datetime:
        """The time by S3's own clock, as of its last answer; before the first, or where answers have none,
        by ours.
        """
        told = self._told
        if told is None:
            return datetime.now(UTC)
        moment, then = told
        return moment + timedelta(seconds=time.monotonic() - then)

    def _note_time(self, answer: Any) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            with contextlib.suppress(ValueError):
                self._told = (parsedate_to_datetime(date).astimezone(UTC), time.monotonic())

    def about_bucket(self, operation: str, request: Callable[[], T]) -> T:
        """Make a request about the bucket itself.

        :param operation: named in errors; where it is denied, the permission
        """
        return self._call(operation, "", request)

    @property
    def _endpoint(self) -> str:
        return self.client.endpoint_url

    def _call(self, operation: str, name: str, request: Callable[[], T]) -> T:
        try:
            answer = request()
        except (BotoCoreError, ClientError) as error:
            self._note_time(getattr(error, "response", None) or {})  # None: the connection broke off
            raise self._translate(operation, name, error) from error
        self._note_time(answer)
        return answer

    def _translate(self, operation: str, name: str, error: Exception) -> StorageError:
        where = f"{self}{name}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return CredentialsError("no S3 credentials: set the login and password of the connection")
        if isinstance(error, ConnectionError | HTTPClientError):
            return StorageError(f"{self._endpoint} did not answer {operation} for {where}: {error}")
        if not isinstance(error, ClientError):
            return StorageError(f"{operation} for {where} failed: {error}")
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _CREDENTIAL_CODES:
            return CredentialsError(f"{self._endpoint} refuses the credentials ({code})")
        if code == "RequestTimeTooSkewed":
            return ClockError(f"{self._endpoint} refuses the time of requests: {say_ahead(self.now())}")
        if code in _DENIED_CODES:
            permission = {
                "ListObjectsV2": "ListBucket",
                "HeadBucket": "ListBucket",
                "HeadObject": "GetObject",
            }
            action = permission.get(operation, operation)
            return AccessDeniedError(f"permission s3:{action} is denied for {where}")
        is_locking = operation in _LOCKING and self.policy.lock_mode is not None
        refused = is_locking and code == "InvalidRequest"
        if refused or code == "ObjectLockConfigurationNotFoundError":
            return ObjectLockError(
                f"bucket {self.bucket!r} takes no locked objects ({code}): create it with Object Lock, or "
                "switch off locking"
            )
        if code == "NoSuchBucket":
            return BucketNotFoundError(f"bucket {self.bucket!r} does not exist at {self._endpoint}")
        if code in _MISSING_CODES:
            return ObjectNotFoundError(f"{where} does not exist")
        return StorageError(f"{operation} for {where} failed: {code or error}")
