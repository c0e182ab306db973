"""How fast the Operations pages answer with 400 backups in the catalogue: `make bench-ui`.

There is no peer to run: the target is an absolute one, 300 ms for the list.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import RESULTS, Figure, figures_table, write_figures
from fastvlm_ops.local.airflow_stack import USER
from tests.integration.ui import history
from tests.integration.ui.rig import ROOT, Rig

if TYPE_CHECKING:
    import httpx

BACKUPS = 400
ROUNDS = 25
TARGET_MS = 300
PAGES = {
    "list of backups": "/fastvlm-ops/backups",
    "list of backups, last page": "/fastvlm-ops/backups?before=100",
    "list of backups of one component": "/fastvlm-ops/backups?component=uploads&kind=full",
    "one backup": f"/fastvlm-ops/backups/{history.REAL_SET}",
    "files of a component, read before": f"/fastvlm-ops/backups/{history.REAL_SET}/files/uploads",
}


def main() -> int:
    """Start Airflow with 400 backups, ask for each page in turn, and write what it took."""
    scratch = ROOT / ".pytest_cache" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        rig = Rig(Path(folder))
        try:
            rig.start()
            history.back_up(rig)
            history.add_rows(rig, BACKUPS - 1)
            with rig.client(USER) as client:
                taken = _measure(client)
        finally:
            rig.stop()
    figures = [
        Figure(f"{name}, {BACKUPS} backups, median of {ROUNDS}", statistics.median(values), "ms", TARGET_MS)
        for name, values in taken.items()
    ]
    slowest = max(taken["list of backups"])
    figures.append(
        Figure(f"list of backups, {BACKUPS} backups, slowest of {ROUNDS}", slowest, "ms", TARGET_MS)
    )
    write_figures(figures, RESULTS / "ui.json")
    print(figures_table(figures))
    return 0


def _measure(client: httpx.Client) -> dict[str, list[float]]:
    """Milliseconds of each request, by page, in turns; the first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in PAGES}
    for number in range(ROUNDS + 1):
        for name, address in PAGES.items():
            began = time.perf_counter()
            client.get(address).raise_for_status()
            if number:
                taken[name].append((time.perf_counter() - began) * 1000)
    return taken


if __name__ == "__main__":
    sys.exit(main())
