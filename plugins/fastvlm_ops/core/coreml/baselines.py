"""What later runs are compared with: accepted runs, and who accepted them; and the history of all runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, select

from fastvlm_ops.core.coreml.records import BaselineRecord
from fastvlm_ops.core.coreml.storing import COMPLETE, KEY, RunId, load_run
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.tables.coreml import baselines, runs, sessions
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import CompareRules
    from fastvlm_ops.core.coreml.records import RunRecord
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore

#: Who has accepted a run that no person was asked about.
GREEN = "green"
_MOST_RUNS = 200
#: A run is compared with the last sessions, but how much nights differ by themselves takes more nights.
_NIGHTS = 12


@dataclass(frozen=True)
class Subject:
    """What is followed over time.

    :param device: as in ``coreml.yaml``
    :param model: likewise
    :param compute_unit: that Core ML may use
    """

    device: str
    model: str
    compute_unit: str


@dataclass(frozen=True)
class HistoryPoint:
    """One run of a subject, as its trend shows it.

    :param run: which
    :param measured_at: when it began, in UTC
    :param version: of the model
    :param digest: of its files
    :param epoch: only points of one epoch are comparable
    :param hardware_class: likewise
    :param accepted_by: ``green`` or a person; None where it is not in the baseline
    :param latency_p50_ms: of each good session, in order
    """

    run: RunId
    measured_at: datetime
    version: str
    digest: str
    epoch: str
    hardware_class: str
    accepted_by: str | None
    latency_p50_ms: tuple[float, ...]


def subject_of(record: RunRecord) -> Subject:
    """Return what a run is followed by.

    :param record: the run
    """
    return Subject(record.device_name, record.model, record.compute_unit)


def load_baseline(
    store: Store,
    artefacts: ArtefactStore,
    subject: Subject,
    *,
    epoch: str,
    sessions: int,
    before: datetime,
    without: str,
    golden_id: str | None = None,
    fewest_runs: int = 1,
) -> BaselineRecord | None:
    """Return the last accepted runs of an epoch; of another where it has none; None where nothing was.

    :param store: the operations database
    :param artefacts: where the samples are
    :param subject: of which
    :param epoch: of the run that is to be compared
    :param sessions: so many good ones at least, where there are so many
    :param before: only what was measured before this moment
    :param without: run key of the run that is to be compared: a run is not compared with itself
    :param golden_id: of the outputs that its own were compared with: how far runs were from others is left
        out, since it cannot be compared
    :param fewest_runs: so many at least, where there are so many
    """
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(_accepted(subject, before, without)).mappings()]
    chosen = _newest([row for row in rows if row["epoch"] == epoch], sessions, fewest_runs) or rows[:1]
    if not chosen:
        return None
    newest = chosen[0]
    return BaselineRecord(
        runs=tuple(_comparable(load_run(store, artefacts, row), row, golden_id) for row in reversed(chosen)),
        accepted_at=newest["accepted_at"].isoformat(),
        accepted_by=newest["accepted_by"],
    )


def _comparable(run: RunRecord, row: Mapping[str, Any], golden_id: str | None) -> RunRecord:
    return run if row["golden_id"] == golden_id else replace(run, parity=None)


def load_baseline_of(
    store: Store, artefacts: ArtefactStore, record: RunRecord, rules: CompareRules, *, golden_id: str
) -> BaselineRecord | None:
    """Return what a run is compared with: what was accepted before it began.

    :param store: the operations database
    :param artefacts: where the samples are
    :param record: the run
    :param rules: what counts as worse
    :param golden_id: of the outputs that its own were compared with; empty for none
    """
    return load_baseline(
        store,
        artefacts,
        subject_of(record),
        epoch=record.epoch,
        sessions=rules.baseline_sessions,
        before=datetime.fromisoformat(record.started_at),
        without=record.run_key,
        golden_id=golden_id or None,
        fewest_runs=_NIGHTS,
    )


def _newest(rows: Iterable[dict[str, Any]], sessions: int, fewest: int) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = []
    count = 0
    for row in rows:
        if count >= sessions and len(chosen) >= fewest:
            break
        chosen.append(row)
        count += row["sessions"] - row["sessions_failed"]
    return chosen


def _accepted(subject: Subject, before: datetime, without: str) -> Select[Any]:
    same = and_(*(baselines.c[name] == runs.c[name] for name in KEY))
    query = select(runs, baselines.c.accepted_at, baselines.c.accepted_by).join(baselines, same)
    query = query.where(*_of(runs, subject), runs.c.measured_at < before, runs.c.run_key != without)
    return query.order_by(runs.c.measured_at.desc(), runs.c.run_key).limit(_MOST_RUNS)


def accepted_digests(store: Store, subject: Subject, *, without: str) -> set[str]:
    """Return the digests of all packages of a subject that were ever accepted.

    :param store: the operations database
    :param subject: of which
    :param without: run key of the run that asks
    """
    query = select(baselines.c.digest).where(*_of(baselines, subject), baselines.c.run_key != without)
    with store.read() as connection:
        return set(connection.execute(query.distinct()).scalars())


def newest_accepted(store: Store, subject: Subject, *, without: str) -> tuple[str, str] | None:
    """Return version and digest of the package that was accepted last, or None where none was.

    :param store: the operations database
    :param subject: of which
    :param without: run key of the run that asks
    """
    query = select(baselines.c.version, baselines.c.digest)
    query = query.where(*_of(baselines, subject), baselines.c.run_key != without)
    with store.read() as connection:
        row = connection.execute(query.order_by(baselines.c.accepted_at.desc(), baselines.c.run_key)).first()
    return None if row is None else (row.version, row.digest)


def accept(store: Store, chosen: Sequence[RunId], *, accepted_by: str) -> int:
    """Put complete runs into the baseline; those that are in it stay as they are.

    :param store: the operations database
    :param chosen: which
    :param accepted_by: ``green``, or who approved them
    :returns: how many of them are in the baseline now
    """
    rows = []
    with store.write() as connection:
        moment = now(connection)
        for run in chosen:
            query = select(runs.c.version, runs.c.digest, runs.c.epoch)
            query = query.where(run.where(runs), runs.c.status == COMPLETE)
            found = connection.execute(query).mappings().first()
            if found is not None:
                rows.append(
                    {**run.values(), "accepted_at": moment, "accepted_by": accepted_by, **dict(found)}
                )
        if rows:
            upsert(connection, baselines, rows, key=KEY, keep=("accepted_at", "accepted_by"))
    return len(rows)


def history(store: Store, subject: Subject, *, limit: int = 400) -> list[HistoryPoint]:
    """Return the newest runs of a subject that have a result, oldest first.

    :param store: the operations database
    :param subject: of which
    :param limit: how many at most
    """
    same = and_(*(baselines.c[name] == runs.c[name] for name in KEY))
    query = select(runs, baselines.c.accepted_by).outerjoin(baselines, same)
    query = query.where(*_of(runs, subject), runs.c.latency_p50_ms.is_not(None))
    query = query.order_by(runs.c.measured_at.desc(), runs.c.run_key).limit(limit)
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return []
        values = select(sessions.c.run_key, sessions.c.p50_ms)
        values = values.where(*_of(sessions, subject), sessions.c.p50_ms.is_not(None))
        values = values.where(sessions.c.measured_at >= rows[-1]["measured_at"])
        found: dict[str, list[float]] = {}
        for run_key, value in connection.execute(values.order_by(sessions.c.session_index)):
            found.setdefault(run_key, []).append(value)
    return [_point(row, found.get(row["run_key"], [])) for row in reversed(rows)]


def _point(row: dict[str, Any], latency: Sequence[float]) -> HistoryPoint:
    return HistoryPoint(
        run=RunId.of_row(row),
        measured_at=row["measured_at"],
        version=row["version"],
        digest=row["digest"],
        epoch=row["epoch"],
        hardware_class=row["hardware_class"] or "",
        accepted_by=row["accepted_by"],
        latency_p50_ms=tuple(latency),
    )


def _of(table: Any, subject: Subject) -> list[Any]:
    return [table.c[name] == getattr(subject, name) for name in ("device", "model", "compute_unit")]
