"""A proxy in front of a real S3 server that counts requests and breaks those it is told to.

Requests go through byte for byte, so a client signs for the proxy's address and the server accepts that.
What happens to a request is a function of its :class:`Exchange`: it may forward and answer, answer itself,
drop the connection, reset it, or keep silent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

_HEAD_LIMIT_BYTES = 64 << 10
_READ_BYTES = 256 << 10
_UPSTREAM_SECONDS = 60
_STOP_SECONDS = 10


@dataclass(frozen=True)
class Request:
    """A request as the client sent it.

    ``name`` is relative to the repository's prefix: of the object, or what a listing asks for.
    """

    number: int
    operation: str
    name: str
    range: str
    body_bytes: int

    @property
    def place(self) -> str:
        """Operation and top folder, such as ``PutObject packs/``."""
        top, slash, _ = self.name.partition("/")
        return f"{self.operation} {top}{slash}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """The same for each try of a request."""
        return self.operation, self.name, self.range


@dataclass(frozen=True)
class Answer:
    """What the server sent, complete. ``closes``: it closes the connection after it."""

    head: bytes
    body: bytes
    closes: bool


class _GoneError(Exception):
    """The other side has closed the connection, or the proxy is being stopped."""


class _Stream:
    """A socket with the bytes that were read too far."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""

    def read_head(self) -> bytes:
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > _HEAD_LIMIT_BYTES:
                raise _GoneError
            self._rest += self._receive()
        head, self._rest = self._rest[: end + 4], self._rest[end + 4 :]
        return head

    def read(self, count: int) -> bytes:
        parts = [self._rest[:count]]
        self._rest = self._rest[count:]
        missing = count - len(parts[0])
        while missing:
            data = self._receive(missing)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def read_chunks(self) -> bytes:
        """A chunked body as it stands on the wire."""
        parts = []
        while True:
            line = self._read_line()
            size = int(line.split(b";")[0], 16)
            parts += [line, self.read(size + 2) if size else self._read_trailer()]
            if not size:
                return b"".join(parts)

    def read_to_end(self) -> bytes:
        parts = [self._rest]
        with contextlib.suppress(_GoneError):
            while True:
                parts.append(self._receive())
        return b"".join(parts)

    def _read_trailer(self) -> bytes:
        parts = [self._read_line()]
        while parts[-1] != b"\r\n":
            parts.append(self._read_line())
        return b"".join(parts)

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._rest += self._receive()
        line, self._rest = self._rest[: end + 2], self._rest[end + 2 :]
        return line

    def _receive(self, at_most: int = _READ_BYTES) -> bytes:
        try:
            data = self.connection.recv(min(at_most, _READ_BYTES))
        except (OSError, ValueError) as error:
            raise _GoneError from error
        if not data:
            raise _GoneError
        return data


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


class Exchange:
    """One request, and what can be done with it. Each method but :meth:`forward` ends it."""

    def __init__(
        self, proxy: FaultProxy, client: _Stream, request: Request, data: bytes, upstream: _Upstream
    ) -> None:
        self.request = request
        self._data = data
        self._proxy = proxy
        self._client = client
        self._upstream = upstream
        self.keeps_connection = False

    def forward(self) -> Answer:
        """The server's whole answer; the client has seen nothing of it yet."""
        return self._upstream.ask(self.request, self._data)

    def reply(self, answer: Answer) -> None:
        self._send(answer.head + answer.body)
        self.keeps_connection = not answer.closes

    def reply_part(self, answer: Answer, body_bytes: int) -> None:
        """All headers, but only the beginning of the body."""
        self._send(answer.head + answer.body[:body_bytes])

    def error(self, status: int, code: str) -> None:
        """An answer of S3's kind that the server never gave."""
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
            f"<Message>made by the proxy</Message><RequestId>0</RequestId></Error>"
        ).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nx-amz-request-id: 0\r\n\r\n"
        ).encode()
        self._send(head if self.request.operation.startswith("Head") else head + body)
        self.keeps_connection = True

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        linger = struct.pack("ii", 1, 0)
        self._client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._client.connection.close()

    def hang(self) -> None:
        """Say nothing until the client gives up or the proxy stops."""
        connection = self._client.connection
        while not self._proxy.stopping:
            readable, _, _ = select.select([connection], [], [], 0.05)
            if readable and not connection.recv(1, socket.MSG_PEEK):
                return

    def _send(self, data: bytes) -> None:
        try:
            self._client.connection.sendall(data)
        except OSError as error:  # the client was killed, or gave up
            raise _GoneError from error


Fault = Callable[[Exchange], None]
Rule = Callable[[Request], Fault | None]


def healthy(exchange: Exchange) -> None:
    exchange.reply(exchange.forward())


def drop(exchange: Exchange) -> None:
    """Close the connection before the server has seen the request."""


def reset(exchange: Exchange) -> None:
    exchange.reset()


def hang(exchange: Exchange) -> None:
    exchange.hang()


def lose_answer(exchange: Exchange) -> None:
    """The server does it, the client never learns."""
    exchange.forward()
    exchange.reset()


def truncate(exchange: Exchange) -> None:
    """Half of the body, then the end of the connection."""
    answer = exchange.forward()
    exchange.reply_part(answer, len(answer.body) // 2)


def stall(exchange: Exchange) -> None:
    """Half of the body, then silence."""
    answer = exchange.forward()
    exchange.reply_part(answer, len(answer.body) // 2)
    exchange.hang()


def answer_with(status: int, code: str) -> Fault:
    return lambda exchange: exchange.error(status, code)


internal_error = answer_with(500, "InternalError")
slow_down = answer_with(503, "SlowDown")
access_denied = answer_with(403, "AccessDenied")
expired_token = answer_with(400, "ExpiredToken")


def on(place: str, fault: Fault, *, only: int | None = None, first: int = 1) -> Rule:
    """A fault for each request whose place begins like this.

    :param only: but just for the one with this number among them, from 1.
    :param first: but just from this one on.
    """
    count = 0

    def rule(request: Request) -> Fault | None:
        nonlocal count
        if not request.place.startswith(place):
            return None
        count += 1
        return fault if count == only or (only is None and count >= first) else None

    return rule


def first_try(fault: Fault, place: str = "") -> Rule:
    """A fault for the first try of each request, so that every one of them has to be tried again."""
    seen: set[tuple[str, str, str]] = set()

    def rule(request: Request) -> Fault | None:
        if request.identity in seen or not request.place.startswith(place):
            return None
        seen.add(request.identity)
        return fault

    return rule


class _Upstream:
    """The connection to the server that belongs to one of the client's."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._stream: _Stream | None = None

    def ask(self, request: Request, data: bytes) -> Answer:
        try:
            return self._ask(request, data)
        except _GoneError:
            if self._proxy.stopping:
                raise
            return self._ask(request, data)  # the server had closed an idle connection

    def close(self) -> None:
        if self._stream is not None:
            self._proxy.forget(self._stream.connection)
            self._stream = None

    def _ask(self, request: Request, data: bytes) -> Answer:
        if self._stream is None:
            self._stream = _Stream(self._proxy.connect())
        try:
            self._stream.connection.sendall(data)
            answer = self._read_answer(self._stream, request)
        except (OSError, _GoneError) as error:
            self.close()
            raise _GoneError from error
        if answer.closes:
            self.close()
        return answer

    def _read_answer(self, stream: _Stream, request: Request) -> Answer:
        while True:
            head = stream.read_head()
            status = int(head.split(b" ", 2)[1])
            if status >= 200:  # else 100 Continue, which the proxy has said itself
                break
        headers = _headers(head)
        closes = headers.get("connection", "").lower() == "close"
        if request.operation.startswith("Head") or status in (204, 304):
            return Answer(head, b"", closes)
        if "content-length" in headers:
            return Answer(head, stream.read(int(headers["content-length"])), closes)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(head, stream.read_chunks(), closes)
        return Answer(head, stream.read_to_end(), True)


class FaultProxy:
    """Listens on loopback until it is stopped, a thread for each connection.

    :param upstream_url: of the server.
    :param bucket: and ``prefix``: of the repository, so that requests have the engine's names.

    ``rule`` says what to do with a request; None, or a rule that returns None, lets it through.
    """

    def __init__(self, upstream_url: str, bucket: str, prefix: str = "") -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.rule: Rule | None = None
        self.requests: list[Request] = []
        self.stopping = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._busy = 0
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="proxy-accept", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._acceptor.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every connection and thread."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *self._threads):
            thread.join(_STOP_SECONDS)
            assert not thread.is_alive(), f"{thread.name} does not end"
        assert not self._open

    def settle(self) -> None:
        """Wait until no request is under way."""
        self._wait(lambda: not self._busy)

    def drain(self) -> None:
        """Wait until all clients are gone, killed perhaps, and what they had sent has been dealt with."""
        self._wait(lambda: not self._open)

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _UPSTREAM_SECONDS
        while not ready():
            assert time.monotonic() < deadline, "requests are under way that do not end"
            time.sleep(0.002)

    def places(self) -> Counter[str]:
        """How many requests there were of each kind."""
        return Counter(request.place for request in self.requests)

    @contextlib.contextmanager
    def faults(self, rule: Rule | None) -> Iterator[list[Request]]:
        """Apply a rule for a while; gives the requests of that while."""
        self.settle()
        self.requests = []
        self.rule = rule
        try:
            yield self.requests
        finally:
            self.rule = None
            self.settle()

    # -- for the connections' threads --------------------------------------------------------------

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self._upstream, timeout=_UPSTREAM_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        return connection

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _accept(self) -> None:
        while not self.stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._serve, args=(connection,), name="proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        client, upstream = _Stream(connection), _Upstream(self)
        try:
            while not self.stopping and self._serve_one(client, upstream):
                pass
        except (_GoneError, OSError):
            pass
        finally:
            upstream.close()
            self.forget(connection)

    def _serve_one(self, client: _Stream, upstream: _Upstream) -> bool:
        """Whether the connection is kept for another request."""
        head = client.read_head()
        with self._lock:
            self._busy += 1
        try:
            headers = _headers(head)
            if headers.get("expect", "").lower() == "100-continue":
                client.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert "transfer-encoding" not in headers, "no client of these tests sends chunks"
            body = client.read(int(headers.get("content-length", 0)))
            with self._lock:
                request = self._parse(len(self.requests) + 1, head, headers, len(body))
                self.requests.append(request)
                fault = self.rule(request) if self.rule is not None else None
            exchange = Exchange(self, client, request, head + body, upstream)
            (fault or healthy)(exchange)
            return exchange.keeps_connection
        finally:
            with self._lock:
                self._busy -= 1

    def _parse(self, number: int, head: bytes, headers: dict[str, str], body_bytes: int) -> Request:
        verb, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        path, _, query_string = target.partition("?")
        query = parse_qs(query_string, keep_blank_values=True)
        _, _, key = unquote(path).lstrip("/").partition("/")
        if key:
            operation, key = f"{verb.capitalize()}Object", key
        elif "list-type" in query:
            operation, key = "ListObjectsV2", query.get("prefix", [""])[0]
        else:
            operation = f"{verb.capitalize()}Bucket"
        name = key.removeprefix(self._prefix)
        return Request(number, operation, name, headers.get("range", ""), body_bytes)
