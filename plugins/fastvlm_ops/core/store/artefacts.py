"""Big results as S3 objects, named by the run that made them, with their hash as a row.

A retried task that makes the same bytes changes nothing; other bytes under a name that exists are refused, by
the row and by S3's conditional write. The object comes before the row: a row never points to nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import select

from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.engine import Store
from fastvlm_ops.core.store.errors import (
    ArtefactConflictError,
    ArtefactDamagedError,
    ArtefactStorageError,
)
from fastvlm_ops.core.store.tables.shared import artefacts
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.=-]{0,99}){0,9}")
_CONFLICT_ATTEMPTS = 8
_EXISTS = {"PreconditionFailed", "412"}
_MISSING = {"NoSuchKey", "NotFound", "404"}


@dataclass(frozen=True)
class Artefact:
    """A big result.

    :param run_key: of the run that made it: ``<dag id>/<run id>``
    :param name: its name in that run
    :param uri: where it is: ``s3://<bucket>/<key>``
    :param sha256: of its bytes, in hex
    :param size_bytes: of its bytes
    :param content_type: as in ``application/json``
    :param created_at: when it was first recorded, in UTC
    """

    run_key: str
    name: str
    uri: str
    sha256: str
    size_bytes: int
    content_type: str
    created_at: datetime


def list_artefacts(store: Store, run_key: str) -> list[Artefact]:
    """Return what is recorded of the artefacts of a run, by name.

    :param store: the operations database
    :param run_key: of the run that made them
    """
    query = select(artefacts).where(artefacts.c.run_key == run_key).order_by(artefacts.c.name)
    with store.read() as connection:
        return [Artefact(**row._mapping) for row in connection.execute(query)]


class ArtefactStore:
    """The artefacts of one operations database, in one bucket and prefix.

    :param store: the operations database
    :param client: boto3 S3 client
    :param bucket: which must exist
    :param prefix: where in the bucket; empty for ``artefacts/`` at its top
    :raises ArtefactStorageError: from every method: S3 did not answer, or refused
    """

    def __init__(self, store: Store, client: S3Client, *, bucket: str, prefix: str = "") -> None:
        self._store = store
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def put(self, run_key: str, name: str, data: bytes, *, content_type: str) -> Artefact:
        """Store an artefact; the same again is what is there already.

        :param run_key: of the run that makes it: ``<dag id>/<run id>``
        :param name: its name in that run, as in ``forecast.parquet``
        :param data: all of it
        :param content_type: as in ``application/json``
        :raises ArtefactConflictError: the run has other bytes under this name
        :raises ValueError: the name or the run key cannot be part of an object's name
        """
        if not run_key or not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} of run {run_key!r} cannot name an artefact: use letters, digits, _.=-/"
            )
        digest = hashlib.sha256(data).digest()
        existing = self.find(run_key, name)
        if existing is not None:
            if existing.sha256 != digest.hex():
                raise _conflict(existing.uri, run_key)
            return existing
        key = f"{self._prefix}artefacts/{quote(run_key, safe='')}/{name}"
        self._put_object(key, data, digest, content_type, run_key)
        row = {
            "run_key": run_key,
            "name": name,
            "uri": f"s3://{self._bucket}/{key}",
            "sha256": digest.hex(),
            "size_bytes": len(data),
            "content_type": content_type,
        }
        with self._store.write() as connection:
            row["created_at"] = now(connection)
            # Nothing of an existing row is changed: another try of the task may have been here meanwhile.
            upsert(connection, artefacts, [row], key=("run_key", "name"), keep=tuple(row))
        recorded = self.find(run_key, name)
        if recorded is None or recorded.sha256 != digest.hex():
            raise _conflict(str(row["uri"]), run_key)
        return recorded

    def find(self, run_key: str, name: str) -> Artefact | None:
        """Return what is recorded of an artefact; None where there is none."""
        query = select(artefacts).where(artefacts.c.run_key == run_key, artefacts.c.name == name)
        with self._store.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else Artefact(**row._mapping)

    def list(self, run_key: str) -> list[Artefact]:
        """Return the artefacts of a run, by name."""
        return list_artefacts(self._store, run_key)

    def get(self, artefact: Artefact) -> bytes:
        """Return the bytes of an artefact, checked against its hash.

        :raises ArtefactDamagedError: they are missing, or are not what was stored
        """
        bucket, _, key = artefact.uri.removeprefix("s3://").partition("/")
        data = self._get_object(bucket, key)
        if data is None:
            raise ArtefactDamagedError(f"{artefact.uri} is recorded but does not exist")
        if hashlib.sha256(data).hexdigest() != artefact.sha256:
            raise ArtefactDamagedError(f"{artefact.uri} is not what was stored: its SHA-256 differs")
        return data

    def _put_object(self, key: str, data: bytes, digest: bytes, content_type: str, run_key: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        uri = f"s3://{self._bucket}/{key}"
        # Asked first too: some endpoints accept If-None-Match and ignore it.
        if self._holds_same(key, digest, uri, run_key):
            return
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type,
                    ChecksumSHA256=base64.b64encode(digest).decode(),
                    IfNoneMatch="*",
                )
                return
            except ClientError as error:
                code = _code(error)
                # Refused is also what our own write is, tried again after its answer was lost.
                if code in _EXISTS and self._holds_same(key, digest, uri, run_key):
                    return
                if code != "ConditionalRequestConflict" and code not in _EXISTS:
                    raise ArtefactStorageError(f"{uri} could not be written: {code}") from error
                time.sleep(0.05 * 2**attempt)  # another write to this name was under way
            except BotoCoreError as error:
                raise ArtefactStorageError(f"{uri} could not be written: {error}") from error
        raise ArtefactStorageError(f"{uri} could not be written: others keep writing to this name")

    def _holds_same(self, key: str, digest: bytes, uri: str, run_key: str) -> bool:
        stored = self._get_object(self._bucket, key)
        if stored is None:
            return False
        if hashlib.sha256(stored).digest() != digest:
            raise _conflict(uri, run_key)
        return True

    def _get_object(self, bucket: str, key: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise ArtefactStorageError(f"s3://{bucket}/{key} could not be read: {_code(error)}") from error
        except BotoCoreError as error:
            raise ArtefactStorageError(f"s3://{bucket}/{key} could not be read: {error}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) or str(error)


def _conflict(uri: str, run_key: str) -> ArtefactConflictError:
    return ArtefactConflictError(
        f"{uri} holds other bytes than run {run_key!r} has made now; artefacts are never replaced: clear the"
        " run under a new run id, or make the result the same each time"
    )
