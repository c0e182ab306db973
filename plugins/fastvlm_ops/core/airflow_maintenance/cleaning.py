"""``airflow db clean``: what it would delete, doing it, and whether it did."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run_airflow

if TYPE_CHECKING:
    from sqlalchemy import URL

#: Fewer days would take runs that people still ask about, and what backfills and retries go by.
SHORTEST_KEEP_DAYS = 7

_COUNTED = re.compile(r"^Checking table (\S+)\nFound (\d+) rows meeting deletion criteria\.$", re.M)
_FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)
# Some rows may be deleted only once others are gone: the callback of a deadline that went with its run.
_PASSES = 2
_BATCH_ROWS = 10_000  # a transaction each, so that Airflow's own writes need not wait long
# Only cleaning and a person's deletion take rows out of these; from others Airflow itself takes some too.
_HISTORY = ("dag_run", "log")


class CleaningError(Exception):
    """Airflow's database was not cleaned, or is not what was asked for afterwards."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class RowCounts:
    """Rows of each table that cleaning may take at all, by table.

    :param old: those older than the cut-off, which it would take
    :param young: the others
    """

    old: dict[str, int]
    young: dict[str, int]


def count_rows(
    database: URL, cutoff: datetime, tables: Sequence[str], *, timeout_seconds: float
) -> RowCounts:
    """Count by dry runs of ``airflow db clean``.

    :param database: Airflow's own
    :param cutoff: what is older is old
    :param tables: which; all that Airflow can clean where empty. Tables that depend on one of them are
        cleaned with it
    :param timeout_seconds: of each of two dry runs
    :raises CleaningError: it failed, or there is no such table
    """
    old = _dry_run(database, cutoff, tables, timeout_seconds)
    every = _dry_run(database, _FAR_FUTURE, tables, timeout_seconds)
    if unknown := sorted(set(tables) - set(old)):
        raise CleaningError(
            f"tables: {', '.join(unknown)} cannot be cleaned; leave tables empty for all, or choose of"
            f" {', '.join(sorted(_dry_run(database, cutoff, (), timeout_seconds)))}"
        )
    return RowCounts(old, {table: max(0, every.get(table, 0) - count) for table, count in old.items()})


def clean(database: URL, cutoff: datetime, tables: Sequence[str], *, timeout_seconds: float) -> None:
    """Delete what is older than the cut-off, and archive nothing. Again, it finds only what is left.

    :param database: Airflow's own
    :param cutoff: what is older is deleted
    :param tables: which; all where empty
    :param timeout_seconds: after which it is killed; what it has deleted by then stays deleted
    :raises CleaningError: it failed, for a table or as a whole, or did not end in time
    """
    options = ["--yes", "--skip-archive", f"--batch-size={_BATCH_ROWS}"]
    deadline = time.monotonic() + timeout_seconds
    for _ in range(_PASSES):
        _db_clean(database, cutoff, tables, options, max(0.0, deadline - time.monotonic()))


def shortfalls(before: RowCounts, after: RowCounts) -> list[str]:
    """Return what cleaning left undone or took too much of, one sentence each; empty where all is well.

    :param before: counts before it
    :param after: counts after it, with the same cut-off
    """
    found = [f"{table}: {count} old rows are left" for table, count in after.old.items() if count]
    for table in sorted(set(before.old) - set(after.old)):
        found.append(f"{table}: could not be counted any more")
    for table in _HISTORY:
        was, is_now = before.young.get(table, 0), after.young.get(table, 0)
        if is_now < was:
            found.append(f"{table}: {was - is_now} rows younger than the cut-off are gone")
    return found


def _dry_run(
    database: URL, cutoff: datetime, tables: Sequence[str], timeout_seconds: float
) -> dict[str, int]:
    known = list(tables)
    try:
        output = _db_clean(database, cutoff, known, ["--dry-run"], timeout_seconds)
    except CleaningError as error:
        if "No tables selected" in str(error):  # none of those that were asked for
            return {}
        raise
    counts = {table: int(count) for table, count in _COUNTED.findall(output)}
    if not counts and not tables:
        raise CleaningError(
            "airflow db clean counted no table at all: does the connection name Airflow's own database, and"
            " is this the version of Airflow that it is for?"
        )
    return counts


def _db_clean(
    database: URL, cutoff: datetime, tables: Sequence[str], options: Sequence[str], timeout_seconds: float
) -> str:
    arguments = ["db", "clean", f"--clean-before-timestamp={cutoff.isoformat()}"]
    arguments += ["--error-on-cleanup-failure", *options]  # without it, a table that failed is a success
    if tables:
        arguments.append(f"--tables={','.join(tables)}")
    try:
        return run_airflow(arguments, database=database, timeout_seconds=timeout_seconds).text
    except ProgramTimeoutError as error:
        raise CleaningError(f"{error}; a further attempt goes on from there", retryable=True) from None
    except ProgramError as error:
        # Its output holds names of tables, counts and database errors; the address is shown without password.
        password = database.password
        tail = error.tail()
        tail = tail.replace(str(password), "***") if password else tail
        raise CleaningError(f"{error}:\n{tail}", retryable=True) from None
