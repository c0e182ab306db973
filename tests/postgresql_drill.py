"""One drill on a pair of PostgreSQL databases: the primary is killed, the standby promoted, the old primary
rejoined, both proven equal, and then a row of the standby altered, which has to be found.

Broken, promoted, rejoined and compared by what drills use; watched by a client of its own, which knows
nothing of that, and whose ledger of acknowledged writes is the truth that RTO and RPO are held against.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import psycopg

from fastvlm_ops.core.config.disaster_recovery_steps import DatabasesEqual, RejoinDatabase, StandbyPromoted
from fastvlm_ops.core.disaster_recovery.fault_types import DatabaseFault
from fastvlm_ops.core.disaster_recovery.faults.database import inject
from fastvlm_ops.core.disaster_recovery.ledger import ProbeRecord, WriteRecord
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.postgresql.equality import compare_databases
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.disaster_recovery.steps import run_action, run_check
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import Instance, Marker, ProcessIdentity, ServiceView
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.service.database_pair import DatabasePair
from tests.postgresql_tampering import alter_row

Mode = Literal["async", "sync", "lagging"]
_STEADY_SECONDS = 1.5
_AFTER_SECONDS = 1.5
_CLIENT_SECONDS = 0.005


@dataclass
class Write:
    """A write as the client saw it.

    :param acknowledged: when, by the monotonic clock; None where it was not
    """

    id: str
    payload: str
    sent: float
    acknowledged: float | None = None


class PairControl:
    """The pair as a service that drills control, without the rest of a service around it."""

    address = "unix:pair"

    def __init__(self, pair: DatabasePair) -> None:
        self.pair = pair

    def view(self) -> ServiceView:
        """Return the pair as it is now."""
        instances = []
        for name in self.pair.names:
            process = self.pair.identity(name)
            identity = ProcessIdentity.of(process) if process else None
            healthy, detail = self.pair.health(name) if process else (False, "does not run")
            instances.append(
                Instance(
                    name=name,
                    role=self.pair.role(name),
                    address=self.pair.address(name) if process else None,
                    identity=identity,
                    healthy=healthy,
                    detail=detail,
                )
            )
        return ServiceView(
            marker=Marker(service="pair", environment="demo"),
            instances=tuple(instances),
            url="http://127.0.0.1",
            places={},
            links=(),
        )

    def promote(self, instance: str) -> None:
        """Make a standby the primary."""
        self._tell(lambda: self.pair.promote(instance))

    def rejoin(self, instance: str) -> None:
        """Make an old primary a standby."""
        self._tell(lambda: self.pair.rejoin(instance))

    def _tell(self, what: Any) -> None:
        try:
            what()
        except (DatabaseError, ProcessStartError) as error:
            raise ServiceControlError(str(error), retryable=getattr(error, "retryable", False)) from None


class Client(threading.Thread):
    """Writes rows as fast as they are acknowledged, each tried once, to whichever database takes writes."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.writes: list[Write] = []
        self._dsn = dsn
        self._ended = threading.Event()

    def run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._ended.is_set():
            number = len(self.writes)
            payload = f"payload of {number} " + "x" * (number % 50)
            write = Write(f"w{number:06}", payload, time.monotonic())
            self.writes.append(write)
            try:
                connection = connection or psycopg.connect(self._dsn, autocommit=True)
                connection.execute("INSERT INTO record VALUES (%s, %s)", [write.id, payload])
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                connection = None
            else:
                write.acknowledged = time.monotonic()
            self._ended.wait(_CLIENT_SECONDS)
        if connection is not None:
            connection.close()

    def end(self) -> None:
        """Write no more."""
        self._ended.set()
        self.join(30)


class Watch(threading.Thread):
    """Looks for two primaries at one moment."""

    def __init__(self, pair: DatabasePair) -> None:
        super().__init__(daemon=True)
        self.looks = 0
        self.found: list[str] = []
        self._pair = pair
        self._ended = threading.Event()

    def run(self) -> None:
        first, second = self._pair.names
        while not self._ended.wait(0.05):
            # The first one again: it may have been killed, and the other promoted, between the two looks.
            states = [self._pair.read(name) for name in (first, second, first)]
            self.looks += 1
            if all(state.role == "primary" for state in states):
                self.found.append(f"{first} and {second} at {time.monotonic()}")

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join(30)


@dataclass(frozen=True)
class Drill:
    """What a drill came to.

    :param wall_seconds: all of it, from no database at all to none again
    :param breaking_seconds: until all processes of the primary were killed, which is the moment of the fault
    :param rto_seconds: by the client: to the first acknowledged write after the failures
    :param rpo_seconds: by the client: age, at the fault, of the oldest acknowledged write that is gone
    :param lost: by the client: ids of the writes that were acknowledged before the fault and are gone
    :param lost_later: those of them that were acknowledged after the fault
    :param measured: the same, by what drills measure with
    :param results: of the steps, as JSON, by name
    :param two_primaries: moments at which there were two
    :param looks: how often that was looked for
    :param altered_found: what was found after a row of the standby was altered
    """

    mode: Mode
    wall_seconds: float
    breaking_seconds: float
    rto_seconds: float | None
    rpo_seconds: float
    acknowledged: int
    lost: tuple[str, ...]
    lost_later: tuple[str, ...]
    measured: Measures
    results: dict[str, dict[str, Any]]
    two_primaries: tuple[str, ...]
    looks: int
    altered: str
    altered_found: tuple[str, ...]


def run_drill(folder: Path, mode: Mode, *, lag_seconds: float = 1.5) -> Drill:
    """Run one drill.

    :param folder: for logs
    :param mode: ``async`` or ``sync``; ``lagging``: asynchronous, and the standby is cut off before the fault
    :param lag_seconds: for how long it is cut off
    """
    began = time.monotonic()
    pair = DatabasePair(folder, "sync" if mode == "sync" else "async", die_with_parent=True)
    with pair:
        with psycopg.connect(pair.client_dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE record (id text PRIMARY KEY, payload text NOT NULL)")
        client, watch = Client(pair.client_dsn()), Watch(pair)
        client.start()
        watch.start()
        time.sleep(_STEADY_SECONDS)
        if mode == "lagging":
            pair.pause_replication()
            time.sleep(lag_seconds)
        at = surroundings_of(pair, folder)
        plan = plan_of(pair, folder)
        assert isinstance(plan.fault, DatabaseFault)
        breaking = time.monotonic()
        inject(plan.fault, lambda _: None)
        fault = time.monotonic()  # until all its processes are killed, it may acknowledge writes
        results = {"standby_promoted": run_check(_promoted(), plan, at)}
        time.sleep(_AFTER_SECONDS)
        results["rejoin_database"] = run_action(_rejoin(), plan, at)
        results["databases_equal"] = run_check(_equal(), plan, at)
        client.end()
        watch.end()
        found = _rows(pair)
        altered, altered_found = _alter(pair)
    return _drill(mode, began, breaking, fault, client.writes, found, results, watch, altered, altered_found)


def _drill(
    mode: Mode,
    began: float,
    breaking: float,
    fault: float,
    writes: list[Write],
    found: dict[str, str],
    results: dict[str, dict[str, Any]],
    watch: Watch,
    altered: str,
    altered_found: tuple[str, ...],
) -> Drill:
    gone = [one for one in writes if one.acknowledged and found.get(one.id) != _sha256(one.payload)]
    lost = [one for one in gone if one.acknowledged and one.acknowledged < fault]
    return Drill(
        mode=mode,
        wall_seconds=time.monotonic() - began,
        breaking_seconds=fault - breaking,
        rto_seconds=_rto(writes, fault),
        rpo_seconds=max((fault - one.sent for one in lost), default=0.0),
        acknowledged=sum(one.acknowledged is not None and one.acknowledged < fault for one in writes),
        lost=tuple(one.id for one in lost),
        lost_later=tuple(one.id for one in gone if one not in lost),
        measured=_measured(writes, found, fault),
        results=results,
        two_primaries=tuple(watch.found),
        looks=watch.looks,
        altered=altered,
        altered_found=altered_found,
    )


def _rto(writes: list[Write], fault: float) -> float | None:
    """When the first write was acknowledged after the last failure that followed the fault."""
    after = [one for one in writes if one.sent >= fault or (one.acknowledged or fault) >= fault]
    failures = [index for index, one in enumerate(after) if one.acknowledged is None]
    rest = after[failures[-1] + 1 :] if failures else after
    return rest[0].acknowledged - fault if rest and rest[0].acknowledged else None


def _measured(writes: list[Write], found: dict[str, str], fault: float) -> Measures:
    probes, records = [], []
    for number, one in enumerate(writes):
        sent, known = _ns(one.sent), _ns(one.acknowledged or one.sent)
        ok = one.acknowledged is not None
        probes.append(ProbeRecord(number, sent, known, ok))
        outcome: Any = "acknowledged" if ok else "in_flight"
        records.append(
            WriteRecord(number, one.id, _sha256(one.payload), sent, outcome, known if ok else None)
        )
    return measure(probes, records, found, _ns(fault))


def _alter(pair: DatabasePair) -> tuple[str, tuple[str, ...]]:
    """Alter a row of the standby behind its back; returns its key, and what is then found to differ."""
    key = alter_row(pair)
    found = compare_databases(
        pair.dsn(pair.primary()), pair.dsn(pair.standby()), names=(pair.primary(), pair.standby())
    )
    return key, found.problems


def _rows(pair: DatabasePair) -> dict[str, str]:
    with psycopg.connect(pair.client_dsn(), autocommit=True) as connection:
        rows = connection.execute("SELECT id, payload FROM record").fetchall()
    return {id: _sha256(payload) for id, payload in rows}


def plan_of(pair: DatabasePair, folder: Path) -> DrillPlan:
    """Return the plan of a drill that kills the primary."""
    process = pair.identity(pair.primary())
    assert process is not None
    return DrillPlan(
        run_key="test/drill",
        fault_id="drill",
        scenario="primary_database_lost",
        definition={},
        definition_hash="",
        include_hash="",
        dry_run=False,
        environment="demo",
        control=PairControl.address,
        url=None,
        fault=DatabaseFault(
            control=PairControl.address,
            instance=pair.primary(),
            identity=ProcessIdentity.of(process),
        ),
        time_to_live_seconds=120,
        instances_before=pair.names,
        folder=str(folder),
        host="localhost",
        planned_at=datetime.now(UTC).isoformat(),
    )


def surroundings_of(pair: DatabasePair, folder: Path) -> Surroundings:
    """Return what the steps of a drill on the pair get; they need no more than this of it."""
    return Surroundings(
        control=cast(Any, PairControl(pair)),
        store=cast(Any, None),
        open_repository=None,
        open_repository_through=None,
        database_dsn=pair.dsn,
        components=cast(Any, None),
        kit_dir=None,
        postgresql_bin_dir=None,
        scratch=folder,
        drill_dir=folder,
        say=lambda _: None,
        as_of=datetime.now(UTC),
    )


def _promoted() -> StandbyPromoted:
    return StandbyPromoted(check="standby_promoted", within_seconds=30)


def _rejoin() -> RejoinDatabase:
    return RejoinDatabase(action="rejoin_database", within_seconds=60)


def _equal() -> DatabasesEqual:
    return DatabasesEqual(check="databases_equal", within_seconds=30)


def _sha256(payload: str) -> str:
    return hashlib.sha256(payload.encode()).hexdigest()


def _ns(moment: float) -> int:
    return round(moment * 1e9)
