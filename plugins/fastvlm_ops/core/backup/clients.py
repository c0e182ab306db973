"""S3 clients as the engine wants them: bounded, without checksums of their own, quick to make and to ask.

Importing botocore's client and making one takes longer than all requests of a small backup, and each of
its requests ten times as long as the exchange itself. So what a backup asks all the time is asked by this
client, and all else by boto3's, which is made when it is first needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from botocore.exceptions import ResponseStreamingError

from fastvlm_ops.core.backup.s3_requests import (
    Answer,
    RedirectedError,
    S3Requests,
    is_plain,
    name_of,
    read_xml,
)
from fastvlm_ops.core.backup.signing import AccessKey
from fastvlm_ops.core.backup.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
else:
    S3Client = object

_BUCKET = re.compile(r"[a-zA-Z0-9.\-_]{1,255}")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
_PUT = {
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ContentType": "content-type",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "StorageClass": "x-amz-storage-class",
}
_GET = {"Range": "range"}
_HEAD = {"ChecksumMode": "x-amz-checksum-mode"}
_LIST = {
    "ContinuationToken": "continuation-token",
    "MaxKeys": "max-keys",
    "Prefix": "prefix",
    "StartAfter": "start-after",
}
_ANSWERED = {
    "content-type": "ContentType",
    "etag": "ETag",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-object-lock-legal-hold": "ObjectLockLegalHoldStatus",
    "x-amz-object-lock-mode": "ObjectLockMode",
    "x-amz-storage-class": "StorageClass",
    "x-amz-version-id": "VersionId",
}
_META = "x-amz-meta-"


class Client(S3Client):
    """A boto3 S3 client with a shorter way to S3 for the requests of backups.

    The shorter way is taken to an endpoint of one's own, where nothing is configured that botocore alone
    understands. Arguments, answers and errors are the same either way.

    :param endpoint_url: None: AWS, which boto3 finds
    :param requests: the shorter way; None where it cannot be taken
    :param make: makes boto3's client
    :param meter: counts requests of both
    """

    def __init__(
        self,
        endpoint_url: str | None,
        requests: S3Requests | None,
        make: Callable[[], S3Client],
        meter: UsageMeter,
    ) -> None:
        self._endpoint_url = endpoint_url
        self._requests = requests
        self._make = make
        self.meter = meter

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.boto, name)

    @cached_property
    def boto(self) -> S3Client:
        """boto3's client."""
        made = self._make()
        self.meter.watch(made)
        return made

    @property
    def endpoint_url(self) -> str:
        """Where it asks."""
        return self._endpoint_url or str(self.boto.meta.endpoint_url)

    def close(self) -> None:
        """End all connections. It can be used on."""
        if self._requests:
            self._requests.close()
        if "boto" in self.__dict__:
            self.boto.close()

    def put_object(self, **arguments: Any) -> Any:
        """Store an object; see boto3."""
        if type(arguments.get("Body")) is not bytes:
            return self.boto.put_object(**arguments)
        return self._ask("put_object", arguments, _PUT, {"Body"})

    def get_object(self, **arguments: Any) -> Any:
        """Return an object; see boto3."""
        return self._ask("get_object", arguments, _GET, stream=True)

    def head_object(self, **arguments: Any) -> Any:
        """Return what is known of an object; see boto3."""
        return self._ask("head_object", arguments, _HEAD)

    def delete_object(self, **arguments: Any) -> Any:
        """Remove an object; see boto3."""
        return self._ask("delete_object", arguments, {})

    def list_objects_v2(self, **arguments: Any) -> Any:
        """Return a page of a listing; see boto3."""
        requests = self._on_short_way(arguments, {"Bucket", *_LIST})
        if requests is None:
            return self.boto.list_objects_v2(**arguments)
        query = {_LIST[name]: str(value) for name, value in arguments.items() if name in _LIST}
        query |= {"list-type": "2", "encoding-type": "url"}
        try:
            answer = requests.send("ListObjectsV2", "GET", arguments["Bucket"], query=query)
        except RedirectedError:
            self._requests = None
            return self.boto.list_objects_v2(**arguments)
        return _listing(answer)

    def _ask(
        self,
        method: str,
        arguments: dict[str, Any],
        headers: Mapping[str, str],
        others: Collection[str] = (),
        *,
        stream: bool = False,
    ) -> Any:
        """Ask about an object.

        :param method: of boto3's client, for the longer way
        :param headers: which header an argument becomes
        :param others: arguments that become none
        """
        requests = self._on_short_way(arguments, {"Bucket", "Key", *headers, *others})
        if requests is None or not arguments.get("Key"):
            return getattr(self.boto, method)(**arguments)
        verb = method.partition("_")[0]
        try:
            answer = requests.send(
                f"{verb.title()}Object",
                verb.upper(),
                f"{arguments['Bucket']}/{arguments['Key']}",
                headers={headers[name]: _text(value) for name, value in arguments.items() if name in headers},
                body=arguments.get("Body"),
                stream=stream,
            )
        except RedirectedError:
            self._requests = None
            return getattr(self.boto, method)(**arguments)
        return _object_answer(answer)

    def _on_short_way(self, arguments: Mapping[str, Any], known: Collection[str]) -> S3Requests | None:
        fits = arguments.keys() <= set(known) and _BUCKET.fullmatch(str(arguments.get("Bucket", "")))
        return self._requests if fits else None


def create_client(
    *,
    endpoint_url: str | None = None,
    region_name: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    connect_timeout_seconds: float = 10,
    read_timeout_seconds: float = 30,
    attempts: int = 4,
) -> Client:
    """An S3 client set up for the engine: bounded time-outs and retries.

    A request that is never answered fails after about ``attempts`` times a time-out, two minutes by
    default, and with it the run, which can be resumed.

    Checksums are ours (SHA-256 of each object), so boto3's default CRC is switched off.
    An own endpoint is addressed by path, as few of them resolve buckets as host names.
    """
    region = region_name or "us-east-1"

    def make() -> S3Client:
        from fastvlm_ops.core.backup.boto_clients import make_boto_client

        return make_boto_client(
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            connect_timeout=connect_timeout_seconds,
            read_timeout=read_timeout_seconds,
            attempts=attempts,
        )

    meter = UsageMeter()
    requests = None
    key = _key(access_key_id, secret_access_key, session_token)
    if endpoint_url and key and is_plain(endpoint_url) and not _needs_botocore():
        requests = S3Requests(
            endpoint_url,
            region,
            key,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            attempts=attempts,
            meter=meter,
        )
    return Client(endpoint_url, requests, make, meter)


def _key(access_key_id: str | None, secret: str | None, token: str | None) -> AccessKey | None:
    """Who asks, where that is simply said: here, or in the environment, where botocore looks first."""
    if not access_key_id and not secret:
        access_key_id, secret = (
            os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        )
        token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return AccessKey(access_key_id, secret, token) if access_key_id and secret else None


def _needs_botocore() -> bool:
    """Whether there are proxies or a configuration file, which it understands."""
    if any(value and name.lower() in _PROXIES for name, value in os.environ.items()):
        return True
    return os.path.isfile(os.path.expanduser(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"))


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        moment = value.astimezone(UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if moment.microsecond else "%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def _object_answer(answer: Answer) -> dict[str, Any]:
    """What is said of an object, as botocore says it."""
    headers = answer.headers
    found: dict[str, Any] = {"ResponseMetadata": answer.metadata, "Body": answer.body}
    found |= {member: headers[name] for name, member in _ANSWERED.items() if name in headers}
    found["Metadata"] = {
        name.removeprefix(_META): value for name, value in headers.items() if name.startswith(_META)
    }
    if "content-length" in headers:
        found["ContentLength"] = int(headers["content-length"])
    if "last-modified" in headers:
        found["LastModified"] = parsedate_to_datetime(headers["last-modified"])
    if until := headers.get("x-amz-object-lock-retain-until-date"):
        found["ObjectLockRetainUntilDate"] = datetime.fromisoformat(until)
    return found


def _listing(answer: Answer) -> dict[str, Any]:
    """A page of a listing, as botocore reads it."""
    root = read_xml(answer.content)
    if root is None:
        raise ResponseStreamingError(error="the listing is no XML")
    found: dict[str, Any] = {"ResponseMetadata": answer.metadata, "Contents": []}
    for part in root:
        name = name_of(part)
        if name == "Contents":
            found["Contents"].append(_listed({name_of(each): each.text or "" for each in part}))
        elif name in ("NextContinuationToken", "ContinuationToken"):
            found[name] = part.text or ""
        elif name == "IsTruncated":
            found[name] = part.text == "true"
        elif name == "KeyCount":
            found[name] = int(part.text or 0)
    if not found["Contents"]:
        del found["Contents"]
    return found


def _listed(texts: dict[str, str]) -> dict[str, Any]:
    item: dict[str, Any] = {
        "Key": unquote_plus(texts["Key"]),
        "Size": int(texts["Size"]),
        "LastModified": datetime.fromisoformat(texts["LastModified"]),
    }
    return item | {name: texts[name] for name in ("ETag", "StorageClass") if name in texts}
