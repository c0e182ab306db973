"""The catalogue of backups, as pages, metrics and the deadline ask for it: rows of the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, case, exists, func, select

from fastvlm_ops.core.backup.catalogue_refresh import CatalogueError, rebuild_catalogue, refresh_catalogue
from fastvlm_ops.core.backup.catalogue_rows import (
    CatalogueMember,
    CatalogueSet,
    CatalogueSummary,
    Check,
    ComponentState,
    Verification,
)
from fastvlm_ops.core.backup.nearest import Candidate, nearest_intact
from fastvlm_ops.core.backup.progress import format_bytes
from fastvlm_ops.core.backup.prunings import newest_by_status
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables import backup as tables

__all__ = [
    "Catalogue",
    "CatalogueError",
    "CatalogueMember",
    "CatalogueSet",
    "CatalogueSummary",
    "Check",
    "ComponentState",
    "Verification",
    "rebuild_catalogue",
    "refresh_catalogue",
]

_ASKED_AT_ONCE = 500

Checks = dict[str, dict[str, Check]]


class Catalogue:
    """Answers from the rows alone: what :func:`refresh_catalogue` saw last, at :meth:`refreshed_at`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def store(self) -> Store:
        """The database that it is in."""
        return self._store

    def refreshed_at(self) -> datetime | None:
        """When the catalogue was last brought up to date; None: never, so that nothing is known."""
        with self._store.read() as connection:
            return _refreshed_at(connection)

    def repository_id(self) -> str | None:
        """Of the repository the catalogue is of; None: never filled."""
        with self._store.read() as connection:
            return connection.scalar(select(tables.catalogue.c.repository_id))

    def sets(
        self,
        *,
        kind: str | None = None,
        component: str | None = None,
        limit: int = 50,
        before_sequence: int | None = None,
    ) -> list[CatalogueSet]:
        """Published sets, newest first.

        :param kind: only of this kind.
        :param component: only those that have it.
        :param before_sequence: only those published before the set with this sequence: the next page.
        """
        columns = tables.sets.c
        query = select(tables.sets).order_by(columns.sequence.desc()).limit(limit)
        if kind is not None:
            query = query.where(columns.kind == kind)
        if component is not None:
            of_set = tables.members.c.set_id == columns.set_id
            query = query.where(exists().where(of_set, tables.members.c.component == component))
        if before_sequence is not None:
            query = query.where(columns.sequence < before_sequence)
        return self._sets(query)

    def set(self, set_id: str) -> CatalogueSet | None:
        """One set; None when there is none of that id."""
        found = self._sets(select(tables.sets).where(tables.sets.c.set_id == set_id))
        return found[0] if found else None

    def nearest_intact(self, set_id: str, components: Collection[str]) -> CatalogueSet | None:
        """The set published nearest to a damaged one that has some components intact.

        One whose snapshots of them were verified comes before any that is only not known to be damaged,
        which its members tell.

        :param components: that it has to have
        """
        columns = tables.checks.c
        with self._store.read() as connection:
            sets = _candidates(connection)
            rows = connection.execute(
                select(columns.snapshot_id, columns.kind).where(columns.kind.in_(("verified", "damaged")))
            ).all()
        verified = {row.snapshot_id for row in rows if row.kind == "verified"}
        damaged = {row.snapshot_id for row in rows if row.kind == "damaged"}
        one = sets.get(set_id)
        if one is None:
            return None
        every = list(sets.values())
        found = nearest_intact(every, one, components, (verified - damaged).__contains__)
        found = found or nearest_intact(every, one, components, lambda snapshot: snapshot not in damaged)
        return None if found is None else self.set(found)

    def set_count(self) -> int | None:
        """How many sets are published; None when the catalogue was never filled."""
        with self._store.read() as connection:
            if _refreshed_at(connection) is None:
                return None
            return connection.scalar(select(func.count()).select_from(tables.sets))

    def history(self, component: str, limit: int = 50) -> list[CatalogueMember]:
        """Published snapshots of a component, newest first."""
        columns = tables.snapshots.c
        published = exists().where(tables.members.c.snapshot_id == columns.snapshot_id)
        query = (
            select(tables.snapshots)
            .where(columns.component == component, published)
            .order_by(columns.sequence.desc())
            .limit(limit)
        )
        with self._store.read() as connection:
            rows = connection.execute(query).all()
            checks = _checks(connection, [row.snapshot_id for row in rows])
        return [_member(row, checks) for row in rows]

    def checks(self, of: str | Collection[str]) -> list[Check]:
        """The last verification, damage, restore and restore test of each snapshot, newest first.

        :param of: id of a set, or ids of snapshots
        """
        with self._store.read() as connection:
            if isinstance(of, str):
                columns = tables.members.c
                of = connection.scalars(select(columns.snapshot_id).where(columns.set_id == of)).all()
            kinds = _checks(connection, list(of))
        every = [check for found in kinds.values() for check in found.values()]
        return sorted(every, key=lambda check: (check.at, check.snapshot_id), reverse=True)

    def verifications(self, limit: int = 100) -> list[Verification]:
        """The newest verifications, newest first; the catalogue holds 100.

        :param limit: how many at most
        """
        columns = tables.verifications.c
        query = select(tables.verifications).order_by(columns.sequence.desc()).limit(limit)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Verification(**{**row, "named_objects": tuple(row["named_objects"])}) for row in rows]

    def prunings(self) -> dict[str, datetime]:
        """When the newest plan of pruning of each status was made."""
        return newest_by_status(self._store)

    def components(
        self, objectives: Mapping[str, timedelta | None], *, now: datetime | None = None
    ) -> list[ComponentState]:
        """The newest published snapshot of each component, those of ``objectives`` first.

        A snapshot that is known to be damaged is passed over: it protects nothing. Its age counts from when
        it was finished, or published where that is earlier, so that a clock that is ahead hides nothing.

        :param objectives: how old the newest may be, by component; None for no objective.
        :param now: the time that ages are about, instead of the present
        """
        now = now or datetime.now(UTC)
        with self._store.read() as connection:
            is_filled = _refreshed_at(connection) is not None
            newest = _newest(connection)
            checks = _checks(connection, [row.snapshot_id for row in newest.values()])
            checked = _checked(connection)
            names = connection.scalars(select(tables.members.c.component).distinct()).all()
        states = []
        for name in dict.fromkeys([*objectives, *sorted(names)]):
            row, objective = newest.get(name), objectives.get(name)
            backed_up_at = None if row is None else min(row.finished_at, row.published_at)
            age = None if backed_up_at is None else now - backed_up_at
            overdue: bool | None = None
            if is_filled:
                overdue = objective is not None and (age is None or age > objective)
            found = checked.get(name)
            state = ComponentState(
                component=name,
                newest=None if row is None else _member(row, checks),
                set_id=None if row is None else row.set_id,
                backed_up_at=backed_up_at,
                age=age,
                objective=objective,
                overdue=overdue,
                last_verified_at=None if found is None else found.verified_at,
                last_restored_at=None if found is None else found.restored_at,
                damaged=None if not is_filled else 0 if found is None else found.damaged,
                last_restore_tested_at=None if found is None else found.restore_tested_at,
                restore_failed=None if not is_filled else 0 if found is None else found.restore_failed,
            )
            states.append(state)
        return states

    def _sets(self, query: Select[Any]) -> list[CatalogueSet]:
        with self._store.read() as connection:
            sets = connection.execute(query).all()
            rows = _member_rows(connection, [row.set_id for row in sets])
            checks = _checks(connection, [row.snapshot_id for row in rows])
        members = defaultdict(list)
        for row in rows:
            members[row.set_id].append(_member(row, checks))
        return [
            CatalogueSet(
                row.set_id,
                row.kind,
                row.timestamp,
                row.published_at,
                row.sequence,
                row.run_key,
                tuple(members[row.set_id]),
            )
            for row in sets
        ]


def _refreshed_at(connection: Connection) -> datetime | None:
    return connection.scalar(select(tables.catalogue.c.refreshed_at))


def _candidates(connection: Connection) -> dict[str, Candidate]:
    members, sets = tables.members.c, tables.sets.c
    query = select(sets.set_id, sets.sequence, members.component, members.snapshot_id).join_from(
        tables.sets, tables.members
    )
    found: dict[str, Candidate] = {}
    snapshots: dict[str, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(query):
        snapshots[row.set_id][row.component] = row.snapshot_id
        found.setdefault(row.set_id, Candidate(row.set_id, row.sequence, snapshots[row.set_id]))
    return found


def _newest(connection: Connection) -> dict[str, Row[Any]]:
    """Of each component the newest published snapshot that is not known to be damaged."""
    members, sets, snapshots = tables.members.c, tables.sets.c, tables.snapshots.c
    damaged = exists().where(
        tables.checks.c.snapshot_id == members.snapshot_id, tables.checks.c.kind == "damaged"
    )
    newest = (
        select(members.component, func.max(sets.sequence).label("sequence"))
        .join_from(tables.members, tables.sets)
        .where(~damaged)
        .group_by(members.component)
        .subquery()
    )
    query = (
        select(tables.snapshots, sets.set_id, sets.published_at)
        .join_from(tables.members, tables.sets)
        .join(tables.snapshots, snapshots.snapshot_id == members.snapshot_id)
        .join(newest, (newest.c.component == members.component) & (newest.c.sequence == sets.sequence))
    )
    return {row.component: row for row in connection.execute(query)}


def _checked(connection: Connection) -> dict[str, Row[Any]]:
    """Of each component when any published snapshot of it was last found intact, restored and tested."""
    snapshots = tables.snapshots.c
    kinds = ("verified", "damaged", "restored", "restore_tested", "restore_failed")
    aliases = [tables.checks.alias(kind) for kind in kinds]
    verified, damaged, restored, tested, failed = aliases
    published = exists().where(tables.members.c.snapshot_id == snapshots.snapshot_id)
    query = select(
        snapshots.component,
        func.max(case((damaged.c.at.is_(None), verified.c.at))).label("verified_at"),
        func.max(restored.c.at).label("restored_at"),
        func.count(damaged.c.at).label("damaged"),
        func.max(tested.c.at).label("restore_tested_at"),
        func.count(failed.c.at).label("restore_failed"),
    ).select_from(tables.snapshots)
    for alias in aliases:
        is_its = (alias.c.snapshot_id == snapshots.snapshot_id) & (alias.c.kind == alias.name)
        query = query.outerjoin(alias, is_its)
    return {
        row.component: row for row in connection.execute(query.where(published).group_by(snapshots.component))
    }


def _member_rows(connection: Connection, set_ids: Sequence[str]) -> list[Row[Any]]:
    found: list[Row[Any]] = []
    members = tables.members.c
    for start in range(0, len(set_ids), _ASKED_AT_ONCE):
        query = (
            select(tables.snapshots, members.set_id)
            .join_from(tables.members, tables.snapshots)
            .where(members.set_id.in_(set_ids[start : start + _ASKED_AT_ONCE]))
            .order_by(members.set_id, members.position)
        )
        found += connection.execute(query).all()
    return found


def _checks(connection: Connection, snapshot_ids: Sequence[str]) -> Checks:
    """By snapshot and kind: verified, damaged, restored, restore_tested, restore_failed."""
    found: Checks = defaultdict(dict)
    columns = tables.checks.c
    for start in range(0, len(snapshot_ids), _ASKED_AT_ONCE):
        query = (
            select(tables.checks, tables.snapshots.c.component)
            .join_from(tables.checks, tables.snapshots)
            .where(columns.snapshot_id.in_(snapshot_ids[start : start + _ASKED_AT_ONCE]))
        )
        for row in connection.execute(query):
            found[row.snapshot_id][row.kind] = _check(row)
    return found


_WHAT: dict[str, Literal["verified", "restored", "restore-tested"]] = {
    "restored": "restored",
    "restore_tested": "restore-tested",
    "restore_failed": "restore-tested",
}
_IS_BAD = frozenset({"damaged", "restore_failed"})


def _check(row: Row[Any]) -> Check:
    what: Literal["verified", "restored", "restore-tested"] = _WHAT.get(row.kind, "verified")
    if what == "verified":
        share = "" if row.share is None else f" {row.share + 1} of {row.shares}"
        text = f"{row.level_or_where}{share}: {'intact' if row.kind == 'verified' else 'damaged'}"
    else:
        files = f"{row.files} file{'' if row.files == 1 else 's'}"
        text = f"{files}, {format_bytes(row.size_bytes)}, in {row.duration_seconds:.0f} s"
    return Check(
        row.at,
        what,
        row.level_or_where,
        row.kind not in _IS_BAD,
        text,
        row.component,
        row.snapshot_id,
        row.run_key,
    )


def _member(row: Row[Any], checks: Checks) -> CatalogueMember:
    known = checks.get(row.snapshot_id, {})
    duration = None if row.started_at is None else (row.finished_at - row.started_at).total_seconds()
    return CatalogueMember(
        component=row.component,
        snapshot_id=row.snapshot_id,
        kind=row.kind,
        started_at=row.started_at,
        finished_at=row.finished_at,
        duration_seconds=duration,
        files=row.files,
        size_bytes=row.size_bytes,
        new_bytes=row.new_bytes,
        warnings=row.warnings,
        last_verified=known.get("damaged") or known.get("verified"),
        last_restored=known.get("restored"),
        last_restore_tested=known.get("restore_failed") or known.get("restore_tested"),
    )
