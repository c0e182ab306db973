"""What processes listen on."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def addresses_of(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Return address and port of each TCP socket that one of the processes listens on."""
    return {
        (str(connection.laddr.ip), int(connection.laddr.port))
        for pid in pids
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def unix_sockets_of(pids: Iterable[int]) -> set[str]:
    """Return the path of each Unix socket of the processes that has one."""
    connections = (c for pid in pids for c in psutil.Process(pid).net_connections("unix"))
    return {str(connection.laddr) for connection in connections if connection.laddr}
