"""Passes TCP connections on, both ways, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable

_PIECE = 64 << 10

Hold = Callable[[], Awaitable[None]]


class Passed:
    """One connection that is passed on.

    :param client: writer to who connected
    """

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._sides = [client]
        self._cut = False
        #: When it was made, by the monotonic clock.
        self.began = time.monotonic()
        #: Since when the client waits for an answer to what it has said; None: it does not.
        self.waiting_since: float | None = None

    def join(self, server: asyncio.StreamWriter) -> None:
        """Take note of the other side.

        :param server: writer to what it is passed on to
        """
        self._sides.append(server)
        if self._cut:  # while the other side was being connected to
            self.cut()

    def cut(self) -> None:
        """End it at both sides with a reset, as a broken network does."""
        self._cut = True
        for side in self._sides:
            reset(side)


async def pass_on(
    passed: Passed,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    hold: Hold | None = None,
) -> None:
    """Pass on what comes on two connections, until both have ended.

    :param passed: that is kept up to date
    :param client: reader and writer of who connected
    :param server: reader and writer of what it is passed on to
    :param hold: waited for before each piece is passed on
    """
    try:
        await asyncio.gather(
            _pump(passed, client[0], server[1], hold, waiting=True),
            _pump(passed, server[0], client[1], hold, waiting=False),
        )
    except OSError:
        for _, writer in (client, server):
            reset(writer)
    finally:
        for _, writer in (client, server):
            writer.close()


async def _pump(
    passed: Passed,
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    hold: Hold | None,
    *,
    waiting: bool,
) -> None:
    while True:
        data = await source.read(_PIECE)
        if hold is not None:  # the end of it is late too
            await hold()
        if not data:
            break
        if not waiting:
            passed.waiting_since = None
        elif passed.waiting_since is None:
            passed.waiting_since = time.monotonic()
        target.write(data)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
