"""An HTTP server on loopback that answers as Prometheus does, or as one should not.

What happens to a request is a function of its :class:`Exchange`; without one, each request is answered with
the data of :attr:`StandIn.series`.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HOUR = 3600


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def times(self) -> list[float]:
        """The points of a range query, or the time of an instant one."""
        if "time" in self.fields:
            return [float(self.fields["time"])]
        start, end, step = (float(self.fields[name]) for name in ("start", "end", "step"))
        count = round((end - start) / step, 6) // 1 + 1
        return [start + number * step for number in range(int(count))]


class Exchange:
    """One request, and what can be done with it. Unless it is replied to, the connection is closed."""

    def __init__(self, handler: _Handler, asked: Asked) -> None:
        self.asked = asked
        self._handler = handler

    def reply(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        length: int | None = None,
        **more: str,
    ) -> None:
        """Send an answer; with a length that is not the body's, it is cut off."""
        handler = self._handler
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in more.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    def answer(self, result: Any, kind: str = "matrix", **more: Any) -> None:
        """Send data as Prometheus does."""
        data = {"resultType": kind, "result": result}
        self.reply(200, json.dumps({"status": "success", "data": data, **more}).encode())

    def error(self, status: int, message: str, **headers: str) -> None:
        """Send an error as Prometheus does."""
        document = {"status": "error", "errorType": "execution", "error": message}
        self.reply(status, json.dumps(document).encode(), **headers)

    def trickle(self, seconds: float) -> None:
        """Send a byte at a time, for so long."""
        handler = self._handler
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not handler.server.stopping:
            handler.wfile.write(b" ")
            time.sleep(0.05)
        handler.close_connection = True

    def cut_chunk(self) -> None:
        """Begin a chunked body, and end the connection."""
        handler = self._handler
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b'1000\r\n{"status": "success",')
        handler.close_connection = True

    def hang(self) -> None:
        """Say nothing until the server stops or the client goes."""
        connection = self._handler.connection
        connection.settimeout(0.05)
        while not self._handler.server.stopping:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


Act = Callable[[Exchange], None]


def values(exchange: Exchange, value: Callable[[float], str] = lambda _time: "1") -> list[list[Any]]:
    """The samples of a range query, one at each point."""
    return [[time, value(time)] for time in exchange.asked.times]


def healthy(exchange: Exchange) -> None:
    """One series of ones, of a range or of a time."""
    labels = {"service": "vlm-api"}
    if exchange.asked.path.endswith("/query"):
        exchange.answer([{"metric": labels, "value": values(exchange)[0]}], "vector")
    else:
        exchange.answer([{"metric": labels, "values": values(exchange)}])


def in_turn(*acts: Act) -> Act:
    """One act after the other, a request each; the last one from then on."""
    left = list(acts)

    def act(exchange: Exchange) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return act


class StandIn:
    """Listens until it is left; a thread for each connection.

    :param act: what happens to each request
    :param tls: of an HTTPS server; None for HTTP
    """

    def __init__(self, act: Act = healthy, *, tls: ssl.SSLContext | None = None) -> None:
        self.act = act
        self.asked: list[Asked] = []
        self._server = _Server(self, tls)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="stand-in")

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stopping = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def points(self) -> Sequence[float]:
        """All the points that were asked for, in turn."""
        return [moment for asked in self.asked for moment in asked.times]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, owner: StandIn, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.stopping = False
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed: clients of these tests go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    server: _Server
    connection: socket.socket

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        fields = dict(parse_qsl(parts.query) + parse_qsl(body))
        asked = Asked(self.command, parts.path, fields, dict(self.headers.items()))
        self.server.owner.asked.append(asked)
        self.close_connection = True
        self.server.owner.act(Exchange(self, asked))

    do_GET = do_POST = _serve

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""
