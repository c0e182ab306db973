"""Brings the rows of the catalogue to what the commit log says, and to nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from fastvlm_ops.core.backup.catalogue_rows import CatalogueSummary
from fastvlm_ops.core.backup.commit_log import LogState, entry_name, seq_of
from fastvlm_ops.core.backup.errors import BackupError, CorruptionError
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.tables import backup as tables

_READERS = 8
_ATTEMPTS = 5
_DELETED_AT_ONCE = 500


class CatalogueError(BackupError):
    """The catalogue cannot be brought up to date."""


def refresh_catalogue(store: Store, repository: Repository) -> CatalogueSummary:
    """Bring the catalogue up to date. Reads the manifests of new snapshots only. Idempotent.

    A catalogue of another repository is replaced. Two at once are safe: who comes second looks again.

    :raises CatalogueError: the log ends before what the catalogue has seen of it.
    :raises CorruptionError: the log is damaged; the catalogue stays as it was.
    :raises StorageError: the endpoint did not answer, or refused; the catalogue stays as it was.
    """
    return _bring(store, repository, anew=False)


def rebuild_catalogue(store: Store, repository: Repository) -> CatalogueSummary:
    """Make the catalogue anew from the bucket alone, in one transaction. Idempotent.

    :raises CorruptionError: the log is damaged; the catalogue stays as it was.
    :raises StorageError: the endpoint did not answer, or refused; the catalogue stays as it was.
    """
    return _bring(store, repository, anew=True)


@dataclass(frozen=True)
class _Known:
    """What the catalogue holds. ``unread`` are snapshots whose manifest could not be read."""

    repository_id: str | None
    sequence: int
    digest: str | None
    snapshots: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()


@dataclass
class _Read:
    """What was read from the bucket for the rows that are new."""

    started: dict[str, datetime | None] = field(default_factory=dict)
    published: dict[int, datetime] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _bring(store: Store, repository: Repository, *, anew: bool) -> CatalogueSummary:
    read = _Read()
    for _ in range(_ATTEMPTS):
        with store.read() as connection:
            known = _known(connection)
        state = repository.refresh()  # after the database: it can only know entries that are there by now
        is_ours = known.repository_id == repository.repository_id
        if is_ours and not anew and not _leads_to(known, state):
            raise CatalogueError(
                f"the catalogue knows entry {known.sequence} of the log of {repository.storage}, which ends "
                f"at {state.seq} or is another: entries are missing. Verify the repository (DAG "
                "backup_maintenance); the catalogue is right again after a rebuild"
            )
        base = known if is_ours and not anew else _Known(known.repository_id, 0, None)
        _read_new(repository, state, base, read)
        with store.write() as connection:
            now_known = _known(connection, lock=True)
            if now_known == known:
                return _apply(connection, repository, state, known, base, read)
        # Another one came first.
    raise CatalogueError(f"the catalogue was changed by others {_ATTEMPTS} times in a row; try again")


def _leads_to(known: _Known, state: LogState) -> bool:
    """Whether the log goes on from where the catalogue stands."""
    if known.sequence == state.seq:
        return known.digest == state.digest
    return known.sequence < state.seq


def _known(connection: Connection, *, lock: bool = False) -> _Known:
    row = connection.execute(
        select(tables.catalogue).with_for_update() if lock else select(tables.catalogue)
    ).one_or_none()
    if row is None:
        raise CatalogueError("table backup_catalogue has lost its row; put it back: id 1, sequence 0")
    columns = tables.snapshots.c
    snapshots = connection.execute(select(columns.snapshot_id, columns.started_at)).all()
    return _Known(
        row.repository_id,
        row.sequence,
        row.digest,
        frozenset(snapshot.snapshot_id for snapshot in snapshots),
        frozenset(snapshot.snapshot_id for snapshot in snapshots if snapshot.started_at is None),
        frozenset(connection.scalars(select(tables.sets.c.set_id))),
    )


# -- the bucket ----------------------------------------------------------------------------------------


def _read_new(repository: Repository, state: LogState, base: _Known, read: _Read) -> None:
    wanted = [
        record
        for snapshot_id, record in state.snapshots.items()
        if (snapshot_id not in base.snapshots or snapshot_id in base.unread)
        and read.started.get(snapshot_id) is None
    ]

    def started(record: dict[str, Any]) -> datetime | str:
        try:
            about = record if "started" in record else read_manifest(repository, record)
            return _utc(about["started"])
        except (CorruptionError, ValueError, KeyError, TypeError) as error:
            return f"duration of {record['snapshot_id']} is unknown: {error}"

    read.warnings.clear()
    with ThreadPoolExecutor(_READERS) as pool:
        for record, found in zip(wanted, pool.map(started, wanted), strict=True):
            read.started[record["snapshot_id"]] = found if isinstance(found, datetime) else None
            if isinstance(found, str):
                read.warnings.append(found)
    new = {body["seq"] for set_id, body in state.sets.items() if set_id not in base.sets}
    _read_times(repository, new - read.published.keys(), read)


def _read_times(repository: Repository, sequences: set[int], read: _Read) -> None:
    """When S3 had stored entries of the log, by its clock."""
    if not sequences:
        return
    for info in repository.storage.list("log/", start_after=entry_name(min(sequences) - 1)):
        if seq_of(info.name) in sequences:
            read.published[seq_of(info.name)] = info.last_modified.astimezone(UTC)


def _utc(text: str) -> datetime:
    """:raises ValueError: it is no time in ISO 8601."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


# -- the database --------------------------------------------------------------------------------------


def _apply(
    connection: Connection,
    repository: Repository,
    state: LogState,
    known: _Known,
    base: _Known,
    read: _Read,
) -> CatalogueSummary:
    """Write what differs; the row of the catalogue is locked."""
    gone_sets = known.sets - (base.sets & state.sets.keys())
    gone_snapshots = known.snapshots - (base.snapshots & state.snapshots.keys())
    _remove(connection, tables.members, "set_id", gone_sets)
    _remove(connection, tables.sets, "set_id", gone_sets)
    _remove(connection, tables.checks, "snapshot_id", gone_snapshots)
    _remove(connection, tables.snapshots, "snapshot_id", gone_snapshots)
    new_snapshots = [body for key, body in state.snapshots.items() if key not in base.snapshots]
    new_sets = [body for key, body in state.sets.items() if key not in base.sets]
    _add(connection, tables.snapshots, [_snapshot_row(body, read) for body in new_snapshots])
    _add(connection, tables.sets, [_set_row(body, read) for body in new_sets])
    _add(connection, tables.members, [row for body in new_sets for row in _member_rows(body)])
    for snapshot_id in base.unread & state.snapshots.keys():
        connection.execute(
            update(tables.snapshots)
            .where(tables.snapshots.c.snapshot_id == snapshot_id)
            .values(started_at=read.started[snapshot_id])
        )
    _renew_checks(connection, state)
    _renew_verifications(connection, state)
    place = {"repository_id": repository.repository_id, "sequence": state.seq, "digest": state.digest}
    connection.execute(update(tables.catalogue).values(**place, refreshed_at=datetime.now(UTC)))
    was_other = known.repository_id not in (None, repository.repository_id)
    return CatalogueSummary(
        repository_id=repository.repository_id,
        sequence=state.seq,
        sets=len(state.sets),
        snapshots=len(state.snapshots),
        new_sets=len(state.sets.keys() - known.sets),
        new_snapshots=len(state.snapshots.keys() - known.snapshots),
        removed_sets=len(known.sets - state.sets.keys()),
        removed_snapshots=len(known.snapshots - state.snapshots.keys()),
        replaced_repository_id=known.repository_id if was_other else None,
        warnings=tuple(read.warnings),
    )


def _remove(connection: Connection, table: Table, column: str, values: Iterable[str]) -> None:
    every = sorted(values)
    for start in range(0, len(every), _DELETED_AT_ONCE):
        connection.execute(delete(table).where(table.c[column].in_(every[start : start + _DELETED_AT_ONCE])))


def _add(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), list(rows))


def _snapshot_row(body: dict[str, Any], read: _Read) -> dict[str, Any]:
    warnings = body.get("warnings")
    return {
        "snapshot_id": body["snapshot_id"],
        "component": body["component"],
        "kind": body["kind"],
        "run_key": body["run_key"],
        "sequence": body["seq"],
        "started_at": read.started[body["snapshot_id"]],
        "finished_at": _utc(body["finished"]),
        "files": body["files"],
        "size_bytes": body["size_bytes"],
        "new_bytes": body["new_bytes"],
        "warnings": None if warnings is None else len(warnings),
    }


def _set_row(body: dict[str, Any], read: _Read) -> dict[str, Any]:
    return {
        "set_id": body["set_id"],
        "kind": body["kind"],
        "timestamp": _utc(body["timestamp"]),
        "published_at": read.published[body["seq"]],
        "sequence": body["seq"],
        "run_key": body["run_key"],
    }


def _member_rows(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"set_id": body["set_id"], "component": component, "position": position, "snapshot_id": snapshot_id}
        for position, (component, snapshot_id) in enumerate(body["snapshots"].items())
    ]


def _renew_checks(connection: Connection, state: LogState) -> None:
    """Replace those that the log has another entry for by now."""
    columns = tables.checks.c
    found = connection.execute(select(columns.snapshot_id, columns.kind, columns.sequence)).all()
    there = {(row.snapshot_id, row.kind): row.sequence for row in found}
    wanted = {
        (snapshot_id, kind): _check_row(snapshot_id, kind, about)
        for snapshot_id, kinds in state.checks.items()
        for kind, about in kinds.items()
    }
    stale = [key for key, sequence in there.items() if wanted.get(key, {}).get("sequence") != sequence]
    for snapshot_id, kind in stale:
        connection.execute(
            delete(tables.checks).where(columns.snapshot_id == snapshot_id, columns.kind == kind)
        )
    fresh = [row for key, row in wanted.items() if there.get(key) != row["sequence"]]
    _add(connection, tables.checks, fresh)


def _renew_verifications(connection: Connection, state: LogState) -> None:
    """Keep those that the log keeps."""
    sequences = tables.verifications.c.sequence
    there = set(connection.scalars(select(sequences)))
    wanted = {about["seq"]: about for about in state.verifications}
    gone = sorted(there - wanted.keys())
    for start in range(0, len(gone), _DELETED_AT_ONCE):
        connection.execute(
            delete(tables.verifications).where(sequences.in_(gone[start : start + _DELETED_AT_ONCE]))
        )
    fresh = [about for sequence, about in wanted.items() if sequence not in there]
    _add(connection, tables.verifications, [_verification_row(about) for about in fresh])


def _verification_row(about: dict[str, Any]) -> dict[str, Any]:
    share, result = about["share"] or (None, None), about["result"] or {}
    return {
        "sequence": about["seq"],
        "at": _utc(about["time"]),
        "run_key": about["run_key"],
        "level": about["level"],
        "share": share[0],
        "shares": share[1],
        "ok": about["ok"],
        "snapshots": about["snapshots"],
        "damaged_snapshots": about["damaged"],
        "objects": result.get("objects"),
        "size_bytes": result.get("bytes"),
        "read_bytes": result.get("read"),
        "duration_seconds": result.get("duration"),
        "damaged_objects": result.get("damaged"),
        "named_objects": list(result.get("named", ())),
    }


def _check_row(snapshot_id: str, kind: str, about: dict[str, Any]) -> dict[str, Any]:
    share = about.get("share") or (None, None)
    return {
        "snapshot_id": snapshot_id,
        "kind": kind,
        "sequence": about["seq"],
        "at": _utc(about["time"]),
        "run_key": about["run_key"],
        "level_or_where": about["where" if kind == "restored" else "level"],
        "share": share[0],
        "shares": share[1],
        "files": about.get("files"),
        "size_bytes": about.get("bytes"),
        "duration_seconds": about.get("duration"),
    }
