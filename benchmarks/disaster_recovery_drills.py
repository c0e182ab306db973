"""Drills on a demo service, by the code that the tasks of a DAG call, with an independent client beside."""

from __future__ import annotations

import contextlib
import csv
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from sqlalchemy import URL

from benchmarks.disaster_recovery_client import Seen, read_seen
from benchmarks.running import ROOT
from fastvlm_ops.core.config.components import Components
from fastvlm_ops.core.config.disaster_recovery import Scenario, load_scenario
from fastvlm_ops.core.disaster_recovery.carrying_out import arm_fault, break_it, run_parts, take_back
from fastvlm_ops.core.disaster_recovery.concluding import conclude
from fastvlm_ops.core.disaster_recovery.drills import read_drill, record_plan, record_step
from fastvlm_ops.core.disaster_recovery.guards import GuardResult
from fastvlm_ops.core.disaster_recovery.ledger import WRITES_FILE, WriteRecord
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult, Verdict
from fastvlm_ops.core.disaster_recovery.planning import Origin, make_plan, resolve
from fastvlm_ops.core.disaster_recovery.service_requests import payload_hash
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.programs.proc import family
from fastvlm_ops.core.services.instances import ServiceView
from fastvlm_ops.core.store import Store
from fastvlm_ops.local.service.demo_service import DemoService

SCENARIOS = ROOT / "include" / "disaster_recovery"
_LAG_SECONDS = 1.5
_CLIENT_SECONDS = 30.0


@dataclass(frozen=True)
class DrillRun:
    """A drill that was run.

    :param name: of the scenario, and how the databases replicated where that matters
    :param verdict: of the drill
    :param reason: of the verdict
    :param measures: what it measured
    :param wall_seconds: from before the observer was started until the fault was undone
    :param client_rto_seconds: what the independent client saw; None where it saw no recovery
    :param lost_by_client: rows that the client lost
    :param rows_wrong: rows that were called lost and are not, or the other way round
    """

    name: str
    verdict: Verdict
    reason: str
    measures: Measures
    wall_seconds: float
    client_rto_seconds: float | None
    lost_by_client: int
    rows_wrong: int

    @property
    def rto_error_seconds(self) -> float | None:
        """How far the drill's RTO is from what the client saw; None where either is not known."""
        if self.client_rto_seconds is None or self.measures.rto_seconds is None:
            return None
        return abs(self.measures.rto_seconds - self.client_rto_seconds)


class Drills:
    """Runs drills on one service.

    :param service: that runs
    :param store: a fresh operations database
    :param folder: for what drills leave
    :param say: takes a line about each step
    """

    def __init__(self, service: DemoService, store: Store, folder: Path, say: Callable[[str], None]) -> None:
        self._service, self._store, self._folder, self._say = service, store, folder, say
        self._count = 0

    def run(self, scenario: Scenario, *, lag: bool = False) -> DrillRun:
        """Run a drill.

        :param scenario: of a running service
        :param lag: whether the standby stops getting anything for a while before the fault
        """
        self._count += 1
        key = f"disaster_recovery_{scenario.name}/bench-{self._count}"
        plan, at = self._plan(scenario, key)
        record_plan(
            self._store,
            plan,
            rto_objective_seconds=scenario.objectives.rto_seconds,
            rpo_objective_seconds=scenario.objectives.rpo_seconds,
        )
        marker = GuardResult("target", True, f"{self._service.control.view().marker}", "")
        guard = StepResult(step="guard", status="passed", summary="ours", checks=(marker.as_dict(),))
        self._record(key, guard, datetime.now(UTC))
        ledger = self._folder / f"client-{self._count}.jsonl"
        with self._client(f"client-{self._count}", ledger):
            wall_seconds = self._carry_out(plan, at, lag)
        drill = read_drill(self._store, key)
        assert drill is not None
        found = conclude(self._store, drill, at.drill_dir, as_of=at.as_of, rejected=None)
        assert found.measures is not None
        assert found.fault_ns is not None
        assert found.injected_ns is not None
        seen = read_seen(ledger)
        rows = self._rows()
        return DrillRun(
            name=scenario.name,
            verdict=found.verdict,
            reason=found.reason,
            measures=found.measures,
            wall_seconds=wall_seconds,
            client_rto_seconds=seen.rto_seconds(found.fault_ns),
            lost_by_client=len(seen.lost(found.injected_ns, rows)),
            rows_wrong=rows_wrong(found.measures, Path(plan.folder), seen, found.injected_ns, rows),
        )

    def _plan(self, scenario: Scenario, key: str) -> tuple[DrillPlan, Surroundings]:
        service = self._service
        view = service.control.view()
        drill_dir = self._folder / "drills"
        origin = Origin(
            run_key=key,
            dry_run=False,
            control=service.control_address,
            drill_dir=drill_dir,
            host=socket.gethostname(),
            include_hash="-",
            moment=datetime.now(UTC),
        )
        plan = make_plan(scenario, origin, view, resolve(scenario, origin, view))
        return plan, Surroundings(
            control=service.control,
            store=self._store,
            open_repository=None,
            open_repository_through=None,
            database_dsn=lambda name: self._dsn(service.control.view(), name),
            components=_no_components,
            kit_dir=None,
            postgresql_bin_dir=None,
            scratch=Path(plan.folder) / "scratch",
            drill_dir=drill_dir,
            say=self._say,
            as_of=datetime.now(UTC),
        )

    def _carry_out(self, plan: DrillPlan, at: Surroundings, lag: bool) -> float:
        """The steps, one behind the other as tasks are; returns how long all of them took."""
        arm_fault(plan, at)
        begun, step_began = time.monotonic(), datetime.now(UTC)
        try:
            result, _ = break_it(plan, at, guards=lambda: self._just_before(lag))
            self._record(plan.run_key, result, step_began)
            for step in ("verify_failover", "restore_service", "validate_recovery"):
                step_began = datetime.now(UTC)
                result = run_parts(step, plan, replace(at, done=[]), go_on=step == "validate_recovery")
                self._record(plan.run_key, result, step_began)
                if result.status != "passed":
                    break
        finally:
            step_began = datetime.now(UTC)
            self._record(plan.run_key, take_back(plan, at), step_began)
        return time.monotonic() - begun

    def _just_before(self, lag: bool) -> Sequence[GuardResult]:
        if lag:
            primary = self._service.control.view().of_role("database_primary")[0].identity
            assert primary is not None
            assert primary.kind == "process"
            for process in family(primary.process):
                with contextlib.suppress(OSError):
                    title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                    if b"walsender" in title:  # killed with the others in a moment
                        process.signal(signal.SIGSTOP)
            time.sleep(_LAG_SECONDS)
        return []

    def _record(self, key: str, result: StepResult, began: datetime) -> None:
        self._say(f"{result.step}: {result.status}, {result.summary}")
        record_step(self._store, key, result, started_at=began, finished_at=datetime.now(UTC))

    @contextlib.contextmanager
    def _client(self, prefix: str, ledger: Path) -> Iterator[None]:
        command = [sys.executable, "-m", "benchmarks.disaster_recovery_client"]
        client = subprocess.Popen([*command, self._service.url, prefix, str(ledger)], cwd=ROOT)
        try:
            deadline = time.monotonic() + _CLIENT_SECONDS
            while not (ledger.exists() and '"acknowledged": true' in ledger.read_text()):
                if time.monotonic() > deadline:
                    raise RuntimeError("the independent client gets no write acknowledged")
                time.sleep(0.1)
            yield
        finally:
            client.terminate()
            client.wait(_CLIENT_SECONDS)

    def _dsn(self, view: ServiceView, name: str) -> str:
        host, _, port = (view.instance(name).address or "").rpartition(":")
        service = self._service
        url = URL.create(
            "postgresql",
            service.database_user,
            service.database_password,
            host,
            int(port),
            service.database_name,
        )
        return url.render_as_string(hide_password=False)

    def _rows(self) -> dict[str, str]:
        """All rows, from the database itself."""
        view = self._service.control.view()
        dsn = self._dsn(view, view.of_role("database_primary")[0].name)
        with psycopg.connect(dsn) as connection:
            return dict(connection.execute("SELECT id, payload FROM record").fetchall())


def shipped(name: str) -> Scenario:
    """Return a scenario that is shipped."""
    return load_scenario(SCENARIOS / f"{name}.yaml")


def allowing_loss(folder: Path) -> Scenario:
    """Return the scenario of a lost primary, with objectives that allow to lose what was not replicated."""
    text = (SCENARIOS / "primary_database_lost.yaml").read_text()
    changed = text.replace("rpo_seconds: 1\n", "rpo_seconds: 30\n")
    assert changed != text
    file = folder / "primary_database_lagging.yaml"
    file.write_text(changed)
    return load_scenario(file)


def rows_wrong(measures: Measures, drill: Path, seen: Seen, injected_ns: int, rows: dict[str, str]) -> int:
    """How many rows were called lost and are not, or the other way round: of the canary, by its file and the
    database itself; and of the client, whose ledger is measured as the canary's is.
    """
    canary = {one.id for one in measures.lost} ^ _lost_of_canary(drill / WRITES_FILE, injected_ns, rows)
    writes = [
        WriteRecord(number, row, payload_hash(payload), sent, "acknowledged", acknowledged)
        for number, (row, (sent, acknowledged, payload)) in enumerate(seen.written.items())
    ]
    hashes = {row: payload_hash(payload) for row, payload in rows.items() if row in seen.written}
    ours = measure((), writes, hashes, injected_ns)
    lost = seen.lost(injected_ns, rows)
    client = {one.id for one in ours.lost} ^ set(lost)
    oldest = (injected_ns - min(lost.values())) / 1e9 if lost else 0.0
    return len(canary) + len(client) + (ours.rpo_seconds != oldest)


def _lost_of_canary(file: Path, injected_ns: int, rows: dict[str, str]) -> set[str]:
    with file.open(newline="") as lines:
        return {
            row["id"]
            for row in csv.DictReader(lines)
            if row["outcome"] == "acknowledged" and int(row["answered_ns"]) <= injected_ns
            if row["id"] not in rows or payload_hash(rows[row["id"]]) != row["sha256"]
        }


def _no_components() -> Components:
    raise RuntimeError("these drills restore nothing from backups")
