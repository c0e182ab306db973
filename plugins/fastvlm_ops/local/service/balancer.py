"""Balances TCP connections between the replicas of the demo service that say they are ready.

Told nothing; asked by its socket: ``GET /state`` says which replicas are in rotation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastvlm_ops.local.ports import HOST
from fastvlm_ops.local.service.passing import Passed, pass_on
from fastvlm_ops.local.service.serving import NO_AUTHORITIES, listen_on_socket, log_as_json, serve

_CHECK_SECONDS = 0.25
_CHECK_TIMEOUT_SECONDS = 0.5
_CONNECT_SECONDS = 1.0
#: A replica that lets a user wait for longer gets no more of them while another one lets nobody wait so long:
#: one that hangs would go on getting some until its checks have failed.
_WAITING_SECONDS = 0.1
#: Checks in a row that take a replica out of rotation, or back in.
_CHECKS = 2
#: A time-out that comes so late tells that this process was kept waiting, not what the replica does; but not
#: more than so many times in a row.
_LATE_SECONDS = 0.25
_LATE_CHECKS = 2
#: What one that is out of rotation still has to answer is waited for so long.
_PATIENCE_SECONDS = 3.0
_NOBODY = b'{"error": "no replica answers"}'
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_NOBODY), _NOBODY)
)

log = logging.getLogger("fastvlm_ops.balancer")


@dataclass(eq=False)
class Backend:
    """One replica.

    :param name: of the instance
    :param port: that it is reached by
    :param in_rotation: whether it gets connections; None until it is known
    :param answers: whether its last check brought an answer, good or not
    :param detail: why it is not in rotation
    :param ready_at: when the last check began that found it ready, on the machine's monotonic clock
    :param same: how many checks in a row said something else than ``in_rotation``
    :param passed: connections to it
    """

    name: str
    port: int
    in_rotation: bool | None = None
    answers: bool = False
    detail: str = "not checked yet"
    ready_at: float = 0.0
    same: int = 0
    out_since: float = 0.0
    passed: set[Passed] = field(default_factory=set)

    def note(self, problem: str | None) -> None:
        """Take the result of one check.

        :param problem: None where it is ready
        """
        if self.in_rotation is not None and (problem is None) == self.in_rotation:
            self.same = 0
            self.detail = problem or ""
            self._end_connections()
            return
        self.same += 1
        self.detail = problem or "ready again, not yet for long enough"
        if self.same < _CHECKS and self.in_rotation is not None:
            return
        self.in_rotation, self.same = problem is None, 0
        self.detail = problem or ""
        log.warning("rotation", extra={"replica": self.name, "in_rotation": self.in_rotation, "why": problem})
        self.out_since = time.monotonic()
        self._end_connections()

    def lets_wait(self) -> bool:
        """Whether a user has waited for an answer for so long that the next one had better go elsewhere."""
        late = time.monotonic() - _WAITING_SECONDS
        return any(one.waiting_since is not None and one.waiting_since < late for one in self.passed)

    def _end_connections(self) -> None:
        """Have users of one that is out of rotation connect anew: at once where they wait for no answer, and
        soon where it hangs. Who came since, for no replica was ready, gets the answer.
        """
        for passed in list(self.passed) if self.in_rotation is False else ():
            came_since = passed.began > self.out_since
            patience_over = time.monotonic() - max(self.out_since, passed.began) > _PATIENCE_SECONDS
            stays = passed.waiting_since is not None and (came_since or not patience_over)
            if not stays and (patience_over or not came_since):
                passed.cut()


class Balancer:
    """Chooses a replica for each connection.

    :param backends: all there are
    """

    def __init__(self, backends: list[Backend]) -> None:
        self._backends = backends
        self._turn = 0

    async def watch(self) -> None:
        """Check all replicas, for ever."""
        await asyncio.gather(*map(self._watch, self._backends))

    async def state(self, _request: Request) -> JSONResponse:
        """Which replicas are in rotation."""
        return JSONResponse(
            {
                backend.name: {
                    "in_rotation": backend.in_rotation,
                    "detail": backend.detail,
                    "ready_at": backend.ready_at,
                    "connections": len(backend.passed),
                }
                for backend in self._backends
            }
        )

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on to a replica; to the next one, where it does not accept it."""
        for backend in self._choices():
            passed = Passed(writer)
            backend.passed.add(passed)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    server = await asyncio.open_connection(HOST, backend.port)
                passed.join(server[1])
            except (OSError, TimeoutError):
                backend.passed.discard(passed)
                continue
            try:
                return await pass_on(passed, (reader, writer), server)
            except asyncio.CancelledError:  # this process ends
                return passed.cut()
            finally:
                backend.passed.discard(passed)
        await _say_that_nobody_is_there(reader, writer)

    def _choices(self) -> list[Backend]:
        """Return the replicas in the order in which they are tried: those that let nobody wait, and of them
        the one with the fewest connections first. Where none is ready, one that at least says why.
        """
        found = [one for one in self._backends if one.in_rotation]
        found = found or [one for one in self._backends if one.answers]
        self._turn += 1
        turned = found[self._turn % len(found) :] + found[: self._turn % len(found)] if found else []
        return sorted(turned, key=lambda one: (one.lets_wait(), len(one.passed)))

    async def _watch(self, backend: Backend) -> None:
        async with httpx.AsyncClient(
            timeout=_CHECK_TIMEOUT_SECONDS,
            trust_env=False,
            verify=NO_AUTHORITIES,
            headers={"Connection": "close"},  # each check shows that a new connection works
        ) as client:
            late = 0
            while True:
                began = time.monotonic()
                problem, answers = await _check(client, backend.port)
                took = time.monotonic() - began
                late = late + 1 if not answers and took > _CHECK_TIMEOUT_SECONDS + _LATE_SECONDS else 0
                if not 0 < late <= _LATE_CHECKS:
                    backend.answers = answers
                    backend.ready_at = began if problem is None else backend.ready_at
                    backend.note(problem)
                await asyncio.sleep(max(0.01, _CHECK_SECONDS - (time.monotonic() - began)))


async def _check(client: httpx.AsyncClient, port: int) -> tuple[str | None, bool]:
    """Return why a replica is not ready, None where it is; and whether it answered at all."""
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
            answer = await client.get(f"http://{HOST}:{port}/readyz")
    except (TimeoutError, httpx.TimeoutException):
        return f"/readyz did not answer within {_CHECK_TIMEOUT_SECONDS:g} s", False
    except (httpx.HTTPError, OSError) as error:
        return f"/readyz cannot be asked: {str(error) or type(error).__name__}", False
    if answer.status_code == 200:
        return None, True
    try:
        why = "; ".join(map(str, answer.json()["reasons"]))
    except (ValueError, KeyError, TypeError):
        why = f"/readyz has status {answer.status_code}"
    return why, True


async def _say_that_nobody_is_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer in HTTP, and close once what was asked has been read: else a reset overtakes the answer."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(_UNAVAILABLE)
        writer.write_eof()
        async with asyncio.timeout(_CONNECT_SECONDS):
            while await reader.read(1 << 16):
                pass
    writer.close()


async def run(backends: list[Backend], port: int, socket_path: Path) -> None:
    """Balance until this process gets a signal.

    :param backends: the replicas
    :param port: that users connect to
    :param socket_path: that the state is asked by
    """
    balancer = Balancer(backends)
    watching = asyncio.create_task(balancer.watch())
    app = Starlette(routes=[Route("/state", balancer.state, methods=["GET"])])
    server = await asyncio.start_server(balancer.accept, HOST, port, backlog=256)
    with listen_on_socket(socket_path) as listener:
        await serve(app, listener)
    watching.cancel()
    server.close()


def main(arguments: list[str] | None = None) -> None:
    """Run a balancer."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--replicas", type=json.loads, required=True, help='as in {"replica-1": 20001}')
    options = parser.parse_args(arguments)
    log_as_json(instance="balancer")
    backends = [Backend(name, port) for name, port in options.replicas.items()]
    asyncio.run(run(backends, options.port, options.socket))


if __name__ == "__main__":
    main()
