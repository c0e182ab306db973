"""From a template to a response."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fastvlm_ops.core.disaster_recovery.reporting.report import TEMPLATES as DRILL_TEMPLATES
from fastvlm_ops.ui import TITLE, URL_PREFIX, URL_ROUTE, formats

FOLDER = Path(__file__).parent

_ENVIRONMENT = Environment(
    loader=FileSystemLoader([FOLDER / "templates", DRILL_TEMPLATES]),
    autoescape=True,  # for every template, whatever its name
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
for _filter in (
    *("size", "count", "duration", "moment", "ago", "name", "amount", "share", "change", "changes", "day"),
):
    _ENVIRONMENT.filters[_filter] = getattr(formats, _filter)


def page(
    request: Request, template: str, *, section: str = "", status: int = 200, **values: Any
) -> HTMLResponse:
    """Render a template.

    :param request: that is answered; tells what stands before the pages' addresses
    :param template: name of its file
    :param section: which one of the navigation is open
    :param status: of the answer
    :param values: what the template shows
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    context = {
        "root": root,
        "airflow": root.removesuffix(URL_PREFIX),
        "frame": URL_ROUTE,
        "section": section,
        "sections": request.app.state.sections,
        "product": TITLE,
        "now": datetime.now(UTC),
        **values,
    }
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(context), status_code=status)
