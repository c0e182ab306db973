"""A proxy in front of a real S3 server that counts requests and breaks those it is told to.

Requests go through as they are, so a client signs for the proxy's address and the server accepts that. What
happens to a request is a function of its :class:`Exchange`: it may forward and answer, answer itself, drop
the connection, reset it, or keep silent; and before or after any of these do something else, such as killing
the client.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_UPSTREAM_SECONDS = 60
_STOP_SECONDS = 10
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """A request as the client sent it; ``number`` counts from 1 since the rule was set.

    ``name`` is the object's, or the prefix that a listing asks for, relative to the repository.
    """

    number: int
    operation: str
    name: str
    range: str
    body_bytes: int

    @property
    def place(self) -> str:
        """Such as ``PutObject packs/ab/abcdef``."""
        return f"{self.operation} {self.name}"


@dataclass(frozen=True)
class Answer:
    """What the server answered, complete."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    length: int  # which a HEAD states without sending it


class Exchange:
    """One request, and what can be done with it. Unless it is replied to, the connection is closed."""

    def __init__(self, handler: _Handler, request: Request, body: bytes) -> None:
        self.request = request
        self._handler = handler
        self.body = body

    def forward(self) -> Answer:
        """Have the server do it; the client has seen nothing of the answer yet."""
        handler = self._handler
        upstream = HTTPConnection(*handler.server.proxy.upstream, timeout=_UPSTREAM_SECONDS)
        try:
            upstream.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders(self.body)
            response = upstream.getresponse()
            body = response.read()
            headers = tuple(pair for pair in response.getheaders() if pair[0].lower() not in _NOT_PASSED_ON)
            length = int(response.getheader("Content-Length") or len(body))
            return Answer(response.status, headers, body, length)
        finally:
            upstream.close()

    def reply(self, answer: Answer, body_bytes: int | None = None) -> None:
        """Send the answer on.

        :param body_bytes: only so many, then nothing more.
        """
        handler = self._handler
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        if answer.status != 204:
            handler.send_header("Content-Length", str(answer.length))
        handler.end_headers()
        handler.wfile.write(answer.body[:body_bytes])
        handler.close_connection = body_bytes is not None

    def error(self, status: int, code: str) -> None:
        """An answer of S3's kind that the server never gave."""
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'.encode()
        sent = b"" if self._handler.command == "HEAD" else body
        self.reply(Answer(status, (("Content-Type", "application/xml"),), sent, len(body)))

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        connection = self._handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self._handler.rfile.close()  # the last reference to it

    def hang(self) -> None:
        """Say nothing until the client gives up or the proxy stops."""
        connection = self._handler.connection
        while not self._handler.server.proxy.stopping:
            readable, _, _ = select.select([connection], [], [], 0.05)
            if readable and not connection.recv(1, socket.MSG_PEEK):
                return


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
    exchange.reply(answer, len(answer.body) // 2)


def stall(exchange: Exchange) -> None:
    """Half of the body, then silence."""
    truncate(exchange)
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


def first_try(fault: Fault) -> Rule:
    """A fault for each request when it comes first, so that every one of them has to be tried again."""
    seen: set[tuple[str, str]] = set()

    def rule(request: Request) -> Fault | None:
        identity = request.place, request.range
        if identity in seen:
            return None
        seen.add(identity)
        return fault

    return rule


class FaultProxy:
    """Listens on loopback until it is stopped, a thread for each connection.

    :param upstream_url: of the server.
    :param prefix: of the repository, so that requests have the engine's names.
    """

    def __init__(self, upstream_url: str, prefix: str) -> None:
        parts = urlsplit(upstream_url)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.prefix = prefix
        self.stopping = False
        self._server = _Server(self)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._rule: Rule | None = None
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="proxy")

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End every connection and thread."""
        self.stopping = True
        self._server.shutdown()
        self._server.end_connections()
        self._thread.join(_STOP_SECONDS)
        self.wait_for_clients()
        self._server.server_close()

    def wait_for_clients(self) -> None:
        """Until all are gone, killed perhaps, and what they had sent has been dealt with."""
        deadline = time.monotonic() + _UPSTREAM_SECONDS + _STOP_SECONDS
        while self._server.connections:
            assert time.monotonic() < deadline, "there are connections that do not end"
            time.sleep(0.002)

    @contextlib.contextmanager
    def faults(self, rule: Rule | None) -> Iterator[list[Request]]:
        """Apply a rule for a while; gives the requests of that while."""
        with self._lock:
            self._requests, self._rule = [], rule
        try:
            yield self._requests
        finally:
            with self._lock:
                self._rule = None

    def count(self, operation: str, name: str, part: str, body_bytes: int) -> tuple[Request, Fault]:
        """Take note of a request; with it what is to happen to it."""
        with self._lock:
            request = Request(len(self._requests) + 1, operation, name, part, body_bytes)
            self._requests.append(request)
            return request, (self._rule(request) if self._rule is not None else None) or healthy


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True  # joins the threads
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.connections: set[socket.socket] = set()

    def end_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        self.server.connections.add(self.connection)
        try:
            with contextlib.suppress(OSError):  # the client was killed, gave up, or the proxy stops
                super().handle()
        finally:
            self.server.connections.discard(self.connection)

    def _serve(self) -> None:
        assert "transfer-encoding" not in self.headers, "no client of these tests sends chunks"
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # killed while it was sending
            self.close_connection = True
            return
        part = self.headers.get("Range", "")
        request, fault = self.server.proxy.count(*self._meaning(), part, len(body))
        self.close_connection = True
        fault(Exchange(self, request, body))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _meaning(self) -> tuple[str, str]:
        """Operation and name in S3's terms."""
        path, _, query_string = self.path.partition("?")
        _, _, key = unquote(path).lstrip("/").partition("/")
        query = parse_qs(query_string, keep_blank_values=True)
        operation = f"{self.command.capitalize()}{'Object' if key else 'Bucket'}"
        if "retention" in query:
            operation += "Retention"
        if "list-type" in query:
            operation, key = "ListObjectsV2", query.get("prefix", [""])[0]
        return operation, key.removeprefix(self.server.proxy.prefix)

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""
