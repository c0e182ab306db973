"""The objects of the capacity domain in S3. One PUT replaces an object whole: one sees the old or the new."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastvlm_ops.core.store.errors import ArtefactDamagedError, ArtefactStorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MISSING = {"NoSuchKey", "NotFound", "404"}
_DELETED_AT_ONCE = 1000
#: What the names of working objects, and of forecasts, begin with.
RUNS, FORECASTS = "runs/", "forecasts/"
_FOLDER = "as_of=%Y-%m-%dT%HZ"


class CapacityObjects:
    """What the capacity domain keeps in one bucket, below ``capacity/``.

    :param client: boto3 S3 client
    :param bucket: which must exist
    :param prefix: where in the bucket; empty for its top
    :raises ArtefactStorageError: from every method: S3 did not answer, or refused
    """

    def __init__(self, client: S3Client, *, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/capacity/" if prefix.strip("/") else "capacity/"

    def uri(self, name: str) -> str:
        """Return where an object is.

        :param name: of the object, from ``capacity/``
        """
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def put(self, name: str, data: bytes, *, content_type: str = "application/vnd.apache.parquet") -> str:
        """Store an object, in place of what had its name; return its URI.

        :param name: of the object
        :param data: all of it; S3 itself refuses it when it was damaged on the way
        :param content_type: as in ``application/json``
        """
        from botocore.exceptions import BotoCoreError, ClientError

        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Body=data,
                ContentType=content_type,
                ChecksumSHA256=digest,
            )
        except (BotoCoreError, ClientError) as error:
            raise ArtefactStorageError(f"{self.uri(name)} could not be written: {error}") from error
        return self.uri(name)

    def get(self, name: str, *, remedy: str) -> bytes:
        """Return an object.

        :param name: of the object
        :param remedy: what to do where there is none, for the message
        :raises ArtefactDamagedError: there is none
        """
        data = self.find(name)
        if data is None:
            raise ArtefactDamagedError(f"{self.uri(name)} does not exist; {remedy}")
        return data

    def find(self, name: str) -> bytes | None:
        """Return an object, or None where there is none.

        :param name: of the object
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code", "")) in _MISSING:
                return None
            raise ArtefactStorageError(f"{self.uri(name)} could not be read: {error}") from error
        except BotoCoreError as error:
            raise ArtefactStorageError(f"{self.uri(name)} could not be read: {error}") from error

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield the names of objects, with the time of their last change, in order.

        :param prefix: that the names begin with
        """
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"].removeprefix(self._prefix), item["LastModified"]
        except (BotoCoreError, ClientError) as error:
            raise ArtefactStorageError(f"{self.uri(prefix)} could not be listed: {error}") from error

    def remove(self, names: list[str]) -> None:
        """Remove objects; nothing happens for those that are not there.

        :param names: of the objects
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for start in range(0, len(names), _DELETED_AT_ONCE):
                keys = [{"Key": self._prefix + name} for name in names[start : start + _DELETED_AT_ONCE]]
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})  # type: ignore[typeddict-item]
        except (BotoCoreError, ClientError) as error:
            raise ArtefactStorageError(
                f"{self.uri(names[0])} and others could not be removed: {error}"
            ) from error


def run_folder(run_key: str) -> str:
    """Return the name that a run's working objects begin with.

    :param run_key: ``<dag id>/<run id>``
    """
    return f"{RUNS}{quote(run_key, safe='')}/"


def partition_folder(as_of: datetime) -> str:
    """Return the name that the objects of an as-of hour's forecasts begin with.

    :param as_of: aware, in UTC
    """
    return f"{FORECASTS}{as_of:{_FOLDER}}/"


def as_of_in(name: str) -> datetime | None:
    """Return the as-of hour whose forecasts an object belongs to; None where it is another.

    :param name: of the object
    """
    folder = name.removeprefix(FORECASTS).partition("/")[0]
    try:
        return datetime.strptime(folder, _FOLDER).replace(tzinfo=UTC)
    except ValueError:
        return None
