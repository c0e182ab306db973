"""One replica of the demo service.

``POST /v1/infer``, ``POST`` and ``GET /v1/records``, ``GET /v1/configuration``, ``/healthz``, ``/readyz``,
``/metrics``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import time
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastvlm_ops.local.service.behaviour import BehaviourFile
from fastvlm_ops.local.service.configuration import ConfigurationKeeper
from fastvlm_ops.local.service.database import Database, DatabaseError
from fastvlm_ops.local.service.layout import SERVICE_NAME, Layout
from fastvlm_ops.local.service.readiness import Readiness
from fastvlm_ops.local.service.serving import BadRequestError, listen, log_as_json, read_json, serve

DATABASE_VARIABLE = "FASTVLM_OPS_DEMO_DATABASE"
_MAX_ID = 200
_MAX_PAYLOAD = 64 << 10
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

log = logging.getLogger("fastvlm_ops.demo_service")
requests_total = Counter("demo_service_requests", "Users' requests", ["route", "status"])
request_seconds = Histogram("demo_service_request_seconds", "Users' requests", ["route"], buckets=_BUCKETS)


class Replica:
    """What the routes work with.

    :param name: of the instance
    :param environment: that the service is in
    :param layout: of the service's folder
    :param database: that records are kept in
    """

    def __init__(self, name: str, environment: str, layout: Layout, database: Database) -> None:
        self.name = name
        self.environment = environment
        self.database = database
        self.keeper = ConfigurationKeeper(layout.places["configuration"], layout.last_good(name))
        self.readiness = Readiness(layout.places["model_store"], self.keeper, database)
        self.behaviour = BehaviourFile(layout.behaviour(name))

    async def infer(self, request: Request) -> JSONResponse:
        """``{"text"}`` → scores and tag, from the model alone."""
        text = (await read_json(request)).get("text")
        configuration = self.keeper.current.configuration
        model = self.readiness.served.model
        if not isinstance(text, str):
            raise BadRequestError("'text' is missing, or is no text")
        if configuration is None or model is None:
            return self._unavailable("; ".join(self.readiness.reasons()) or "no model")
        if len(text) > configuration.service.max_characters:
            raise BadRequestError(f"'text' is longer than {configuration.service.max_characters} characters")
        try:
            scores = model.infer(text)
        except UnicodeEncodeError:
            raise BadRequestError("'text' is no text that UTF-8 can hold") from None
        tag = configuration.service.tags[max(range(len(scores)), key=scores.__getitem__)]
        return JSONResponse(
            {"model": model.name, "weights_sha256": model.sha256, "tag": tag, "scores": scores}
        )

    async def store(self, request: Request) -> JSONResponse:
        """``{"id", "payload"}`` → 201 only once it is committed; the same again → 200; another → 409."""
        content = await read_json(request)
        id, payload = content.get("id"), content.get("payload")
        if not isinstance(id, str) or not 0 < len(id) <= _MAX_ID or not id.isprintable():
            raise BadRequestError(f"'id' has to be a text of 1 to {_MAX_ID} printable characters")
        if not isinstance(payload, str) or len(payload) > _MAX_PAYLOAD or "\0" in payload:
            raise BadRequestError(
                f"'payload' has to be a text of at most {_MAX_PAYLOAD} characters, without NUL"
            )
        try:
            stored = await run_in_threadpool(self.database.store, id, payload)
        except DatabaseError as error:
            return self._unavailable(
                f"database: {error}", outcome="unknown" if error.unknown else "not stored"
            )
        except UnicodeEncodeError:
            raise BadRequestError("'id' and 'payload' have to be texts that UTF-8 can hold") from None
        if stored == "differs":
            return JSONResponse({"error": "there is another record with this id"}, 409)
        return JSONResponse({"id": id}, 201 if stored == "stored" else 200)

    async def records(self, request: Request) -> JSONResponse:
        """Records whose ids begin with ``prefix``, in the order in which they came."""
        prefix = request.query_params.get("prefix", "")
        if len(prefix) > _MAX_ID or "\0" in prefix:
            raise BadRequestError(f"'prefix' has to be a text of at most {_MAX_ID} characters, without NUL")
        try:
            found = await run_in_threadpool(self.database.records, prefix)
        except DatabaseError as error:
            return self._unavailable(f"database: {error}")
        return JSONResponse({"records": found})

    async def configuration(self, _request: Request) -> JSONResponse:
        """The configuration that counts; status 500 where the files cannot be used now."""
        current = self.keeper.current
        good = current.configuration.model_dump(mode="json") if current.configuration else None
        content = {"configuration": good, "configuration_problem": current.problem}
        return JSONResponse(content, 200 if current.problem is None else 500)

    async def healthz(self, _request: Request) -> JSONResponse:
        """That the process lives, and what it is."""
        content = {"service": SERVICE_NAME, "environment": self.environment, "replica": self.name}
        return JSONResponse({**content, "pid": os.getpid()})

    async def readyz(self, _request: Request) -> JSONResponse:
        """Whether it can do its work; status 503 with the reasons where not."""
        reasons = self.reasons()
        content = {
            "ready": not reasons,
            "replica": self.name,
            "reasons": reasons,
            "configuration_problem": self.keeper.current.problem,
        }
        return JSONResponse(content, 503 if reasons else 200)

    async def metrics(self, _request: Request) -> Response:
        """What Prometheus scrapes."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def reasons(self) -> list[str]:
        """Return why it is not ready; empty when it is."""
        told = [] if self.behaviour.read().ready else ["it was told not to be ready"]
        return told + self.readiness.reasons()

    def _unavailable(self, why: str, **more: str) -> JSONResponse:
        return JSONResponse({"error": why, "replica": self.name, **more}, 503)


class Manners:
    """Around all routes: behaves as the replica was told to, counts, and logs.

    :param app: the routes
    :param replica: that was told
    """

    def __init__(self, app: ASGIApp, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        behaviour = self._replica.behaviour.read()
        await asyncio.sleep(behaviour.slow_ms / 1000)
        if behaviour.fails():
            await JSONResponse({"error": "it was told to fail"}, 500)(scope, receive, note)
        else:
            await self._app(scope, receive, note)
        seconds = time.perf_counter() - began
        route = scope["path"] if scope["path"] in _ROUTES else "other"
        requests_total.labels(route, status).inc()
        request_seconds.labels(route).observe(seconds)
        fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6)}
        log.log(logging.INFO if status < 500 else logging.WARNING, "request", extra=fields)


_ROUTES = ("/v1/infer", "/v1/records", "/v1/configuration")


def make_app(replica: Replica) -> ASGIApp:
    """Return the application of a replica.

    :param replica: whose readiness is being watched
    """
    ready = Gauge("demo_service_ready", "Whether the replica can do its work")
    ready.set_function(lambda: float(not replica.reasons()))
    routes = [
        Route("/v1/infer", replica.infer, methods=["POST"]),
        Route("/v1/records", replica.store, methods=["POST"]),
        Route("/v1/records", replica.records, methods=["GET"]),
        Route("/v1/configuration", replica.configuration, methods=["GET"]),
        Route("/healthz", replica.healthz, methods=["GET"]),
        Route("/readyz", replica.readyz, methods=["GET"]),
        Route("/metrics", replica.metrics, methods=["GET"]),
    ]
    return Manners(Starlette(routes=routes, exception_handlers={BadRequestError: _refuse}), replica)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, BadRequestError) else 500
    return JSONResponse({"error": str(error)}, status)


def main(arguments: list[str] | None = None) -> None:
    """Run a replica until it gets a signal."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--environment", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    log_as_json(replica=options.name)
    database = Database(os.environ[DATABASE_VARIABLE])
    replica = Replica(options.name, options.environment, Layout(options.folder), database)
    replica.readiness.start()
    asyncio.run(serve(make_app(replica), listen(options.port)))


if __name__ == "__main__":
    main()
