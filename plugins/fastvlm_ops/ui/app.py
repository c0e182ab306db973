"""The FastAPI application of the Operations pages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from fastvlm_ops.core.disaster_recovery.reporting.report import TEMPLATES as DRILL_TEMPLATES
from fastvlm_ops.ui.access import SignedIn
from fastvlm_ops.ui.pages import SECTIONS
from fastvlm_ops.ui.render import FOLDER, page

log = logging.getLogger(__name__)

_STATIC = {
    "site.css": (FOLDER / "static", "text/css"),
    "pictures.css": (DRILL_TEMPLATES, "text/css"),  # which the report of a drill has in it as well
    "site.js": (FOLDER / "static", "text/javascript"),
    "fill_form.js": (FOLDER / "static", "text/javascript"),
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",  # what a person saw must not be there for the next one at this machine
}
_MESSAGES = {
    401: ("Signed out", "Sign in to Airflow, then open this page again."),
    403: (
        "Not permitted",
        "Your role in Airflow may not see this. Somebody who administers Airflow can allow it.",
    ),
    404: ("Not found", "There is nothing at this address."),
    405: ("Not possible", "These pages are only read; what changes anything is started in Airflow."),
    422: ("Not understood", "The address holds a value that cannot be right."),
}


def create_app() -> FastAPI:
    """Return the application, with the pages of all sections."""
    app = FastAPI(title="FastVLM Ops", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.sections = SECTIONS
    app.add_api_route("/", _home, dependencies=[SignedIn], include_in_schema=False)
    app.add_api_route("/static/{name}", _static, dependencies=[SignedIn], include_in_schema=False)
    for section in SECTIONS:
        app.include_router(section.router, prefix=f"/{section.name}")
    app.middleware("http")(_add_headers)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


def _home(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope['root_path'].rstrip('/')}/{SECTIONS[0].name}", status_code=307)


def _static(name: Annotated[str, Path(max_length=40)]) -> FileResponse:
    if name not in _STATIC:
        raise HTTPException(404)
    folder, media_type = _STATIC[name]
    return FileResponse(folder / name, media_type=media_type)


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, StarletteHTTPException) else 422
    title, text = _MESSAGES.get(status, ("Not possible", "Airflow refused this request."))
    detail = getattr(error, "detail", None)
    if status == 404 and isinstance(detail, str) and detail != "Not Found":
        text = detail
    return page(request, "message.html", status=status, title=title, text=text, kind="refused")


async def _failed(request: Request, error: Exception) -> Response:
    """Answer a defect; its details are in the log, where nobody sees them who may not."""
    log.error("The page %s failed", request.url.path, exc_info=error)
    response = page(
        request,
        "message.html",
        status=500,
        title="This page failed",
        text="It is a defect of FastVLM Ops. The api-server's log tells more.",
        kind="failed",
    )
    response.headers.update(_HEADERS)  # this handler stands outside the middleware
    return response
