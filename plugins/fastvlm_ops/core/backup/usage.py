"""What S3 was asked for: counted where it is sent, so that each attempt of a request counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Behind the name of a task: what it has asked of the second place.
REPLICA_SUFFIX = "@replica"

_VERBS = {
    "PutObject": "puts",
    "GetObject": "gets",
    "HeadObject": "heads",
    "HeadBucket": "heads",
    "ListObjectsV2": "lists",
    "ListObjectVersions": "lists",
    "DeleteObject": "deletes",
    "CopyObject": "copies",
}
_BY_METHOD = {"PUT": "puts", "POST": "puts", "HEAD": "heads", "DELETE": "deletes"}


@dataclass(frozen=True)
class Usage:
    """Requests by verb, and bytes of the bodies that were sent, and of those that were received whole.

    A request that was tried three times is three. Other requests, as for a bucket's configuration, count
    with the verb of their method.
    """

    puts: int = 0
    gets: int = 0
    heads: int = 0
    lists: int = 0
    deletes: int = 0
    copies: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def requests(self) -> int:
        """Requests of all verbs."""
        return self.puts + self.gets + self.heads + self.lists + self.deletes + self.copies

    def since(self, before: Usage) -> Usage:
        """What has been used since ``before`` was taken from the same storage."""
        return Usage(**{name: getattr(self, name) - getattr(before, name) for name in _FIELDS})

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in _FIELDS})

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


_FIELDS = tuple(field.name for field in fields(Usage))


class UsageMeter:
    """Counts what one client sends and receives, from any thread."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_FIELDS, 0)
        self._lock = Lock()

    @property
    def usage(self) -> Usage:
        """All of it so far."""
        with self._lock:
            return Usage(**self._counts)

    def received(self, size_bytes: int) -> None:
        """Count the bytes of a body that was read."""
        with self._lock:
            self._counts["received_bytes"] += size_bytes

    def sent(self, operation: str, method: str, size_bytes: int) -> None:
        """Count one attempt of a request.

        :param operation: S3's name of it, as in ``PutObject``
        :param size_bytes: of its body
        """
        verb = _VERBS.get(operation) or _BY_METHOD.get(method, "gets")
        with self._lock:
            self._counts[verb] += 1
            self._counts["sent_bytes"] += size_bytes

    def watch(self, client: S3Client) -> None:
        """Count what a client of boto3 does from here on."""
        client.meta.events.register("before-send.s3", self._sending)
        client.meta.events.register("response-received.s3", self._answered)

    def _sending(self, request: Any, event_name: str, **_: Any) -> None:
        """Called by botocore for each attempt; what it returns would be taken for the answer."""
        size_bytes = int(request.headers.get("Content-Length") or 0)
        self.sent(event_name.rpartition(".")[2], request.method, size_bytes)

    def _answered(self, response_dict: dict[str, Any] | None, **_: Any) -> None:
        """Bodies that botocore has read itself: listings, and what errors say. Others are read later."""
        body = None if response_dict is None else response_dict.get("body")
        if isinstance(body, bytes) and body:
            self.received(len(body))
