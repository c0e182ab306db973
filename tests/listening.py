"""What processes listen on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import psutil


def addresses_of(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Return address and port of each TCP socket that one of the processes listens on."""
    return {
        (str(connection.laddr.ip), int(connection.laddr.port))
        for connection in _connections(pids, "tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def unix_sockets_of(pids: Iterable[int]) -> set[str]:
    """Return the path of each Unix socket of the processes that has one."""
    return {str(connection.laddr) for connection in _connections(pids, "unix") if connection.laddr}


def _connections(pids: Iterable[int], kind: str) -> Iterator[Any]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # a task that has ended meanwhile
            yield from psutil.Process(pid).net_connections(kind)
