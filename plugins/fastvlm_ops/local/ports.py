"""Free TCP ports on the loopback address."""

from __future__ import annotations

import os
import random
import socket

HOST = "127.0.0.1"

# Below the range that Linux gives to outgoing connections: a port from there can be gone a moment later.
_RANGE = range(20000, 32000)


def free_ports(count: int) -> list[int]:
    """Return so many ports that nothing listens on, on any address.

    :param count: how many, all different
    :raises OSError: there are not so many
    """
    sockets: list[socket.socket] = []
    try:
        for port in random.sample(_RANGE, len(_RANGE)):
            if len(sockets) == count:
                break
            candidate = socket.socket()
            try:
                candidate.bind(("", port))
            except OSError:
                candidate.close()
            else:
                sockets.append(candidate)
        if len(sockets) < count:
            raise OSError(f"there are no {count} free ports in {_RANGE.start}-{_RANGE.stop - 1}")
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


def answers(port: int) -> bool:
    """Say whether something accepts connections on a loopback port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


def bypass_proxies() -> None:
    """Tell this process, and what it starts, to ask this machine's own servers directly."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, HOST, "localhost"]))
