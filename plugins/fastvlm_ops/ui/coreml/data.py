"""What the list of Core ML benchmarks shows: rows of the operations database, and of coreml.yaml."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.devices.interface import HardwareClass
from fastvlm_ops.core.coreml.verdicts import Verdict
from fastvlm_ops.ui.coreml.standing import Judged, Standing, Subject, rank, tone, worst_first

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import CoreMLDefinitions
    from fastvlm_ops.core.store import Store

RECENT = timedelta(days=30)
_NO_RESULT = (Verdict.FAILED, Verdict.MISSING)
KEYS = ("model", "device", "compute_unit")


@dataclass(frozen=True)
class Overview:
    """The list of subjects.

    :param standings: all of them, most urgent first
    :param newest_at: of any run; None where there is none
    """

    standings: list[Standing]
    newest_at: datetime | None

    def count(self, *verdicts: str) -> int:
        """How many subjects have one of these verdicts."""
        return sum(one.verdict in verdicts for one in self.standings)

    def choices(self, part: str) -> list[str]:
        """What can be chosen of a part of the subjects, or of their verdicts.

        :param part: ``model``, ``device``, ``compute_unit`` or ``verdict``
        """
        if part == "verdict":
            return sorted({one.verdict for one in self.standings}, key=rank)
        return sorted({getattr(one.subject, part) for one in self.standings})

    def chosen(self, wanted: Mapping[str, str]) -> list[Standing]:
        """The subjects that were asked for.

        :param wanted: values by part; empty for any. A verdict may be a group of them: a colour, or ``none``
            for those without a result
        """

        def fits(one: Standing) -> bool:
            verdict = wanted.get("verdict", "")
            parts = (not wanted.get(part) or getattr(one.subject, part) == wanted[part] for part in KEYS)
            named = {one.verdict, tone(one.verdict), "none" if one.verdict in _NO_RESULT else ""}
            return all(parts) and (not verdict or verdict in named)

        return [one for one in self.standings if fits(one)]


@contextmanager
def opened() -> Iterator[Store]:
    """Open the operations database for one page.

    :raises Exception: it cannot be opened; of many kinds, by what is wrong
    """
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    with OperationsDatabaseHook().open_store() as store:
        yield store


def declared_subjects(definitions: CoreMLDefinitions) -> dict[Subject, str | None]:
    """Return what is to be measured, and the class of its device where its backend tells.

    :param definitions: ``coreml.yaml``
    """
    reference = str(HardwareClass.LINUX_REFERENCE)
    return {
        Subject(model.name, device.name, unit): reference if device.backend == reference else None
        for model in definitions.models
        for device in definitions.devices
        for unit in definitions.units_of(model, device)
    }


def read_overview(store: Store, declared: Mapping[Subject, str | None] | None, run_key: str = "") -> Overview:
    """Read where all subjects stand.

    :param store: the operations database
    :param declared: what is to be measured; None where that cannot be read
    :param run_key: only what this run has measured; empty for the newest run of each
    """
    from sqlalchemy import func, select

    from fastvlm_ops.core.store.tables.coreml import runs

    with store.read() as connection:
        newest_at = connection.execute(select(func.max(runs.c.measured_at))).scalar()
        rows = _newest_rows(connection, run_key)
        found = {subject_of(row): row for row in rows}
        judged = _judged(connection, rows)
        classes = {subject: _class_of(connection, subject, row) for subject, row in found.items()}
        recent = _recent(connection, newest_at, classes)
    wanted = set(found) if run_key else {*found, *(declared or {})}
    by_device = {subject.device: found_class for subject, found_class in classes.items() if found_class}
    standings = [
        Standing(
            subject,
            run=found.get(subject),
            judged=judged.get(subject, ()),
            hardware_class=by_device.get(subject.device) or (declared or {}).get(subject),
            declared=None if declared is None else subject in declared,
            recent=recent.get(subject, ()),
        )
        for subject in wanted
    ]
    return Overview(sorted(standings, key=lambda one: one.urgency), newest_at)


def _newest_rows(connection: Any, run_key: str) -> list[Mapping[str, Any]]:
    from sqlalchemy import and_, func, select

    from fastvlm_ops.core.store.tables.coreml import runs

    if run_key:
        rows = connection.execute(select(runs).where(runs.c.run_key == run_key)).mappings()
        return [dict(row) for row in rows]
    keys = [runs.c[name] for name in KEYS]
    newest = select(*keys, func.max(runs.c.measured_at).label("measured_at")).group_by(*keys).subquery()
    same = and_(*(runs.c[name] == newest.c[name] for name in (*KEYS, "measured_at")))
    rows = connection.execute(select(runs).join(newest, same).order_by(runs.c.run_key)).mappings()
    # Of two runs at one moment the last stands; there is one a subject either way.
    return list({subject_of(row): dict(row) for row in rows}.values())


def _judged(connection: Any, rows: Sequence[Mapping[str, Any]]) -> dict[Subject, list[Judged]]:
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import verdicts

    wanted = {(row["run_key"], subject_of(row)) for row in rows}
    keys = sorted({key for key, _ in wanted})
    by_subject: dict[Subject, list[Mapping[str, Any]]] = defaultdict(list)
    for row in connection.execute(select(verdicts).where(verdicts.c.run_key.in_(keys))).mappings():
        if (row["run_key"], subject_of(row)) in wanted:
            by_subject[subject_of(row)].append(dict(row))
    return {subject: worst_first(some) for subject, some in by_subject.items()}


def _recent(
    connection: Any, newest_at: datetime | None, classes: Mapping[Subject, str | None]
) -> dict[Subject, list[tuple[datetime, float | None]]]:
    """Latencies of the last runs on hardware of the class that each device is now."""
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import runs

    by_subject: dict[Subject, list[tuple[datetime, float | None]]] = defaultdict(list)
    if newest_at is None:
        return by_subject
    columns = [runs.c[name] for name in (*KEYS, "measured_at", "hardware_class", "latency_p50_ms")]
    query = select(*columns).where(runs.c.measured_at > newest_at - RECENT).order_by(runs.c.measured_at)
    for row in connection.execute(query).mappings():
        subject = subject_of(row)
        comparable = row["hardware_class"] == classes.get(subject)
        by_subject[subject].append((row["measured_at"], row["latency_p50_ms"] if comparable else None))
    return by_subject


def _class_of(connection: Any, subject: Subject, row: Mapping[str, Any]) -> str | None:
    """The class of a subject's device; where its newest run did not find it, what it was before."""
    if row["hardware_class"] is not None:
        return str(row["hardware_class"])
    return newest_class(connection, subject)


def newest_class(connection: Any, subject: Subject) -> str | None:
    """Return what a subject's device was when it was last found; None where it never was.

    :param connection: to the operations database
    :param subject: the subject
    """
    from sqlalchemy import select

    from fastvlm_ops.core.store.tables.coreml import runs

    known = runs.c.hardware_class.is_not(None)
    query = select(runs.c.hardware_class).where(*about(runs, subject), known)
    found = connection.execute(query.order_by(runs.c.measured_at.desc()).limit(1)).scalar()
    return None if found is None else str(found)


def subject_of(row: Mapping[str, Any]) -> Subject:
    """Return what a row of any of the tables is about."""
    return Subject(*(str(row[name]) for name in KEYS))


def about(table: Any, subject: Subject) -> list[Any]:
    """Return the conditions of a table's rows of a subject."""
    return [table.c[name] == value for name, value in zip(KEYS, subject, strict=True)]
