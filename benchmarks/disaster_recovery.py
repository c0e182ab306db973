"""How right the measures of drills are, beside an independent client, and what faults leave behind.

    make bench-disaster_recovery                 all of it
    make bench-disaster_recovery ARGS=--quick    one drill of each kind, to see that it works

Drills run on the demo service by the code that the tasks of a DAG call, without a scheduler. A client that
shares nothing with the observer but the machine's clock asks and writes beside it, every 20 ms: RTO is
compared with what it saw, lost rows with its ledger and with the tables of the database itself.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks.disaster_recovery_drills import DrillRun, Drills, allowing_loss, shipped
from benchmarks.disaster_recovery_faults import (
    PeerFailedError,
    left_by_chaos_toolkit,
    left_by_ways,
    ttl_errors,
)
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.running import ROOT, load_average, machine, say, warn_of_load, work_folder
from fastvlm_ops.core.store import open_store
from fastvlm_ops.local.service.demo_service import DemoService

_RTO_SECONDS, _TTL_SECONDS, _DATABASE_SECONDS = 0.2, 0.2, 60.0
_ROUNDS, _TTL_COUNT = 3, 20
_QUICK_ROUNDS, _QUICK_TTL_COUNT = 1, 3


def run_drills(work: Path, rounds: int) -> dict[str, list[DrillRun]]:
    """Run the drills, each so many times; by what was drilled."""
    found: dict[str, list[DrillRun]] = {}

    def drill(name: str, drills: Drills, scenario: Any, *, lag: bool = False) -> None:
        run = drills.run(scenario, lag=lag)
        found.setdefault(name, []).append(run)
        say(f"{name}: {run.verdict}: {run.reason}")

    with _drills(work / "async", "async") as drills:
        for _ in range(rounds):
            drill("process killed", drills, shipped("service_process_killed"))
            drill("process hung", drills, shipped("service_hung"))
            drill("primary lost, async", drills, shipped("primary_database_lost"))
            drill("primary lost, lagging", drills, allowing_loss(work), lag=True)
    with _drills(work / "sync", "sync") as drills:
        for _ in range(rounds):
            drill("primary lost, sync", drills, shipped("primary_database_lost"))
    return found


@contextlib.contextmanager
def _drills(folder: Path, mode: Literal["async", "sync"]) -> Iterator[Drills]:
    folder.mkdir(parents=True)
    say(f"a service with databases that replicate in mode {mode} ...")
    with (
        open_store(f"sqlite:///{folder}/operations.db", migrate_first=True) as store,
        DemoService(folder / "service", die_with_parent=True, database_mode=mode) as service,
    ):
        yield Drills(service, store, folder, lambda line: say(f"    {line[:120]}"))


def drill_figures(found: dict[str, list[DrillRun]]) -> list[Figure]:
    """Of drills: how far off, how long, and whether all were carried through."""
    runs = [run for several in found.values() for run in several]
    errors = [run.rto_error_seconds for run in runs]
    known = [error for error in errors if error is not None]
    lost = sum(len(run.measures.lost) + run.lost_by_client for run in runs)
    figures = [
        Figure(f"RTO off the client's, worst of {len(runs)} drills", _worst(errors), "s", _RTO_SECONDS),
        Figure("RTO off the client's, median", statistics.median(known or [9e9]), "s", _RTO_SECONDS),
        Figure(f"rows called lost wrongly, of {lost} lost", sum(run.rows_wrong for run in runs), "rows", 0),
        Figure("drills that did not pass", sum(run.verdict != "PASS" for run in runs), "drills", 0),
    ]
    for name, several in found.items():
        if name.startswith("primary lost"):
            longest = max(run.wall_seconds for run in several)
            figures.append(Figure(f"{name}: whole drill, longest", longest, "s", _DATABASE_SECONDS))
    return figures


def fault_figures(work: Path, count: int) -> tuple[list[Figure], dict[str, Any]]:
    """Of faults: how exactly they end, and how many are left."""
    folder = work / "faults"
    folder.mkdir()
    say(f"{count} faults that end by themselves ...")
    errors = ttl_errors(folder, count)
    say("eight ways to die ...")
    left = left_by_ways(folder)
    for name, is_left in left.items():
        say(f"    {name}: {'LEFT' if is_left else 'nothing left'}")
    say("Chaos Toolkit, killed ...")
    peer: str
    try:
        peer, theirs = left_by_chaos_toolkit(work)
        peer_value: float | None = float(theirs)
    except PeerFailedError as error:
        say(str(error))
        peer, peer_value = str(error), None
    figures = [
        Figure(f"faults off their time to live, worst of {count}", max(errors), "s", _TTL_SECONDS),
        Figure(f"faults left, {len(left)} ways to die", sum(left.values()), "faults", 0),
        Figure("faults left, injector killed", left["injector dies"], "faults", 0, peer, peer_value),
    ]
    return figures, {"ttl_errors_seconds": errors, "left": left, "peer": peer}


def rows_table(found: dict[str, list[DrillRun]]) -> list[tuple[str, ...]]:
    """All drills, in seconds."""
    rows = [("drill", "verdict", "detect", "failover", "RTO", "client's", "RPO", "lost", "wall")]
    for name, several in found.items():
        for run in several:
            m = run.measures
            seconds = (m.detection_seconds, m.failover_seconds, m.rto_seconds, run.client_rto_seconds)
            figures = ["-" if value is None else f"{value:.3f}" for value in (*seconds, m.rpo_seconds)]
            rows.append((name, run.verdict, *figures, str(len(m.lost)), f"{run.wall_seconds:.1f}"))
    return rows


def _worst(errors: Sequence[float | None]) -> float:
    """The largest error; beyond all bounds where one is not known."""
    return max([9e9 if error is None else error for error in errors], default=9e9)


def _details(run: DrillRun) -> dict[str, Any]:
    content = asdict(run)
    measures = run.measures.model_dump(mode="json", exclude={"lost", "lost_later", "in_flight"})
    return {**content, "measures": {**measures, "lost": len(run.measures.lost)}}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, write its results and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one drill of each kind; shows little")
    parser.add_argument("--output", type=Path, help="folder for the results (benchmarks/results)")
    options = parser.parse_args(arguments)
    output = options.output or (ROOT / "build" / "bench-quick" if options.quick else RESULTS)
    load = load_average()
    warn_of_load(load)
    with work_folder(ROOT / "build" / "bench-disaster_recovery") as work:
        figures, details = fault_figures(work, _QUICK_TTL_COUNT if options.quick else _TTL_COUNT)
        found = run_drills(work, _QUICK_ROUNDS if options.quick else _ROUNDS)
    figures = drill_figures(found) + figures
    details |= {name: [_details(run) for run in several] for name, several in found.items()}
    details |= {"rows": rows_table(found), "machine": machine(), "load_average": load}
    write_figures(figures, output / "disaster_recovery.json")
    write_json(details, output / "details" / "disaster_recovery.json")
    print(f"\n{table(rows_table(found))}\n\n{textwrap.fill((__doc__ or '').rpartition('works')[2], 100)}\n")
    print(figures_table(figures))
    print(f"Written to {output / 'disaster_recovery.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
