"""TCP links between the parts of the demo service, which can be disturbed; one process of them all.

Told by its socket: ``GET /state``, ``POST /links/<name>`` with ``{"disturbance", "latency_ms"}``, where null
soothes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastvlm_ops.core.services.control import Disturbance
from fastvlm_ops.local.ports import HOST
from fastvlm_ops.local.service.passing import Passed, pass_on, reset
from fastvlm_ops.local.service.serving import BadRequestError, listen_on_socket, log_as_json, read_json, serve

_CONNECT_SECONDS = 5.0


class Disturbed(BaseModel):
    """How a link is disturbed.

    :param disturbance: ``latency``: everything is late; ``reset``: connections, also new ones, are reset;
        ``black_hole``: nothing comes through, and connections stay; ``refuse``: new connections are refused,
        and those there were are ended. None: not at all
    :param latency_ms: that each piece is late, in each direction
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    disturbance: Disturbance | None
    latency_ms: Annotated[int, Field(ge=0, le=60_000, strict=True)] = 0


class LinkPlan(BaseModel):
    """A link as it is made.

    :param port: that it listens on
    :param host: that it leads to
    :param target_port: of it
    :param disturbed: how it is disturbed from the start
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int
    host: str = HOST
    target_port: int
    disturbed: Disturbed = Disturbed(disturbance=None)


class Link:
    """One link.

    :param plan: of it
    """

    def __init__(self, plan: LinkPlan) -> None:
        self._plan = plan
        self._server: asyncio.Server | None = None
        self._passed: set[Passed] = set()
        self._open = asyncio.Event()
        self.disturbed = Disturbed(disturbance=None)

    async def begin(self) -> None:
        """Listen, and be disturbed as planned."""
        await self.disturb(self._plan.disturbed)

    async def disturb(self, how: Disturbed) -> None:
        """Be disturbed in this way from now on, instead of how it was before.

        :param how: of it
        """
        kind = how.disturbance
        self.disturbed = how
        if kind == "refuse":
            await self._stop_listening()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self._plan.port, backlog=256)
        if kind in {"reset", "refuse"}:
            for passed in list(self._passed):
                passed.cut()
        if kind == "black_hole":
            self._open.clear()
        else:
            self._open.set()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.disturbed.disturbance == "reset":
            return reset(writer)
        passed = Passed(writer)
        self._passed.add(passed)
        try:
            await self._hold()
            if not writer.is_closing():
                async with asyncio.timeout(_CONNECT_SECONDS):
                    server = await asyncio.open_connection(self._plan.host, self._plan.target_port)
                passed.join(server[1])
                await pass_on(passed, (reader, writer), server, self._hold)
        except (OSError, TimeoutError, asyncio.CancelledError):  # cancelled: this process ends
            passed.cut()
        finally:
            self._passed.discard(passed)

    async def _hold(self) -> None:
        await self._open.wait()
        if self.disturbed.disturbance == "latency":
            await asyncio.sleep(self.disturbed.latency_ms / 1000)


class Links:
    """All links, and what they are told by.

    :param plans: by name
    """

    def __init__(self, plans: dict[str, LinkPlan]) -> None:
        self._links = {name: Link(plan) for name, plan in plans.items()}

    async def begin(self) -> None:
        """Listen on all of them."""
        for link in self._links.values():
            await link.begin()

    async def state(self, _request: Request) -> JSONResponse:
        """How each is disturbed."""
        return JSONResponse({name: link.disturbed.model_dump() for name, link in self._links.items()})

    async def change(self, request: Request) -> JSONResponse:
        """Disturb one, or soothe it."""
        link = self._links.get(request.path_params["name"])
        if link is None:
            raise BadRequestError("there is no such link", 404)
        try:
            await link.disturb(Disturbed.model_validate(await read_json(request)))
        except ValidationError as error:
            raise BadRequestError(str(error.errors()[0]["msg"])) from None
        return JSONResponse(link.disturbed.model_dump())


async def run(plans: dict[str, LinkPlan], socket_path: Path) -> None:
    """Pass on until this process gets a signal.

    :param plans: of the links, by name
    :param socket_path: that it is told by
    """
    links = Links(plans)
    await links.begin()
    routes = [
        Route("/state", links.state, methods=["GET"]),
        Route("/links/{name}", links.change, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={BadRequestError: _refuse})
    with listen_on_socket(socket_path) as listener:
        await serve(app, listener)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, error.status if isinstance(error, BadRequestError) else 500)


def main(arguments: list[str] | None = None) -> None:
    """Run the links of a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--plans", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args(arguments)
    log_as_json(instance="links")
    content = json.loads(options.plans.read_text())
    plans = {name: LinkPlan.model_validate(plan) for name, plan in content.items()}
    asyncio.run(run(plans, options.socket))


if __name__ == "__main__":
    main()
