"""The page of what is kept and what is removed: the newest plan, those before it, and verifications."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from fastvlm_ops.ui import formats
from fastvlm_ops.ui.access import User, may_trigger
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.render import page

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.catalogue import Verification
    from fastvlm_ops.core.backup.prunings import Pruning

log = logging.getLogger(__name__)

DAG_ID = "backup_maintenance"
SHOWN_SETS = 200
SHOWN_RUNS = 20
SHOWN_VERIFICATIONS = 12
WIDTH = 1000.0
_LEAST = 4.0  # of the picture's width: little is not nothing

#: What becomes of the bytes, in the order of the picture.
PARTS = {
    "kept": "stay as they are",
    "copied": "copied out of packs of which little is needed",
    "removed": "removed",
    "locked": "no longer needed, but locked by S3",
}

router = APIRouter()


@dataclass(frozen=True)
class Part:
    """A part of the bar: what becomes of some bytes; None is unknown, and not drawn."""

    name: str
    title: str
    size_bytes: int | None
    x: float
    width: float


@dataclass(frozen=True)
class PruningPage:
    """What the page shows.

    :param refreshed_at: when the catalogue, and with it the verifications, last saw the bucket; None: never
    :param sets: of the newest plan, newest first, as many as are shown
    :param found: how many there are of those that are asked for
    """

    refreshed_at: datetime | None
    prunings: list[Pruning]
    bar: list[Part]
    sets: list[Mapping[str, Any]]
    found: int
    verifications: list[Verification]

    @property
    def newest(self) -> Pruning | None:
        """The newest plan."""
        return self.prunings[0] if self.prunings else None


@router.get("/pruning")
def show_pruning(
    request: Request,
    user: User,
    show: Annotated[str, Query(pattern="^(kept|forgotten)?$")] = "",
) -> HTMLResponse:
    """Show the newest plan of pruning, what came of those before it, and the verifications."""
    try:
        found = read_pruning(show)
    except Exception as error:  # whatever a database says: it is shown, and the page stays
        log.warning("The plans of pruning cannot be read", exc_info=error)
        return page(request, "backups/no_catalogue.html", section="backups", status=503, problem=told(error))
    form = json.dumps({"shares": 8, "approval_timeout_minutes": 240})
    return page(
        request,
        "backups/pruning.html",
        section="backups",
        found=found,
        show=show,
        dag_id=DAG_ID,
        form=form if may_trigger(user, DAG_ID) else "",
        width=WIDTH,
        as_of=as_of_text,
    )


def read_pruning(show: str) -> PruningPage:
    """Read what the page shows.

    :param show: ``kept`` or ``forgotten``: only such sets; empty for all
    """
    from fastvlm_ops.core.backup.catalogue import Catalogue
    from fastvlm_ops.core.backup.prunings import newest_prunings
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        catalogue = Catalogue(store)
        refreshed_at = catalogue.refreshed_at()
        verifications = catalogue.verifications(SHOWN_VERIFICATIONS)
        prunings = newest_prunings(store, SHOWN_RUNS)
    plan = prunings[0].plan if prunings else {}
    sets = [one for one in plan.get("sets", ()) if not show or one["kept"] == (show == "kept")]
    return PruningPage(
        refreshed_at=refreshed_at,
        prunings=prunings,
        bar=bar_of(plan.get("bytes", {})),
        sets=sets[:SHOWN_SETS],
        found=len(sets),
        verifications=verifications,
    )


def as_of_text(timestamp: str) -> str:
    """Return when a backup is about, for people; as it was written where that is no time.

    :param timestamp: of the set, in ISO 8601
    """
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    return timestamp if moment.tzinfo is None else formats.moment(moment)


def bar_of(sizes: Mapping[str, int | None]) -> list[Part]:
    """Lay out what becomes of the bytes, side by side over the whole width.

    :param sizes: in bytes, by the names of :data:`PARTS`; what is absent or None is unknown
    """
    known = {name: size for name in PARTS if (size := sizes.get(name)) is not None}
    total = sum(known.values())
    drawn = {name: max(size / total * WIDTH, _LEAST) for name, size in known.items() if size} if total else {}
    scale = WIDTH / sum(drawn.values()) if drawn else 0.0
    parts, x = [], 0.0
    for name, title in PARTS.items():
        width = drawn.get(name, 0.0) * scale
        parts.append(Part(name, title, known.get(name), round(x, 2), round(width, 2)))
        x += width
    return parts
