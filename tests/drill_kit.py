"""Drills that were made up: ledgers, steps and rows as drills leave them, for tests of reports and pages."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from fastvlm_ops.core.disaster_recovery.drills import (
    record_fault_at,
    record_plan,
    record_step,
    record_verdict,
)
from fastvlm_ops.core.disaster_recovery.fault_types import (
    DatabaseFault,
    Fault,
    FileFault,
    LinkFault,
    ProcessFault,
)
from fastvlm_ops.core.disaster_recovery.ledger import (
    PROBE_COLUMNS,
    PROBES_FILE,
    WRITE_COLUMNS,
    WRITES_FILE,
    ProbeRecord,
    WriteRecord,
    probe_row,
    write_row,
)
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult, Verdict
from fastvlm_ops.core.services.instances import ProcessIdentity
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables.disaster_recovery import faults

FAULT_NS = 5_000_000_000_000
_SECOND = 1_000_000_000
HOST = "drill-worker-1"
CONTROL = "unix:/srv/demo/control.sock"
_PROCESS = ProcessIdentity(pid=4711, started=882_144, boot="6d0c3c1e-6a7f-4b3e-9f50-1a2b3c4d5e6f")
REPLICA_KILLED = ProcessFault(how="kill", control=CONTROL, instance="replica-1", identity=_PROCESS)
REPLICA_HUNG = ProcessFault(how="stop", control=CONTROL, instance="replica-2", identity=_PROCESS)
PRIMARY_KILLED = DatabaseFault(control=CONTROL, instance="database-1", identity=_PROCESS)
MODELS_DELETED = FileFault(how="delete", place="/srv/demo/model_store", path="", kept="/srv/demo/kept/1f")
CONFIGURATION_BROKEN = FileFault(
    how="corrupt", place="/srv/demo/configuration", path="service.yaml", kept="/srv/demo/kept/2f", bytes=64
)
STORAGE_GONE = LinkFault(control=CONTROL, link="object_store", disturbance="refuse")


@dataclass(frozen=True)
class Story:
    """A drill, and what becomes of it. Seconds count from the fault.

    :param noticed: when the first request fails; None: none does
    :param served: when requests succeed again; None: they never do
    :param lost: how many of the last acknowledged writes before the fault are missing afterwards
    :param restored: when restoring has ended
    :param steps: status, and each check as ``(name, status, detail)``, by step; others have passed
    """

    scenario: str
    title: str
    fault: Fault | None
    verdict: Verdict | None = "PASS"
    reason: str = ""
    noticed: float | None = 0.12
    served: float | None = 0.41
    lost: int = 0
    restored: float = 6.0
    ended: float = 24.0
    rto_objective: float = 60.0
    rpo_objective: float = 5.0
    time_to_live: float = 120.0
    undone: float | None = 14.0
    undone_by: str | None = "task"
    canary: bool = True
    dry_run: bool = False
    environment: str = "demo"
    description: str = ""
    rto: float | None = None
    rpo: float | None = None
    steps: Mapping[str, tuple[str, Sequence[tuple[str, str, str]]]] = field(default_factory=dict)
    commands: Sequence[tuple[str, float, str]] = ()

    def plan(self, planned_at: datetime, folder: Path, run_id: str | None = None) -> DrillPlan:
        """The plan of this drill."""
        run = run_id or f"scheduled__{planned_at.isoformat()}"
        key = f"disaster_recovery_{self.scenario}/{run}"
        return DrillPlan(
            run_key=key,
            fault_id=sha256(key.encode()).hexdigest()[:32],
            scenario=self.scenario,
            definition={
                "version": 1,
                "title": self.title,
                "description": self.description,
                "environment": self.environment,
                "steady_state": [{"probe": "http", "path": "/readyz", "status": 200, "within_ms": 1000}],
                "objectives": {"rto_seconds": self.rto_objective, "rpo_seconds": self.rpo_objective},
                "steps": _steps_of(self),
            },
            definition_hash=sha256(self.scenario.encode()).hexdigest(),
            include_hash=sha256(b"include").hexdigest(),
            dry_run=self.dry_run,
            environment=self.environment,
            control=CONTROL if self.fault else None,
            url="http://127.0.0.1:18080" if self.fault else None,
            fault=self.fault,
            time_to_live_seconds=self.time_to_live,
            instances_before=("balancer", "database-1", "database-2", "replica-1", "replica-2")
            if self.fault
            else (),
            folder=str(folder),
            host=HOST,
            planned_at=planned_at.isoformat(),
        )


def _steps_of(story: Story) -> dict[str, Any]:
    keys = {"verify_failover": "check", "restore_service": "action", "validate_recovery": "check"}
    found: dict[str, Any] = {
        name: [{key: check} for check, _, _ in story.steps.get(name, ("passed", ()))[1]]
        for name, key in keys.items()
    }
    return {"simulate_failure": {"fault": "kill_process"} if story.fault else None, **found}


def make_probes(story: Story, seed: int = 1) -> list[ProbeRecord]:
    """Requests each 0.05 s, as the prober would have seen the story."""
    return list(_probes(story, random.Random(seed)))


def _probes(story: Story, chance: random.Random) -> Iterator[ProbeRecord]:
    for number in range(round((story.ended + 4.0) / 0.05)):
        at = -4.0 + number * 0.05
        latency = chance.lognormvariate(1.9, 0.35)
        failing = story.noticed is not None and at >= max(story.noticed - 0.1, 0.0)
        failing = failing and (story.served is None or at < story.served)
        if failing:
            latency = 1000.0 if isinstance(story.fault, ProcessFault) and story.fault.how == "stop" else 1.2
        elif 0 <= at < story.ended / 3:
            latency *= 1.8
        sent = FAULT_NS + round(at * _SECOND)
        detail = "connection refused" if failing else ""
        status = None if failing else 200
        yield ProbeRecord(number, sent, sent + round(latency * 1e6), not failing, status, detail)


def make_writes(story: Story, seed: int = 2) -> tuple[list[WriteRecord], dict[str, str]]:
    """Writes each 0.05 s, and what is found of them afterwards."""
    chance, writes = random.Random(seed), []
    for number in range(round((story.ended + 4.0) / 0.05)):
        at = -4.0 + number * 0.05
        if not story.canary and at > -2.5:
            break
        sent = FAULT_NS + round(at * _SECOND)
        failing = story.noticed is not None and at >= 0 and (story.served is None or at < story.served)
        answered = sent + round(chance.uniform(0.004, 0.02) * _SECOND)
        outcome = "failed" if failing else "acknowledged"
        if failing and at < 0.06:
            outcome = "in_flight"
        name, digest = f"f0-{number}", sha256(str(number).encode()).hexdigest()
        writes.append(WriteRecord(number, name, digest, sent, outcome, answered))  # type: ignore[arg-type]
    found = {one.id: one.sha256 for one in writes if one.outcome == "acknowledged"}
    before = [one.id for one in writes if one.acknowledged_ns and one.acknowledged_ns <= FAULT_NS]
    for name in before[len(before) - story.lost :]:
        del found[name]
    return writes, found


def write_ledger(folder: Path, probes: Sequence[ProbeRecord], writes: Sequence[WriteRecord]) -> None:
    """Write what the observer would have written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns, rows in (
        (PROBES_FILE, PROBE_COLUMNS, map(probe_row, probes)),
        (WRITES_FILE, WRITE_COLUMNS, map(write_row, writes)),
    ):
        lines = [",".join(columns), *(",".join(row) for row in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")


def run(
    store: Store,
    story: Story,
    planned_at: datetime,
    folder: Path,
    *,
    run_id: str | None = None,
    seed: int = 1,
) -> tuple[str, Measures | None, int | None]:
    """Record a drill as its tasks would have, up to its verdict, and write its ledger.

    :returns: its run key, and what its report is made with
    """
    plan = story.plan(planned_at, folder, run_id)
    record_plan(
        store,
        plan,
        rto_objective_seconds=story.rto_objective,
        rpo_objective_seconds=story.rpo_objective,
    )
    fault_at = planned_at + timedelta(seconds=9)
    injected = story.fault is not None and not story.dry_run and "simulate_failure" not in _not_run(story)
    measures = _measure(story, folder, seed) if injected else None
    if story.fault is not None and injected:
        _record_fault(store, story, plan, fault_at)
    for result, start, end in _results(story, injected):
        record_step(
            store,
            plan.run_key,
            result,
            started_at=fault_at + timedelta(seconds=start),
            finished_at=fault_at + timedelta(seconds=end),
        )
    if measures is None and story.rto is not None:
        measures = Measures(rto_seconds=story.rto, rpo_seconds=story.rpo)
    if story.verdict is not None:
        record_verdict(
            store, plan.run_key, story.verdict, story.reason, figures=_figures(measures), summary={}
        )
    return plan.run_key, measures, FAULT_NS if injected else None


def _not_run(story: Story) -> set[str]:
    return {name for name, (status, _) in story.steps.items() if status == "not run"}


def _measure(story: Story, folder: Path, seed: int) -> Measures:
    probes = make_probes(story, seed)
    writes, found = make_writes(story, seed + 1)
    write_ledger(folder, probes, writes)
    return measure(probes, writes, found, FAULT_NS)


def _figures(measures: Measures | None) -> dict[str, Any]:
    if measures is None:
        return {}
    names = ("rto_seconds", "detection_seconds", "failover_seconds", "rpo_seconds")
    counts = {
        "lost_writes": len(measures.lost),
        "acknowledged_writes": measures.acknowledged,
        "in_flight_writes": len(measures.in_flight),
    }
    return {name: getattr(measures, name) for name in names} | (counts if measures.acknowledged else {})


def _record_fault(store: Store, story: Story, plan: DrillPlan, at: datetime) -> None:
    record_fault_at(store, plan.run_key, at)
    undone = None if story.undone is None else at + timedelta(seconds=story.undone)
    row = {
        "fault_id": plan.fault_id,
        "run_key": plan.run_key,
        "host": plan.host,
        "fault": plan.fault.model_dump(mode="json") if plan.fault else {},
        "time_to_live_seconds": plan.time_to_live_seconds,
        "armed_at": at - timedelta(seconds=5),
        "injected_at": at,
        "expires_at": at + timedelta(seconds=plan.time_to_live_seconds),
        "undone_at": undone,
        "undone_by": story.undone_by if undone else None,
        "problem": None if undone or story.verdict is None else "the control socket did not answer",
    }
    with store.write() as connection:
        connection.execute(insert(faults), [row])


def _results(story: Story, injected: bool) -> Iterator[tuple[StepResult, float, float]]:
    served = story.served if story.served is not None else story.ended / 2
    failed_over = max(served + 1.2, 2.0)
    restored = max(story.restored, failed_over + 1.0)
    undone = story.undone if story.undone is not None else story.ended - 1
    ends = {
        "guard": (-8.0, -7.2),
        "simulate_failure": (-4.0, 0.6),
        "verify_failover": (1.4, failed_over + 0.8),
        "restore_service": (failed_over + 1.6, restored + 1.0),
        "validate_recovery": (restored + 1.8, max(restored + 4.0, undone - 1.0)),
        "undo_fault": (max(restored + 4.6, undone - 0.3), max(restored + 5.4, undone + 0.6)),
    }
    for name, (start, end) in ends.items():
        status, checks = story.steps.get(name, ("passed", ()))
        if status == "not run" or (name in ("simulate_failure", "undo_fault") and story.fault is None):
            continue
        if story.dry_run and name != "guard":
            status = "dry_run"
        odd = [detail for _, found, detail in checks if found != "passed"]
        yield (
            StepResult(
                step=name,
                status=status,  # type: ignore[arg-type]
                summary=odd[0]
                if odd
                else _SUMMARIES[name]
                if injected or name == "guard"
                else "as it should be",
                problems=tuple(odd),
                checks=tuple(
                    {
                        "name": check,
                        "status": found,
                        "seconds": 0.4 + number,
                        "detail": detail,
                        "evidence": {},
                    }
                    for number, (check, found, detail) in enumerate(checks)
                ),
                commands=tuple(
                    {"at_seconds": at, "what": what} for step, at, what in story.commands if step == name
                ),
            ),
            start,
            end,
        )


_SUMMARIES = {
    "guard": "every guard holds",
    "simulate_failure": "the steady state held for 3 s, then the fault was injected",
    "verify_failover": "users were served again without anybody doing anything",
    "restore_service": "everything that was to be done is done",
    "validate_recovery": "everything is as it was, row by row and hash by hash",
    "undo_fault": "nothing of the fault is left",
}
GUARDS = (
    ("environment", "passed", "the target says that it is demo, which drill_environments allows"),
    ("lease", "passed", "no other drill runs"),
    ("window", "passed", "Tuesday 10:00 is within the window"),
    ("blast_radius", "passed", "1 of 2 replicas is hit, 1 healthy one is left"),
    ("steady_state", "passed", "/readyz answered 200 in 6 ms"),
)
HEALTHY = (
    ("requests_succeed", "passed", "3 requests in a row were answered rightly"),
    ("instances_healthy", "passed", "all 5 instances are healthy again"),
    ("canary_rows_equal", "passed", "81 of 81 acknowledged rows are there, equal by SHA-256"),
)
KILLED = Story(
    "service_process_killed",
    "A replica of the service is killed",
    REPLICA_KILLED,
    description="The balancer has to send requests elsewhere, and the supervisor has to bring it back.",
    reason="RTO 0.4 s of at most 60 s, RPO 0.0 s of at most 5 s; every step passed",
    steps={
        "guard": ("passed", GUARDS),
        "simulate_failure": ("passed", (("injected", "passed", "replica-1, process 4711, got SIGKILL"),)),
        "verify_failover": (
            "passed",
            (
                ("fault_visible", "passed", "process 4711 is gone"),
                ("requests_succeed", "passed", "3 requests in a row were answered rightly"),
            ),
        ),
        "restore_service": ("passed", (("wait_for_instance", "passed", "replica-1 runs again"),)),
        "validate_recovery": ("passed", HEALTHY),
        "undo_fault": ("passed", (("is_left", "passed", "replica-1 runs"),)),
    },
    commands=(
        ("simulate_failure", 0.0, "kill -KILL the session of process 4711 (replica-1)"),
        ("undo_fault", 13.8, "start replica-1 where it does not run: it runs"),
    ),
)
HUNG = replace(
    KILLED,
    scenario="service_hung",
    title="A replica of the service hangs",
    fault=REPLICA_HUNG,
    verdict="INCONCLUSIVE",
    reason="RPO was not measured: no write was acknowledged in the last 1 s before the fault; is the canary"
    " alive?",
    canary=False,
    noticed=1.0,
    served=1.3,
    commands=(
        ("simulate_failure", 0.0, "kill -STOP the session of process 4711 (replica-2)"),
        ("restore_service", 4.4, "restart replica-2"),
        ("undo_fault", 13.8, "kill -CONT the session of process 4711: it is gone"),
    ),
)
PRIMARY = replace(
    KILLED,
    scenario="primary_database_lost",
    title="The primary database is lost",
    description="A standby has to be promoted, and the old primary has to come back as its standby, equal row"
    " by row.",
    fault=PRIMARY_KILLED,
    verdict="FAIL",
    reason="RTO 61.4 s is over the objective of 60 s; RPO 1.6 s is over the objective of 1 s: 32 acknowledged"
    " writes lost",
    noticed=0.18,
    served=61.35,
    lost=32,
    restored=78.0,
    ended=100.0,
    rpo_objective=1.0,
    undone=92.0,
    time_to_live=300.0,
    steps={
        **KILLED.steps,
        "simulate_failure": ("passed", (("injected", "passed", "database-1, process 4711, got SIGKILL"),)),
        "verify_failover": (
            "passed",
            (
                ("fault_visible", "passed", "database-1 does not answer"),
                ("standby_promoted", "passed", "database-2 is the primary, and takes writes"),
                ("requests_succeed", "passed", "3 requests in a row were answered rightly"),
            ),
        ),
        "restore_service": (
            "passed",
            (("rejoin_database", "passed", "database-1 was rewound, and streams from database-2"),),
        ),
        "validate_recovery": (
            "failed",
            (
                ("databases_equal", "passed", "both have 1842 rows in 3 tables, equal row by row"),
                ("canary_rows_equal", "failed", "32 acknowledged rows are missing, the first is f0-47"),
                ("instances_healthy", "passed", "all 5 instances are healthy again"),
            ),
        ),
    },
    commands=(
        ("simulate_failure", 0.0, "kill -KILL postmaster 4711 of database-1, and its children"),
        ("verify_failover", 2.1, "promote database-2"),
        ("verify_failover", 61.0, "CHECKPOINT on database-2"),
        ("restore_service", 64.8, "pg_rewind --target-pgdata database-1 --source-server database-2"),
        ("restore_service", 71.2, "start database-1"),
    ),
)
MODELS = replace(
    KILLED,
    scenario="model_store_lost",
    title="The model store is lost",
    fault=MODELS_DELETED,
    verdict="FAIL",
    reason="validate_recovery failed: VisionEncoder.mlpackage/Data/weights.bin differs from the backup:"
    " SHA-256 9f2c… where it should be 41aa…",
    noticed=0.3,
    served=18.2,
    restored=17.6,
    ended=40.0,
    undone=32.0,
    rto_objective=120.0,
    steps={
        **KILLED.steps,
        "simulate_failure": ("passed", (("injected", "passed", "all of model_store was moved away"),)),
        "verify_failover": (
            "passed",
            (("service_says", "passed", "/readyz says 503: model VisionEncoder is missing"),),
        ),
        "restore_service": (
            "passed",
            (("restore_backup", "passed", "models of full-20261129T020000Z restored: 14 files, 61 MiB"),),
        ),
        "validate_recovery": (
            "failed",
            (
                (
                    "place_equals_backup",
                    "failed",
                    "VisionEncoder.mlpackage/Data/weights.bin differs from the backup: SHA-256 9f2c… where it"
                    " should be 41aa…",
                ),
                ("requests_succeed", "passed", "3 requests in a row were answered rightly"),
            ),
        ),
    },
    commands=(
        ("simulate_failure", 0.0, "move all of model_store away"),
        ("restore_service", 3.4, "restore models into model_store"),
    ),
)
STORAGE = replace(
    KILLED,
    scenario="object_store_unreachable",
    title="S3 is unreachable during a backup",
    fault=STORAGE_GONE,
    reason="RTO 0.0 s of at most 60 s, RPO 0.0 s of at most 5 s; every step passed",
    noticed=None,
    served=None,
    steps={
        **KILLED.steps,
        "verify_failover": (
            "passed",
            (("backup_fails", "passed", "the backup failed after 4.1 s: the storage does not answer"),),
        ),
    },
)
CONFIGURATION = replace(
    KILLED,
    scenario="configuration_corrupted",
    title="The configuration is corrupted",
    fault=CONFIGURATION_BROKEN,
    verdict="ABORTED",
    reason="/readyz failed for 10 s: the drill was broken off",
    noticed=2.0,
    served=None,
    undone=15.0,
    steps={
        **KILLED.steps,
        "verify_failover": ("aborted", (("requests_succeed", "failed", "/readyz failed for 10 s"),)),
        "restore_service": ("not run", ()),
        "validate_recovery": ("not run", ()),
    },
)
RESTORE = Story(
    "restore_test",
    "The newest full backup restores",
    None,
    environment="demo",
    reason="RTO 41.2 s of at most 900 s, RPO 93600.0 s of at most 604800 s; every step passed",
    rto=41.2,
    rpo=93_600.0,
    rto_objective=900.0,
    rpo_objective=604_800.0,
    restored=30.0,
    ended=44.0,
    steps={
        "guard": ("passed", GUARDS[1:3]),
        "verify_failover": ("not run", ()),
        "restore_service": (
            "passed",
            (("restore_to_scratch", "passed", "5 components of full-20261129T020000Z restored"),),
        ),
        "validate_recovery": (
            "passed",
            (
                (
                    "components_sound",
                    "passed",
                    "214 files equal by hash, 3 packages parsed, 2 databases started",
                ),
            ),
        ),
    },
)
REFUSED = replace(
    KILLED,
    scenario="staging_replica_killed",
    title="A replica in staging is killed",
    environment="staging",
    verdict="REFUSED",
    reason="environment: the target says that it is production, while the scenario says staging",
    steps={
        "guard": (
            "refused",
            (
                (
                    "environment",
                    "failed",
                    "the target says that it is production, while the scenario says staging",
                ),
                *GUARDS[1:3],
            ),
        ),
        **dict.fromkeys(
            ("simulate_failure", "verify_failover", "restore_service", "validate_recovery", "undo_fault"),
            ("not run", ()),
        ),
    },
)
LEFT = replace(KILLED, undone=None, verdict="FAIL", reason="the fault is still there: replica-1 does not run")
STORIES = (KILLED, HUNG, PRIMARY, MODELS, STORAGE, CONFIGURATION, RESTORE, REFUSED)
NOW = datetime(2026, 11, 30, 10, 0, tzinfo=UTC)
