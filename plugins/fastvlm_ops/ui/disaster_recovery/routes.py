"""Addresses of the pages of drills."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response

from fastvlm_ops import settings
from fastvlm_ops.core.config.disaster_recovery import SCENARIO_PATTERN
from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import step_tone
from fastvlm_ops.core.disaster_recovery.reporting.axes import tone as verdict_tone
from fastvlm_ops.core.disaster_recovery.reporting.trend import gauge
from fastvlm_ops.ui import addresses
from fastvlm_ops.ui.access import User, may_read, may_see, may_trigger, next_run
from fastvlm_ops.ui.disaster_recovery import data, detail
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

log = logging.getLogger(__name__)

SECTION = "disaster_recovery"
DAG_ID = "disaster_recovery_reaper"
PAGE_ROWS = 20
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "ABORTED", "REFUSED", data.RUNNING, "dry run")

RunKey = Annotated[str, Query(min_length=1, max_length=500)]
FileName = Annotated[str, Query(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./=-]{0,200}$")]

router = APIRouter(dependencies=[may_read(DAG_ID)])


@router.get("")
def show_list(
    request: Request,
    user: User,
    scenario: Annotated[str, Query(pattern=f"{SCENARIO_PATTERN[:-1]}$|^$")] = "",
    verdict: Annotated[str, Query(pattern=f"^({'|'.join(VERDICTS)})?$")] = "",
    start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> HTMLResponse:
    """Show where every scenario stands, faults that are open, and the last drills."""
    wanted = {"scenario": scenario, "verdict": verdict}
    definitions, problem = _definitions()
    try:
        with data.opened() as store:
            overview = data.read_overview(
                store,
                definitions,
                datetime.now(UTC),
                lambda name: may_see(user, data.dag_id_of(name)),
                next_run,
            )
            names = [one.scenario for one in overview.standings]
            recent = data.read_recent(store, names, wanted, start, PAGE_ROWS + 1)
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        return _no_database(request, error)
    return page(
        request,
        "disaster_recovery/list.html",
        section=SECTION,
        overview=overview,
        recent=recent[:PAGE_ROWS],
        has_more=len(recent) > PAGE_ROWS,
        names=names,
        wanted=wanted,
        verdicts=VERDICTS,
        start=start,
        page_rows=PAGE_ROWS,
        problem=problem,
        gauge=gauge,
        dag_id_of=data.dag_id_of,
        may_trigger={name: may_trigger(user, data.dag_id_of(name)) for name in names},
        drill_address=addresses.drill,
        **_words(),
    )


@router.get("/drill")
def show_drill(request: Request, user: User, run: RunKey) -> HTMLResponse:
    """Show one drill: what was hit, what users saw, its steps, figures and evidence."""
    _check_access(user, run)
    try:
        with data.opened() as store:
            found = detail.read_detail(store, run)
    except DrillError:
        raise HTTPException(404, "No such drill is recorded.") from None
    except Exception as error:
        return _no_database(request, error)
    return page(
        request,
        "disaster_recovery/detail.html",
        section=SECTION,
        detail=found,
        record=found.record,
        drill=found.record.drill,
        plan=found.record.plan,
        evidence_address=addresses.drill_evidence,
        dag_id_of=data.dag_id_of,
        **_words(),
    )


@router.get("/evidence")
def get_evidence(request: Request, user: User, run: RunKey, name: FileName) -> Response:
    """Give a file of evidence. It is saved, never shown here: what a drill wrote is no page of ours."""
    _check_access(user, run)
    try:
        with data.opened() as store:
            found = detail.read_evidence(store, run, name)
    except Exception as error:
        log.warning("The evidence %s of %s cannot be read", name, run, exc_info=error)
        return page(
            request,
            "message.html",
            status=502,
            section=SECTION,
            title="The evidence cannot be read",
            text=told(error),
            kind="failed",
        )
    if found is None:
        raise HTTPException(404, "That drill has no such evidence.")
    artefact, contents = found
    scenario = run.partition("/")[0].removeprefix(data.DAG_PREFIX)
    file_name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{scenario}-{artefact.name}")
    return Response(
        contents,
        media_type=artefact.content_type,
        headers={"Content-Disposition": f'attachment; filename="{file_name}"'},
    )


def _check_access(user: Any, run_key: str) -> None:
    """Refuse a drill of a scenario that the user may not see, though the section may be seen."""
    dag_id = run_key.partition("/")[0]
    if not dag_id.startswith(data.DAG_PREFIX):
        raise HTTPException(404, "No such drill is recorded.")
    if not may_see(user, dag_id):
        raise HTTPException(403)


def _definitions() -> tuple[Any, str]:
    """Return the scenarios, and why there are none."""
    try:
        return data.read_definitions(settings.include_dir()), ""
    except Exception as error:  # shown; what else there is stays
        return ({}, []), told(error)


def _words() -> dict[str, Any]:
    return {
        "seconds": words.seconds,
        "moment_seconds": words.moment,
        "step": words.step,
        "step_tone": step_tone,
        "verdict_tone": verdict_tone,
    }


def _no_database(request: Request, error: Exception) -> HTMLResponse:
    log.warning("Drills cannot be read", exc_info=error)
    return page(
        request, "disaster_recovery/no_database.html", section=SECTION, status=503, problem=told(error)
    )
