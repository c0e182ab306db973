"""Addresses of the pages of capacity."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops import settings
from fastvlm_ops.core.config.capacity import RESOURCES, Capacity, load_capacity
from fastvlm_ops.ui import addresses
from fastvlm_ops.ui.access import may_read
from fastvlm_ops.ui.capacity import data, pictures
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

log = logging.getLogger(__name__)

SECTION = "capacity"
DAG_ID = "capacity_forecast"
PAGE_SERVICES = 50

Metric = Annotated[str, Path(pattern=f"^({'|'.join(RESOURCES)})$")]
Service = Annotated[str, Path(pattern=f"^[{addresses.ALPHABET}]+$", max_length=addresses.LONGEST)]
AsOf = Annotated[str, Query(pattern=r"^(\d{4}-\d\d-\d\dT\d\dZ)?$")]

router = APIRouter(dependencies=[may_read(DAG_ID)])


@router.get("")
def show_list(
    request: Request, as_of: AsOf = "", start: Annotated[int, Query(ge=0, lt=2**31)] = 0
) -> HTMLResponse:
    """Show the services, what they need, and what to do."""
    moment = _moment(as_of)
    try:
        with data.opened() as store:
            overview = data.read_overview(store, moment)
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        return _no_database(request, error)
    return page(
        request,
        "capacity/list.html",
        section=SECTION,
        overview=overview,
        shown=overview.services[start : start + PAGE_SERVICES],
        start=start,
        page_services=PAGE_SERVICES,
        dag_id=DAG_ID,
        **_words(),
    )


@router.get("/accuracy")
def show_accuracy(
    request: Request,
    metric: Annotated[str, Query(pattern=f"^({'|'.join(RESOURCES)})$")] = RESOURCES[0],
    days: Annotated[int | None, Query(ge=1, le=366)] = None,
) -> HTMLResponse:
    """Show how right forecasts were, over time."""
    try:
        with data.opened() as store:
            scores, horizons = data.read_accuracy(store, metric, days)
    except Exception as error:
        return _no_database(request, error)
    definitions, problem = _definitions()
    chance = definitions.chance_of_shortfall if definitions else None
    return page(
        request,
        "capacity/accuracy.html",
        section=SECTION,
        metric=metric,
        days=days or (horizons[0] if horizons else None),
        horizons=horizons,
        scores=scores,
        pictures=pictures.accuracy_pictures(scores, chance) if scores else [],
        covered=pictures.COVERED,
        problem=problem,
        **_words(),
    )


@router.get("/{service}/{metric}")
def show_series(request: Request, service: Service, metric: Metric, as_of: AsOf = "") -> HTMLResponse:
    """Show one resource of a service: a picture of its forecast, figures, and how right earlier ones were."""
    name, moment = _name(service), _moment(as_of)
    try:
        with data.opened() as store:
            found, hours = data.read_service(store, name, moment)
            scores = data.read_scores(store, name, metric)
    except Exception as error:
        return _no_database(request, error)
    if found is None or metric not in found.needs:
        raise HTTPException(404, f"There is no forecast of {metric} of the service {name!r} of that time.")
    need = found.needs[metric]
    values: dict[str, Any] = {"picture": None, "problem": ""}
    try:
        values["picture"] = pictures.forecast_picture(need, *data.read_days(need.as_of, name, metric))
    except Exception as error:
        log.warning("The forecast of %s of %r cannot be read", metric, name, exc_info=error)
        values["problem"] = told(error)
    return page(
        request,
        "capacity/series.html",
        section=SECTION,
        status=502 if values["problem"] else 200,
        found=found,
        need=need,
        hours=hours,
        scores=scores,
        **values,
        **_words(),
    )


def _words() -> dict[str, Any]:
    return {"resources": RESOURCES, "titles": data.TITLES, "hour_key": hour_key}


def hour_key(moment: datetime) -> str:
    """Return an as-of hour as part of an address.

    :param moment: aware
    """
    return f"{moment.astimezone(UTC):%Y-%m-%dT%HZ}"


def _moment(as_of: str) -> datetime | None:
    if not as_of:
        return None
    try:
        return datetime.strptime(as_of, "%Y-%m-%dT%HZ").replace(tzinfo=UTC)
    except ValueError:
        raise HTTPException(422) from None


def _name(service: str) -> str:
    try:
        return addresses.decode(service).decode()
    except (addresses.AddressError, UnicodeDecodeError):
        raise HTTPException(404, "There is no service of that name.") from None


def _definitions() -> tuple[Capacity | None, str]:
    """Return ``capacity.yaml``, or None and why."""
    try:
        return load_capacity(settings.include_dir()), ""
    except Exception as error:  # shown; what else there is stays
        return None, told(error)


def _no_database(request: Request, error: Exception) -> HTMLResponse:
    log.warning("Forecasts of capacity cannot be read", exc_info=error)
    return page(request, "capacity/no_database.html", section=SECTION, status=503, problem=told(error))
