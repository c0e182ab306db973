"""Addresses of the pages of Core ML benchmarks."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops import settings
from fastvlm_ops.core.config.coreml import (
    DEVICE_NAME_PATTERN,
    MODEL_NAME_PATTERN,
    CompareRules,
    CoreMLDefinitions,
    load_coreml,
)
from fastvlm_ops.core.coreml.devices.interface import ComputeUnit
from fastvlm_ops.ui.access import may_read
from fastvlm_ops.ui.coreml import data, history, pictures, standing
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

log = logging.getLogger(__name__)

SECTION = "coreml"
DAG_ID = "coreml_benchmark"
PAGE_ROWS = 60
_DEFAULT_WINDOW = 90

_unit = f"^({'|'.join(ComputeUnit)})$"
Model = Annotated[str, Path(pattern=MODEL_NAME_PATTERN)]
Device = Annotated[str, Path(pattern=DEVICE_NAME_PATTERN)]
Unit = Annotated[str, Path(pattern=_unit)]
RunKey = Annotated[str, Query(max_length=500)]
Choice = Annotated[str, Query(max_length=80)]
Days = Annotated[int, Query(ge=1, le=max(history.WINDOWS))]

router = APIRouter(dependencies=[may_read(DAG_ID)])


@router.get("")
def show_list(
    request: Request,
    run: RunKey = "",
    model: Choice = "",
    device: Choice = "",
    unit: Choice = "",
    verdict: Choice = "",
    start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> HTMLResponse:
    """Show where every model stands, on every device and with every compute unit."""
    definitions, problem = _definitions()
    declared = data.declared_subjects(definitions) if definitions else None
    try:
        with data.opened() as store:
            overview = data.read_overview(store, declared, run)
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        return _no_database(request, error)
    wanted = {"model": model, "device": device, "compute_unit": unit, "verdict": verdict}
    chosen = overview.chosen(wanted)
    return page(
        request,
        "coreml/list.html",
        section=SECTION,
        overview=overview,
        wanted=wanted,
        run_key=run,
        chosen=chosen,
        shown=chosen[start : start + PAGE_ROWS],
        start=start,
        page_rows=PAGE_ROWS,
        query={"run": run, "model": model, "device": device, "unit": unit, "verdict": verdict},
        problem=problem,
        sparkline=pictures.sparkline,
        dag_id=DAG_ID,
        **_words(),
    )


@router.get("/{model}/{device}/{unit}")
def show_detail(
    request: Request,
    model: Model,
    device: Device,
    unit: Unit,
    run: RunKey = "",
    days: Days = _DEFAULT_WINDOW,
) -> HTMLResponse:
    """Show a model on a device with a compute unit: verdicts, latency, placement and parity over time."""
    subject = standing.Subject(model, device, unit)
    definitions, problem = _definitions()
    rules = definitions.compare if definitions else CompareRules()
    try:
        with data.opened() as store:
            detail = history.read_detail(store, subject, run, days, rules)
    except Exception as error:
        return _no_database(request, error)
    if detail is None:
        raise HTTPException(404, f"No such run has measured {model} on {device} with {unit}.")
    shown = detail.standing.run or {}
    return page(
        request,
        "coreml/detail.html",
        section=SECTION,
        detail=detail,
        found=detail.standing,
        run=shown,
        is_newest=shown["run_key"] == detail.runs[0][0],
        days=days,
        windows=sorted({*history.WINDOWS, days}),
        latency=pictures.latency_picture(detail),
        parity=pictures.parity_picture(detail, rules.minimum_psnr_db if definitions else None),
        pictures=pictures.other_pictures(detail),
        problem=problem,
        **_words(),
    )


def _words() -> dict[str, Any]:
    return {
        "class_titles": standing.CLASS_TITLES,
        "units_of_cost": standing.UNITS_OF_COST,
        "cost_shares": standing.cost_shares,
        "tone": standing.tone,
        "write_db": standing.write_db,
    }


def _definitions() -> tuple[CoreMLDefinitions | None, str]:
    """Return ``coreml.yaml``, or None and why."""
    try:
        return load_coreml(settings.include_dir()), ""
    except Exception as error:  # shown; what else there is stays
        return None, told(error)


def _no_database(request: Request, error: Exception) -> HTMLResponse:
    log.warning("Core ML benchmarks cannot be read", exc_info=error)
    return page(request, "coreml/no_database.html", section=SECTION, status=503, problem=told(error))
