"""A service to be drilled, small enough to be told exactly how to behave, with a ledger of its own."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Mode = Literal["well", "failing", "wrong", "hanging", "cutting"]


@dataclass
class DrilledService:
    """Answers on a port of 127.0.0.1 until :meth:`close`.

    :param mode: how requests and writes are answered from now on: with 500, with another answer than usual,
        not for 30 s, or not at all, the row being stored before the connection is cut
    """

    mode: Mode = "well"
    rows: dict[str, str] = field(default_factory=dict)
    #: What was committed, and when: the truth that a ledger is compared with.
    committed: list[tuple[str, int]] = field(default_factory=list)
    #: When each request was answered rightly.
    served: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        # Clients that have given up are what is tested.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End it: nothing listens any more."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                if path.path == "/v1/records":
                    prefix = parse_qs(path.query)["prefix"][0]
                    rows = sorted((k, v) for k, v in service.rows.items() if k.startswith(prefix))
                    self.answer(200, {"records": [{"id": key, "payload": value} for key, value in rows]})
                else:
                    self.usual(200, {"ready": service.mode == "well"})

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/v1/infer":
                    self.usual(200, {"scores": [0.5], "replica": f"replica-{time.monotonic_ns() % 2}"})
                elif service.mode == "cutting":
                    service.store(content)
                    self.close_connection = True
                else:
                    self.usual(201, {"id": content["id"]}, content)

            def usual(self, status: int, content: Any, row: dict[str, str] | None = None) -> None:
                mode = service.mode
                if mode == "hanging":
                    service._released.wait(30)
                if mode == "failing":
                    return self.answer(500, {"error": "told to fail"})
                if row is not None:
                    service.store(row)
                elif mode == "well":
                    service.served.append(time.monotonic_ns())
                return self.answer(status, {**content, "scores": [0.25]} if mode == "wrong" else content)

            def answer(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler

    def store(self, row: dict[str, str]) -> None:
        """Store a row of the canary."""
        self.rows[row["id"]] = row["payload"]
        self.committed.append((row["id"], time.monotonic_ns()))
