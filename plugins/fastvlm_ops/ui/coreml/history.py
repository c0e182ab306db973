"""How a subject came to where it stands: its runs, their sessions, baselines, epochs and versions."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.epochs import Epoch, what_changed
from fastvlm_ops.core.coreml.verdicts import Metric, Verdict
from fastvlm_ops.ui.coreml.data import about, newest_class
from fastvlm_ops.ui.coreml.standing import (
    NOT_JUDGED,
    Judged,
    Standing,
    Subject,
    cost_shares,
    rank,
    worst_first,
)

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import CompareRules
    from fastvlm_ops.core.coreml.changepoints import ChangePoint
    from fastvlm_ops.core.coreml.changepoints import Night as Levels
    from fastvlm_ops.core.store import Store

WINDOWS = (30, 90, 365, 800)
OFFERED_RUNS = 60
EARLIER_VERDICTS = 40
_BEFORE = timedelta(days=60)  # what is shown: read for the baseline and the level of its first nights
_EARLIER_RUNS = 20  # accepted before even that
_FEWEST = 2  # values that a band can be drawn of


@dataclass(frozen=True)
class Night:
    """A run of a subject.

    :param run: its row of ``coreml_run``
    :param latencies: median of each session that gave one, in ms
    :param verdict: the worst of what counted for a release
    :param accepted: whether later runs are compared with it
    :param band: the sessions that were accepted until then, of its epoch: their 5 % and 95 % quantiles and
        their median in ms; None where there were none
    """

    run: Mapping[str, Any]
    latencies: Sequence[float]
    verdict: str
    accepted: bool
    band: tuple[float, float, float] | None

    @property
    def at(self) -> datetime:
        moment: datetime = self.run["measured_at"]
        return moment

    @property
    def latency(self) -> float | None:
        """Median of its sessions, in ms."""
        return statistics.median(self.latencies) if self.latencies else self.run["latency_p50_ms"]


@dataclass(frozen=True)
class EpochStart:
    """A night from which on results cannot be compared with earlier ones, and why."""

    at: datetime
    reason: str


@dataclass(frozen=True)
class Change:
    """A night from which on the latency is another one, as ``core.coreml.changepoints`` finds it."""

    at: datetime
    before: float
    after: float
    change: float
    p_value: float


@dataclass(frozen=True)
class Version:
    """A version of the model, as its newest run has it.

    :param first_at: when it was measured first, of what is shown
    :param runs: that measured it
    :param placed: its newest run that has a plan; None where none has
    :param moved: what was said of operations that were planned elsewhere than before, worst first
    """

    name: str
    digest: str
    first_at: datetime
    runs: int
    latency: float | None
    placed: Mapping[str, Any] | None
    moved: Sequence[Judged]


@dataclass(frozen=True)
class Detail:
    """A subject's page.

    :param standing: by the run that was chosen
    :param nights: oldest first, all on hardware of one class
    :param elsewhere: how many runs are not among them, since the device was of another class
    :param runs: that can be chosen, newest first: key and time
    :param changes: of the latency, oldest first
    :param earlier: verdicts of other runs that were not OK, newest first
    :param moved: by run, what was said of operations that are planned elsewhere than before
    :param accepted: the row of ``coreml_baseline`` that was accepted last; None where none was
    :param siblings: the same model on all devices and with all compute units, itself among them
    """

    standing: Standing
    nights: Sequence[Night]
    elsewhere: int
    runs: Sequence[tuple[str, datetime]]
    changes: Sequence[Change]
    earlier: Sequence[Judged]
    moved: Mapping[str, Sequence[Judged]]
    accepted: Mapping[str, Any] | None
    siblings: Sequence[Subject]

    @property
    def epochs(self) -> list[EpochStart]:
        """Where epochs begin within what is shown; the first one is not named."""
        found = [night for night in self.nights if night.run["epoch"] and night.run["hardware_class"]]
        return [
            EpochStart(night.at, what_changed(_epoch(before.run), _epoch(night.run)) or "unknown")
            for before, night in itertools.pairwise(found)
            if before.run["epoch"] != night.run["epoch"]
        ]

    @property
    def versions(self) -> list[Version]:
        """Newest first."""
        by_version: dict[tuple[str, str], list[Night]] = defaultdict(list)
        for night in self.nights:
            by_version[night.run["version"], night.run["digest"]].append(night)
        found = [_version(key, some, self.moved) for key, some in by_version.items()]
        return sorted(found, key=lambda one: one.first_at, reverse=True)


def read_detail(
    store: Store, subject: Subject, run_key: str, days: int, rules: CompareRules
) -> Detail | None:
    """Read a subject's page.

    :param store: the operations database
    :param subject: the subject
    :param run_key: whose verdicts are shown; empty for the newest
    :param days: of history, before the newest run
    :param rules: what counts as a change, and what a baseline is
    :returns: None where there is no such run
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import runs

    with store.read() as connection:
        newest_first = select(runs).where(*about(runs, subject)).order_by(runs.c.measured_at.desc())
        asked = newest_first.where(runs.c.run_key == run_key) if run_key else newest_first
        run = connection.execute(asked.limit(1)).mappings().first()
        if run is None:
            return None
        offered = newest_first.with_only_columns(runs.c.run_key, runs.c.measured_at).limit(OFFERED_RUNS)
        choices = [(key, at) for key, at in connection.execute(offered)]
        since = choices[0][1] - timedelta(days=days)
        rows = connection.execute(newest_first.where(runs.c.measured_at >= since - _BEFORE)).mappings()
        read = [dict(row) for row in rows][::-1]
        hardware_class = newest_class(connection, subject)
        same = [row for row in read if row["hardware_class"] in (hardware_class, None)]
        verdicts = _worst(connection, subject, since)
        baselines = _baselines(connection, subject)
        nights = list(_nights(connection, subject, same, verdicts, baselines, rules.baseline_sessions))
        return Detail(
            standing=Standing(
                subject, dict(run), _judged(connection, subject, run["run_key"]), hardware_class
            ),
            nights=[night for night in nights if night.at >= since],
            elsewhere=sum(row["measured_at"] >= since and row not in same for row in read),
            runs=choices,
            changes=[change for change in _changes(nights, rules) if change.at >= since],
            earlier=_earlier(connection, subject, since, run["run_key"]),
            moved=_moved(connection, subject, since, nights),
            accepted=baselines[-1] if baselines else None,
            siblings=_siblings(connection, subject),
        )


def _changes(nights: Sequence[Night], rules: CompareRules) -> Iterator[Change]:
    from fastvlm_ops.core.coreml import changepoints

    series = tuple(changepoints.Night(tuple(night.latencies), night.run["epoch"]) for night in nights)
    for one in _find_change_points(series, rules):
        yield Change(nights[one.index].at, one.before, one.after, one.change, one.p_value)


@lru_cache(maxsize=64)  # a page is looked at more often than nights come
def _find_change_points(series: tuple[Levels, ...], rules: CompareRules) -> list[ChangePoint]:
    from fastvlm_ops.core.coreml.changepoints import find_change_points

    return find_change_points(series, rules)


def _nights(
    connection: Any,
    subject: Subject,
    rows: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, str],
    baselines: Sequence[Mapping[str, Any]],
    baseline_sessions: int,
) -> Iterator[Night]:
    accepted = {row["run_key"]: row for row in baselines}
    read = [row["run_key"] for row in rows]
    earlier = [row for row in baselines if row["run_key"] not in set(read)][-_EARLIER_RUNS:]
    latencies = _latencies(connection, subject, [*(row["run_key"] for row in earlier), *read])
    by_epoch: dict[str, list[float]] = defaultdict(list)
    for row in earlier:
        by_epoch[row["epoch"]] += latencies[row["run_key"]]
    for row in rows:
        key, epoch = row["run_key"], row["epoch"]
        band = _band(by_epoch[epoch][-baseline_sessions:])
        yield Night(row, latencies[key], verdicts.get(key, NOT_JUDGED), key in accepted, band)
        if key in accepted:
            by_epoch[epoch] += latencies[key]


def _band(values: Sequence[float]) -> tuple[float, float, float] | None:
    if len(values) < _FEWEST:
        return None
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1], statistics.median(values)


def _latencies(connection: Any, subject: Subject, keys: Sequence[str]) -> dict[str, list[float]]:
    """Medians of the sessions of runs, in ms."""
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import sessions

    columns = sessions.c.run_key, sessions.c.p50_ms
    wanted = sessions.c.run_key.in_(keys), sessions.c.failure_code.is_(None), sessions.c.p50_ms.is_not(None)
    found: dict[str, list[float]] = defaultdict(list)
    query = select(*columns).where(*wanted, *about(sessions, subject)).order_by(sessions.c.session_index)
    for key, value in connection.execute(query):
        found[key].append(value)
    return found


def _judged(connection: Any, subject: Subject, run_key: str) -> list[Judged]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import verdicts

    query = select(verdicts).where(verdicts.c.run_key == run_key, *about(verdicts, subject))
    return worst_first(dict(row) for row in connection.execute(query).mappings())


def _worst(connection: Any, subject: Subject, since: datetime) -> dict[str, str]:
    """By run: the worst verdict that counted for a release."""
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import verdicts

    wanted = *about(verdicts, subject), verdicts.c.judged_at >= since, verdicts.c.gate
    query = select(verdicts.c.run_key, verdicts.c.verdict).where(*wanted).distinct()
    worst: dict[str, str] = {}
    for run_key, verdict in connection.execute(query):
        worst[run_key] = min(worst.get(run_key, verdict), verdict, key=rank)
    return worst


def _earlier(connection: Any, subject: Subject, since: datetime, run_key: str) -> list[Judged]:
    """What was not good in other runs, newest first; without details: those of operations are long."""
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import verdicts

    columns = [column for column in verdicts.c if column.name != "details"]
    wanted = *about(verdicts, subject), verdicts.c.judged_at >= since, verdicts.c.run_key != run_key
    query = select(*columns).where(*wanted, verdicts.c.verdict != Verdict.OK)
    newest = query.order_by(verdicts.c.judged_at.desc(), verdicts.c.metric).limit(EARLIER_VERDICTS)
    return [Judged({**row, "details": {}}) for row in connection.execute(newest).mappings()]


def _moved(
    connection: Any, subject: Subject, since: datetime, nights: Sequence[Night]
) -> dict[str, list[Judged]]:
    """By run: what was said of operations that are planned elsewhere than before.

    Of what was OK only a version's first runs are read: later ones may be compared with it.
    """
    from sqlalchemy import or_, select

    from fastvlm_ops.core.store.tables.coreml import verdicts

    first: dict[str, str] = {}
    for night in nights:
        if cost_shares(night.run):
            first.setdefault(night.run["digest"], night.run["run_key"])
    telling = or_(verdicts.c.verdict != Verdict.OK, verdicts.c.run_key.in_(first.values()))
    wanted = *about(verdicts, subject), verdicts.c.judged_at >= since, verdicts.c.metric == Metric.PLACEMENT
    query = select(verdicts).where(*wanted, telling).order_by(verdicts.c.judged_at)
    found: dict[str, list[Judged]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        judged = Judged(dict(row))
        if judged.moved_operations or judged.verdict != Verdict.OK:
            found[row["run_key"]].append(judged)
    return found


def _baselines(connection: Any, subject: Subject) -> list[Mapping[str, Any]]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import baselines

    query = select(baselines).where(*about(baselines, subject)).order_by(baselines.c.accepted_at)
    return [dict(row) for row in connection.execute(query).mappings()]


def _siblings(connection: Any, subject: Subject) -> list[Subject]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import runs

    query = select(runs.c.device, runs.c.compute_unit).where(runs.c.model == subject.model).distinct()
    return sorted(Subject(subject.model, device, unit) for device, unit in connection.execute(query))


def _epoch(run: Mapping[str, Any]) -> Epoch:
    device = {**run, "model": run["device_model"] or ""}
    known = {name: value for name, value in device.items() if value is not None}
    return Epoch.of(known, run["toolchain"] or {}, run["compute_unit"])


def _version(key: tuple[str, str], nights: Sequence[Night], moved: Mapping[str, Sequence[Judged]]) -> Version:
    latencies = [night.latency for night in nights if night.latency is not None]
    placed = [night.run for night in nights if cost_shares(night.run)]
    said = [one for night in nights for one in moved.get(night.run["run_key"], ())]
    return Version(
        *key,
        nights[0].at,
        len(nights),
        statistics.median(latencies) if latencies else None,
        placed[-1] if placed else None,
        list({one.reason: one for one in said}.values()),  # the same is said night after night
    )
