"""What the list of drills shows: rows of the operations database, and scenario files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.config.disaster_recovery import Scenario, load_scenario, scenario_files
from fastvlm_ops.core.disaster_recovery.lever import Lever, read_lever
from fastvlm_ops.core.disaster_recovery.reporting.overdue import allowed_age
from fastvlm_ops.ui.errors import told
from fastvlm_ops.ui.rows import Row

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

DAG_PREFIX = "disaster_recovery_"
SHOWN_HISTORY = 16
NEVER, OVERDUE, RUNNING = "never drilled", "overdue", "running"
_ORDER = ("FAIL", "ABORTED", "INCONCLUSIVE", "REFUSED", NEVER, OVERDUE, "PASS")
_TONES = {"PASS": "good", "FAIL": "bad"}
_COLUMNS = (
    *("run_key", "scenario", "environment", "dry_run", "planned_at", "fault_at", "finished_at"),
    *("verdict", "reason", "rto_seconds", "rto_objective_seconds", "detection_seconds"),
    *("rpo_seconds", "rpo_objective_seconds"),
)


def dag_id_of(scenario: str) -> str:
    """Return the id of the DAG of a scenario."""
    return DAG_PREFIX + scenario


def tone(verdict: str) -> str:
    """Return the colour of what a scenario stands for: ``good``, ``bad`` or ``warn``."""
    return _TONES.get(verdict, "warn")


@dataclass(frozen=True)
class Run(Row):
    """A drill, as a row of the list has it."""

    @property
    def said(self) -> str:
        """Its verdict, or that there is none yet."""
        if self.dry_run and self.verdict:
            return "dry run"
        return str(self.verdict or RUNNING)

    @property
    def tone(self) -> str:
        """Its colour."""
        return "neutral" if self.dry_run or not self.verdict else tone(self.said)


@dataclass(frozen=True)
class Standing:
    """A scenario, and what its drills have shown.

    :param scenario: its name
    :param definition: of its file; None where there is none, or it cannot be read
    :param runs: its last drills that were no dry runs, newest first
    :param now: what they are too old by
    """

    scenario: str
    definition: Scenario | None
    runs: Sequence[Run]
    now: datetime
    next_at: datetime | None = None
    is_paused: bool = False

    @property
    def title(self) -> str:
        return self.definition.title if self.definition else self.scenario.replace("_", " ")

    @property
    def running(self) -> Run | None:
        """The drill that has no verdict yet."""
        return next((one for one in self.runs[:1] if one.verdict is None), None)

    @property
    def last(self) -> Run | None:
        """The newest drill with a verdict."""
        return next((one for one in self.runs if one.verdict is not None), None)

    @property
    def is_overdue(self) -> bool:
        """Whether it should have been drilled again since."""
        if self.definition is None or self.definition.schedule is None or self.last is None:
            return False
        try:
            allowed = allowed_age(self.definition.schedule, self.now)
        except ValueError:
            return True
        return bool(self.now - self.last.planned_at > allowed)

    @property
    def verdict(self) -> str:
        """What it stands for: what passed too long ago proves nothing any more."""
        if self.last is None:
            return NEVER
        return OVERDUE if self.is_overdue and self.last.verdict == "PASS" else str(self.last.verdict)

    @property
    def tone(self) -> str:
        return tone(self.verdict)

    @property
    def history(self) -> list[Run]:
        """Its last drills with a verdict, oldest first."""
        return [one for one in self.runs if one.verdict is not None][:SHOWN_HISTORY][::-1]

    @property
    def urgency(self) -> tuple[bool, int, str]:
        place = _ORDER.index(self.verdict) if self.verdict in _ORDER else 0
        return self.definition is None, place, self.scenario


@dataclass(frozen=True)
class OpenFault:
    """Something that was broken, or was to be, and is not known to be whole."""

    row: Mapping[str, Any]
    now: datetime

    @property
    def was_injected(self) -> bool:
        return self.row["injected_at"] is not None

    @property
    def is_late(self) -> bool:
        """Whether it is there longer than it may be."""
        ends = self.row["expires_at"] or self.row["armed_at"] + timedelta(
            seconds=self.row["time_to_live_seconds"]
        )
        return bool(self.now > ends)

    @property
    def what(self) -> str:
        """In words; of a fault that cannot be read, that it cannot."""
        from fastvlm_ops.core.disaster_recovery.fault_types import FAULTS
        from fastvlm_ops.core.disaster_recovery.reporting.hit import describe_hit

        try:
            return describe_hit(FAULTS.validate_python(self.row["fault"]))
        except ValueError:
            return "a fault that cannot be read"


@dataclass(frozen=True)
class Overview:
    """The list of scenarios.

    :param standings: most urgent first
    :param broken: scenario files that cannot be read, and why
    """

    standings: list[Standing]
    broken: list[tuple[str, str]]
    faults: list[OpenFault]
    lever: Lever
    newest_at: datetime | None
    recent: list[Run] = field(default_factory=list)

    def count(self, *verdicts: str) -> int:
        """How many scenarios that are still to be drilled have one of these verdicts."""
        return sum(one.verdict in verdicts and one.definition is not None for one in self.standings)

    @property
    def declared(self) -> int:
        """How many scenarios there are."""
        return sum(one.definition is not None for one in self.standings)

    @property
    def late_faults(self) -> list[OpenFault]:
        return [one for one in self.faults if one.is_late]


@contextmanager
def opened() -> Iterator[Store]:
    """Open the operations database for one page.

    :raises Exception: it cannot be opened; of many kinds, by what is wrong
    """
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        yield store


def read_definitions(include_dir: Path) -> tuple[dict[str, Scenario], list[tuple[str, str]]]:
    """Return the scenarios by name, and the files that cannot be read with the reason.

    :param include_dir: the folder of the definition files
    """
    found: dict[str, Scenario] = {}
    broken = []
    for file in scenario_files(include_dir):
        try:
            found[file.stem] = load_scenario(file)
        except Exception as error:  # shown; the others stay
            broken.append((file.name, told(error)))
    return found, broken


def read_overview(
    store: Store,
    definitions: tuple[dict[str, Scenario], list[tuple[str, str]]],
    now: datetime,
    visible: Callable[[str], bool],
    next_run: Callable[[str], tuple[datetime | None, bool]],
) -> Overview:
    """Read where all scenarios stand.

    :param store: the operations database
    :param definitions: of :func:`read_definitions`
    :param now: the time
    :param visible: whether the reader may see drills of a scenario
    :param next_run: when a DAG runs next, and whether it is paused
    """
    from sqlalchemy import func, select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills, faults

    scenarios, broken = definitions
    with store.read() as connection:
        known = set(connection.execute(select(drills.c.scenario).distinct()).scalars())
        newest_at = connection.execute(select(func.max(drills.c.planned_at))).scalar()
        names = [name for name in sorted({*scenarios, *known}) if visible(name)]
        runs = {name: _runs(connection, name) for name in names}
        rows = connection.execute(select(faults).where(faults.c.undone_at.is_(None))).mappings().all()
    standings = []
    for name in names:
        next_at, paused = next_run(dag_id_of(name)) if name in scenarios else (None, False)
        standings.append(Standing(name, scenarios.get(name), runs[name], now, next_at, paused))
    return Overview(
        standings=sorted(standings, key=lambda one: one.urgency),
        broken=broken,
        faults=[OpenFault(dict(row), now) for row in rows],
        lever=read_lever(store),
        newest_at=newest_at,
    )


def _runs(connection: Any, scenario: str) -> list[Run]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    query = (
        select(*(drills.c[name] for name in _COLUMNS))
        .where(drills.c.scenario == scenario, drills.c.dry_run.is_(False))
        .order_by(drills.c.planned_at.desc())
        .limit(SHOWN_HISTORY + 1)
    )
    return [Run(dict(row)) for row in connection.execute(query).mappings()]


def read_recent(
    store: Store, scenarios: Sequence[str], wanted: Mapping[str, str], start: int, count: int
) -> list[Run]:
    """Return drills, newest first.

    :param store: the operations database
    :param scenarios: that may be shown
    :param wanted: ``scenario`` and ``verdict``; empty for any. A verdict is also ``running`` or ``dry run``
    :param start: how many are left out
    :param count: how many at most
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.disaster_recovery import drills

    shown = [name for name in scenarios if wanted.get("scenario") in ("", None, name)]
    query = select(*(drills.c[name] for name in _COLUMNS)).where(drills.c.scenario.in_(shown))
    verdict = wanted.get("verdict", "")
    if verdict == "dry run":
        query = query.where(drills.c.dry_run.is_(True))
    elif verdict:
        same = drills.c.verdict.is_(None) if verdict == RUNNING else drills.c.verdict == verdict
        query = query.where(same, drills.c.dry_run.is_(False))
    query = query.order_by(drills.c.planned_at.desc(), drills.c.run_key).offset(start).limit(count)
    with store.read() as connection:
        return [Run(dict(row)) for row in connection.execute(query).mappings()]
