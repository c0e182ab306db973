"""Signed requests to an S3 endpoint over urllib3: connections that are kept, time-outs, tries.

Errors are botocore's, raised where botocore raises them, so that callers need not know who asked.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import urllib3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from urllib3 import exceptions as failures

from fastvlm_ops.core.backup.signing import AccessKey, Signer, quoted_path, quoted_query
from fastvlm_ops.core.backup.usage import UsageMeter

#: Waits before another try, as botocore's standard mode has them: a random share of a time that doubles.
_WAIT_SECONDS, _THROTTLED_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 1.0, 20.0
_BROKEN_STATUSES = {500, 502, 503, 504}
_BROKEN_CODES = {"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"}
_THROTTLED_CODES = {
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_OTHER_REGION = "AuthorizationHeaderMalformed"
_CONNECTIONS = 16
_DEFAULT_PORTS = {"http": 80, "https": 443}


class RedirectedError(Exception):
    """The bucket is elsewhere: botocore knows how to find it."""


class Body:
    """The body of an answer, as botocore's ``StreamingBody``: what comes through a connection as it is read.

    :raises BotoCoreError: from what reads, where the connection breaks off
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self._url = url

    def read(self, amt: int | None = None) -> bytes:
        """Return the next bytes, at most so many; all that are left without a number."""
        try:
            return self._response.read(amt)
        except failures.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (failures.HTTPError, OSError) as error:
            raise ResponseStreamingError(error=error) from error

    def close(self) -> None:
        """End it. A connection whose body was not read to its end is not used again."""
        self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Answer:
    """What S3 answered.

    :param headers: names in lower case
    :param content: of an answer that was read whole
    :param body: of one that is read by who asked
    """

    status: int
    headers: dict[str, str]
    body: Body
    content: bytes = b""

    @property
    def metadata(self) -> dict[str, Any]:
        """As botocore's ``ResponseMetadata``."""
        return {"HTTPStatusCode": self.status, "HTTPHeaders": self.headers}


@dataclass(frozen=True)
class _Request:
    operation: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | None


def is_plain(endpoint_url: str) -> bool:
    """Whether this is an address as in ``https://s3.example.com:9000``, perhaps with a path."""
    try:
        url = urlsplit(endpoint_url)
        _ = url.port
    except ValueError:
        return False
    extra = url.query or url.fragment or "@" in url.netloc
    return url.scheme in _DEFAULT_PORTS and bool(url.hostname) and not extra


class S3Requests:
    """Asks one endpoint, by path, from any thread.

    :param endpoint_url: as :func:`is_plain` says
    :param attempts: how often a request is made at most
    :param meter: counts them
    """

    def __init__(
        self,
        endpoint_url: str,
        region: str,
        key: AccessKey,
        *,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        attempts: int,
        meter: UsageMeter,
    ) -> None:
        url = urlsplit(endpoint_url)
        self._host = url.netloc
        if url.port == _DEFAULT_PORTS[url.scheme]:
            self._host = self._host.rpartition(":")[0]
        self._path = url.path.rstrip("/")
        self._url = endpoint_url
        self._signer = Signer(key, region)
        self._attempts = attempts
        self._meter = meter
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=connect_timeout_seconds, read=read_timeout_seconds),
            "maxsize": _CONNECTIONS,
            "retries": False,
        }
        if url.scheme == "https":
            options |= {"cert_reqs": "CERT_REQUIRED", "ca_certs": _authorities()}
        kind = urllib3.HTTPSConnectionPool if url.scheme == "https" else urllib3.HTTPConnectionPool
        self._pool: Callable[[], urllib3.HTTPConnectionPool] = lambda: kind(
            url.hostname or "", url.port, **options
        )
        self._connections = self._pool()

    def close(self) -> None:
        """End all connections. It can be used on."""
        ended, self._connections = self._connections, self._pool()
        ended.close()

    def send(
        self,
        operation: str,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        stream: bool = False,
    ) -> Answer:
        """Make a request, again where that may help, and return a good answer.

        :param operation: S3's name of it, as in ``PutObject``
        :param name: bucket and key, or bucket alone
        :param stream: the body is left to be read
        :raises BotoCoreError: there was no answer
        :raises ClientError: it was refused
        :raises RedirectedError: it has to be asked elsewhere
        """
        request = _Request(
            operation, method, quoted_path(f"{self._path}/{name}"), query or {}, headers or {}, body
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._ask(request, stream)
            except (ClientError, BotoCoreError) as error:
                throttled = _is_throttled(error)
                if attempt == self._attempts or not (throttled or _is_broken(error)):
                    raise
            longest = (_THROTTLED_WAIT_SECONDS if throttled else _WAIT_SECONDS) * 2 ** (attempt - 1)
            time.sleep(random.random() * min(longest, _LONGEST_WAIT_SECONDS))  # noqa: S311 - no secret

    def _ask(self, request: _Request, stream: bool) -> Answer:
        self._meter.sent(request.operation, request.method, len(request.body or b""))
        response = self._exchange(request)
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(response.status, headers, Body(response, self._url))
        if stream and response.status < 300:
            return answer
        with answer.body:
            content = b"" if request.method == "HEAD" else answer.body.read()
        self._meter.received(len(content))
        if response.status < 300:
            return replace(answer, content=content)
        error = _told(content) or {"Code": str(response.status), "Message": response.reason or ""}
        if response.status < 400 or error["Code"] == _OTHER_REGION:
            raise RedirectedError
        refusal: Any = {"Error": error, "ResponseMetadata": answer.metadata}
        raise ClientError(refusal, request.operation)

    def _exchange(self, request: _Request) -> urllib3.BaseHTTPResponse:
        query = quoted_query(request.query)
        headers = {"host": self._host, **request.headers}
        signed = self._signer.signed(request.method, request.path, query, headers, datetime.now(UTC))
        try:
            return self._connections.urlopen(
                request.method,
                f"{request.path}?{query}" if query else request.path,
                body=request.body,
                headers=signed,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except failures.SSLError as error:
            raise SSLError(endpoint_url=self._url, error=error) from error
        except (failures.NewConnectionError, failures.NameResolutionError) as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        except failures.ConnectTimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self._url, error=error) from error
        except failures.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except failures.ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        except (failures.HTTPError, OSError) as error:
            raise HTTPClientError(error=error) from error


def _authorities() -> str:
    """The certificates that botocore trusts."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if found := os.environ.get(name):
            return found
    import certifi

    return certifi.where()


def read_xml(text: bytes) -> ElementTree.Element | None:
    """Return the root of an answer; None where it is no XML."""
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - expat itself limits what entities may expand to
    except ElementTree.ParseError:
        return None


def name_of(part: ElementTree.Element) -> str:
    """Return the name of an element without its namespace, which not all endpoints say."""
    return part.tag.rpartition("}")[2]


def _told(text: bytes) -> dict[str, str] | None:
    """What the body of a refusal says; None where it says nothing that can be read."""
    root = read_xml(text)
    found = {} if root is None else {name_of(part): part.text or "" for part in root}
    return found if found.get("Code") else None


def _is_broken(error: Exception) -> bool:
    if not isinstance(error, ClientError):
        return True
    answered = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return answered in _BROKEN_STATUSES or error.response["Error"]["Code"] in _BROKEN_CODES


def _is_throttled(error: Exception) -> bool:
    if not isinstance(error, ClientError):
        return False
    answered = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return answered == 429 or error.response["Error"]["Code"] in _THROTTLED_CODES
