"""What the supervisor can be told: ``GET /view``, ``POST /instances/<name>/<action>`` with action ``start``,
``stop``, ``restart``, ``promote``, ``rejoin`` or ``behaviour``, ``POST`` and ``DELETE /links/<name>``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.service.behaviour import Behaviour, write_behaviour
from fastvlm_ops.local.service.links import Disturbed
from fastvlm_ops.local.service.serving import BadRequestError, read_json
from fastvlm_ops.local.service.supervised import StillRunsError

if TYPE_CHECKING:
    from fastvlm_ops.local.service.supervised import Supervised
    from fastvlm_ops.local.service.supervisor import Supervisor

_ACTIONS = ("start", "stop", "restart", "promote", "rejoin", "behaviour")


class _Control:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def view(self, _request: Request) -> Response:
        view = await self._supervisor.view()
        return Response(view.model_dump_json(), media_type="application/json")

    async def instance(self, request: Request) -> Response:
        name, action = request.path_params["name"], request.path_params["action"]
        if action not in _ACTIONS:
            raise BadRequestError(f"there is no action {action!r}; there are {', '.join(_ACTIONS)}", 404)
        if action == "behaviour":
            await self._behave(name, request)
        elif name in self._supervisor.databases.pair.names:
            await self._tell_database(name, action)
        elif name in self._supervisor.parts:
            await _tell_part(self._supervisor.parts[name], action)
        else:
            raise BadRequestError(f"there is no instance {name!r}", 404)
        return JSONResponse({"done": action})

    async def disturb(self, request: Request) -> Response:
        try:
            how = Disturbed.model_validate(await read_json(request))
        except ValidationError as error:
            raise BadRequestError(_words(error)) from None
        if how.disturbance is None:
            raise BadRequestError("'disturbance' is missing; DELETE soothes a link")
        await self._supervisor.disturb(self._link(request), how)
        return JSONResponse({"done": "disturbed"})

    async def soothe(self, request: Request) -> Response:
        await self._supervisor.disturb(self._link(request), Disturbed(disturbance=None))
        return JSONResponse({"done": "soothed"})

    def _link(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self._supervisor.disturbed:
            raise BadRequestError(f"there is no link {name!r}", 404)
        return name

    async def _behave(self, name: str, request: Request) -> None:
        part = self._supervisor.parts.get(name)
        if part is None or part.part.role != "replica":
            raise BadRequestError(f"there is no replica {name!r}", 404)
        try:
            behaviour = Behaviour.model_validate(await read_json(request))
        except ValidationError as error:
            raise BadRequestError(_words(error)) from None
        write_behaviour(self._supervisor.layout.behaviour(name), behaviour)

    async def _tell_database(self, name: str, action: str) -> None:
        databases = self._supervisor.databases
        pair = databases.pair
        if action in {"stop", "restart"}:
            await databases.do(partial(pair.stop_instance, name))
        if action in {"start", "restart"}:
            await databases.do(partial(pair.start_instance, name))
        if action == "promote":
            await databases.do(partial(pair.promote, name))
        if action == "rejoin":
            await databases.do(partial(pair.rejoin, name))


async def _tell_part(part: Supervised, action: str) -> None:
    if action in {"promote", "rejoin"}:
        raise BadRequestError(f"{part.part.name} is no database", 409)
    async with part.lock:
        if action in {"stop", "restart"}:
            await part.stop()
        if action in {"start", "restart"}:
            part.start()


def make_control_app(supervisor: Supervisor) -> Starlette:
    """Return the application that a supervisor is told by.

    :param supervisor: that is told
    """
    control = _Control(supervisor)
    routes = [
        Route("/view", control.view, methods=["GET"]),
        Route("/instances/{name}/{action}", control.instance, methods=["POST"]),
        Route("/links/{name}", control.disturb, methods=["POST"]),
        Route("/links/{name}", control.soothe, methods=["DELETE"]),
    ]
    handlers = dict.fromkeys(
        (BadRequestError, DatabaseError, ProcessStartError, StillRunsError, OSError, Exception), _refuse
    )
    return Starlette(routes=routes, exception_handlers=handlers)


async def _refuse(_request: Request, error: Exception) -> Response:
    """Statuses of 500 and more are what may pass by itself."""
    status = 503
    if isinstance(error, BadRequestError):
        status = error.status
    elif isinstance(error, DatabaseError) and not error.retryable:
        status = 409
    elif not isinstance(error, ProcessStartError | StillRunsError | OSError | DatabaseError):
        return JSONResponse({"error": f"{type(error).__name__}; the supervisor's log tells more"}, 500)
    return JSONResponse({"error": str(error)}, status)


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
