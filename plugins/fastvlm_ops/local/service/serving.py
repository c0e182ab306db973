"""How the parts of the demo service speak HTTP: uvicorn, on a port of loopback or on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from pythonjsonlogger.json import JsonFormatter

from fastvlm_ops.core.services.unix_sockets import short_path
from fastvlm_ops.local.ports import HOST

if TYPE_CHECKING:
    from starlette.requests import Request

#: For clients that speak no TLS: to read the system's authorities for each takes longer than the request.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_MAX_BODY_BYTES = 256 << 10
_MAX_CONNECTIONS = 200
_STOP_SECONDS = 3


class BadRequestError(Exception):
    """A request that cannot be understood.

    :param message: for who sent it
    :param status: of the answer
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def log_as_json(**fields: Any) -> None:
    """Log to standard output, one JSON object a line.

    :param fields: that each line has
    """
    handler = logging.StreamHandler(sys.stdout)
    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names, static_fields=fields
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in ("uvicorn.error", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)


def listen(port: int) -> socket.socket:
    """Listen on a port of loopback.

    :param port: that nothing listens on
    """
    return socket.create_server((HOST, port), backlog=256)


@contextlib.contextmanager
def listen_on_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket that only its owner can connect to.

    :param path: of the socket; its folder is made for its owner alone where absent. What lay there is
        replaced: the socket of one that has ended
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with short_path(path) as bound:
                listener.bind(bound)
        finally:
            os.umask(before)
        listener.listen(64)
        yield listener


async def serve(app: Any, listener: socket.socket) -> None:
    """Serve an application until this process gets SIGTERM or SIGINT.

    :param app: an ASGI application
    :param listener: that listens
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
        timeout_keep_alive=30,
        server_header=False,
        loop="asyncio",
    )
    # uvicorn raises the signal that it was stopped by once more: this process still has to tidy up.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    await uvicorn.Server(config).serve(sockets=[listener])


async def ask(path: Path, route: str, content: dict[str, Any] | None, *, timeout_seconds: float) -> Any:
    """Ask another part of the service by its socket: GET, or POST where there is content.

    :param path: of the socket
    :param route: as in ``/state``
    :param content: what is sent, as JSON
    :returns: what was answered
    :raises OSError: it does not answer, not in time, or not well
    """
    method = "GET" if content is None else "POST"
    try:
        with short_path(path) as reached:
            transport = httpx.AsyncHTTPTransport(uds=reached, verify=NO_AUTHORITIES)
            async with (
                asyncio.timeout(timeout_seconds),
                httpx.AsyncClient(transport=transport, trust_env=False, timeout=timeout_seconds) as client,
            ):
                answer = await client.request(method, f"http://{path.stem}{route}", json=content)
    except (TimeoutError, httpx.TimeoutException):
        raise OSError(f"{path.stem} did not answer within {timeout_seconds:g} s") from None
    except httpx.HTTPError as error:
        raise OSError(f"{path.stem} cannot be asked: {str(error) or type(error).__name__}") from None
    if answer.status_code != 200:
        raise OSError(f"{path.stem} answered with status {answer.status_code}")
    return answer.json()


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    :raises BadRequestError: it brings something else, or too much
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise BadRequestError(f"the body is longer than {_MAX_BODY_BYTES} bytes", 413)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is no JSON") from None
    if not isinstance(content, dict):
        raise BadRequestError("the body is no JSON object")
    return content
