"""Addresses of the pages of backups."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops.ui.access import User, may_read, may_trigger
from fastvlm_ops.ui.backups import costs, data, pruning, recovery
from fastvlm_ops.ui.backups.files import FolderNotFoundError, decode_path, encode_path, read_listing
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.catalogue import CatalogueSet

log = logging.getLogger(__name__)

SECTION = "backups"
DAG_ID = "backup_full"
RESTORE_DAG_ID = "restore_backup"
KINDS = ("full", "incremental", "configuration")
PAGE_ITEMS = 500

SetId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,254}$")]
Component = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Name = r"^([a-z][a-z0-9_]{0,39})?$"

router = APIRouter(dependencies=[may_read(DAG_ID)])
router.include_router(costs.router)
router.include_router(recovery.router)
router.include_router(pruning.router)  # before the pages of backups, of which none has such an id


@router.get("")
def show_list(
    request: Request,
    user: User,
    kind: Annotated[str, Query(pattern=Name)] = "",
    component: Annotated[str, Query(pattern=Name)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**62)] = None,
) -> HTMLResponse:
    """Show the components' state, charts and the list of backups."""
    filters = data.Filters(kind or None, component or None, before)
    try:
        overview = data.read_overview(filters, f"{request.scope['root_path']}/backups/", datetime.now(UTC))
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        return _no_catalogue(request, error)
    return page(
        request,
        "backups/list.html",
        section=SECTION,
        overview=overview,
        filters=filters,
        kinds=KINDS,
    )


@router.get("/{set_id}")
def show_set(request: Request, user: User, set_id: SetId) -> HTMLResponse:
    """Show one backup: its members, checks, and how to restore it."""
    try:
        with data.open_catalogue() as catalogue:
            backup = catalogue.set(set_id)
            checks = catalogue.checks(set_id) if backup else []
            offers = data.offers(catalogue, backup) if backup else {}
            refreshed_at = catalogue.refreshed_at()
    except Exception as error:
        return _no_catalogue(request, error)
    if backup is None:
        raise HTTPException(404, f"The catalogue has no backup {set_id}. A refresh may have removed it.")
    may_restore = may_trigger(user, RESTORE_DAG_ID)
    return page(
        request,
        "backups/detail.html",
        section=SECTION,
        backup=backup,
        checks=checks,
        refreshed_at=refreshed_at,
        offers=offers,
        restores=_restores(backup, offers) if may_restore else {},
        restore_dag_id=RESTORE_DAG_ID,
    )


@router.get("/{set_id}/files/{component}")
def show_files(
    request: Request,
    set_id: SetId,
    component: Component,
    path: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]*$", max_length=8192)] = "",
    start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> HTMLResponse:
    """Show a folder of a component's snapshot."""
    try:
        with data.open_catalogue() as catalogue:
            backup = catalogue.set(set_id)
    except Exception as error:
        return _no_catalogue(request, error)
    member = (
        next((found for found in backup.members if found.component == component), None) if backup else None
    )
    if backup is None or member is None:
        raise HTTPException(404, f"The catalogue has no {component} in a backup {set_id}.")
    values: dict[str, Any] = {"backup": backup, "member": member, "items": [], "total": 0, "start": start}
    values |= {"crumbs": [], "problem": "", "page_items": PAGE_ITEMS, "path": path}
    try:
        folder = decode_path(path)
        items = read_listing(member.snapshot_id).folder(folder)
        values |= {"items": items[start : start + PAGE_ITEMS], "total": len(items), "crumbs": _crumbs(folder)}
    except FolderNotFoundError:
        raise HTTPException(404, f"{component} has no such folder in backup {set_id}.") from None
    except Exception as error:
        log.warning("The files of %s in %s cannot be read", component, set_id, exc_info=error)
        values["problem"] = told(error)
    status = 502 if values["problem"] else 200
    return page(request, "backups/files.html", section=SECTION, status=status, **values)


def _crumbs(folder: bytes) -> list[tuple[bytes, str]]:
    parts = folder.split(b"/") if folder else []
    return [(part, encode_path(b"/".join(parts[: n + 1]))) for n, part in enumerate(parts)]


def _restores(backup: CatalogueSet, offers: Mapping[str, CatalogueSet | None]) -> dict[str, str]:
    """What the restore form is to hold, by component; under "" for all of them.

    What is damaged is taken from the backup that is offered for it; ``nearest`` is all of that one.
    """
    forms: dict[str, tuple[CatalogueSet, list[str]]] = {"": (backup, [])}
    forms |= {member.component: (backup, [member.component]) for member in backup.members}
    for component, offered in offers.items():
        if offered is not None:
            forms[component or "nearest"] = (offered, [component] if component else [])
    return {
        name: json.dumps({"backup_id": of.set_id, "components": components})
        for name, (of, components) in forms.items()
    }


def _no_catalogue(request: Request, error: Exception) -> HTMLResponse:
    log.warning("The catalogue of backups cannot be read", exc_info=error)
    return page(request, "backups/no_catalogue.html", section=SECTION, status=503, problem=told(error))
