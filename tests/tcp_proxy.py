"""Passes TCP connections on to a server, and interferes when one of them has brought so many bytes back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

HOST = "127.0.0.1"
_PIECE = 16 << 10


@dataclass
class Passed:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    brought_bytes: int = 0

    def cut(self) -> None:
        """End it at both sides, as a broken network does."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class TcpProxy:
    """A proxy on loopback.

    :param port: of the server
    :param after_bytes: how many the server sends on one connection before ``act`` is called, once in all
    :param act: is given that connection; nothing is passed on through it meanwhile
    """

    def __init__(self, port: int, after_bytes: int, act: Callable[[Passed], None]) -> None:
        self._server_port = port
        self._after_bytes = after_bytes
        self._act = act
        self._listener = socket.create_server((HOST, 0))
        self._passed: list[Passed] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.acted = False

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.acted:
            self._done.wait(60)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for passed in self._passed:
            passed.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._server_port))
            except OSError:
                return
            passed = Passed(client, server)
            self._passed.append(passed)
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump_back, args=(passed,), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _pump_back(self, passed: Passed) -> None:
        with contextlib.suppress(OSError):
            while data := passed.server.recv(_PIECE):
                passed.brought_bytes += len(data)
                if passed.brought_bytes >= self._after_bytes and self._take_turn():
                    try:
                        self._act(passed)
                    finally:
                        self._done.set()
                passed.client.sendall(data)
            passed.client.shutdown(socket.SHUT_WR)

    def _take_turn(self) -> bool:
        with self._lock:
            first, self.acted = not self.acted, True
            return first
