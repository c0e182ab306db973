"""Starting what was recovered, on trial: does it get to its target, is it whole, are the rows there?

The trial runs on the recovered folder itself and not on a copy of it. To start the server is what completes
a recovery, so what passes the checks is the very cluster that goes into service, at the end of a clean
shutdown; a copy would need the room twice and prove another cluster. What it changes, besides what a
recovery changes by itself: the folder belongs to the account of the server, and ``trial.log`` is there.
Whoever wants to keep a recovery untouched turns the trial off, or recovers once more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import RecoveryError, RestoreTargetError, SourceError, TrialError
from fastvlm_ops.core.backup.postgresql.cluster import identify_on
from fastvlm_ops.core.backup.postgresql.programs import Programs, find_programs, run_as
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryNote
from fastvlm_ops.core.backup.postgresql.recovery_settings import DATA
from fastvlm_ops.core.backup.postgresql.trial_server import TrialServer, give_to, wait_until
from fastvlm_ops.core.programs import ProgramError, run

if TYPE_CHECKING:
    from psycopg import Connection

LOG = "trial.log"
_MAINTENANCE = "template1"  # which every cluster has
PASSED = "passed"
_ENDED_BEFORE = "recovery ended before configured recovery target was reached"
_QUICK_SECONDS = 30.0
_COLUMNS = 20
_SHOWN = 200


@dataclass(frozen=True)
class TrialResult:
    """What a trial has shown. ``verified``, ``amcheck``: ``passed``, or why it was not checked.

    :param timeline: that the cluster is on now
    :param stopped: what the server said about where it stopped; None at the end of the WAL
    :param reached_lsn: of the last record that was replayed
    :param reached_time: when the last transaction that was replayed ended, by the original's clock
    :param paused: whether it waits for a person, read-only, whenever it is started
    :param page_checksums: whether its pages have checksums, which the checks then compared
    :param queries: each with the first row of its answer
    :param recovery_seconds: from the server's start until the target was reached
    """

    version: str
    timeline: int
    stopped: str | None
    reached_lsn: str | None
    reached_time: str | None
    paused: bool
    page_checksums: bool
    verified: str
    amcheck: str
    queries: tuple[dict[str, Any], ...]
    recovery_seconds: float
    duration_seconds: float

    @property
    def unchecked(self) -> list[str]:
        """What could not be checked, and why: that is not passed."""
        return [
            f"{name}: {value}"
            for name, value in (("files", self.verified), ("amcheck", self.amcheck))
            if value != PASSED
        ]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "queries": list(self.queries), "unchecked": self.unchecked}


def trial_programs(major: int, folder: Path | None = None) -> Programs:
    """Find the server for a trial, which must be of exactly the cluster's major version.

    :param folder: as ``[fastvlm_ops] postgresql_bin_dir`` names it
    :raises SourceError: it is not installed
    """
    return find_programs(major, exactly=True, folder=folder, needed=("postgres",))


def check_recovered(
    folder: Path,
    *,
    programs: Programs,
    clients: Programs | None = None,
    queries: Sequence[str] = (),
    database: str = "postgres",
    timeout_seconds: float = 3600,
) -> TrialResult:
    """Start what :func:`~.recovery.recover` has made, wait for its target, check it, and stop it.

    :param folder: of the recovery
    :param programs: of exactly the cluster's major version
    :param clients: where client programs are looked for that the server's folder lacks; of its version or
        newer; found where None
    :param queries: that must succeed, read-only
    :param database: where to ask them
    :param timeout_seconds: for all of it, but for stopping
    :raises RecoveryError: the WAL ends before the target, or has no such restore point
    :raises TrialError: it does not start, is damaged, or a check fails; with the end of the server's log
    :raises RestoreTargetError: the folder is none of a recovery, or the server's account cannot reach it
    """
    return _Trial(folder.absolute(), programs, clients, timeout_seconds).run(queries, database)


class _Trial:
    def __init__(
        self, folder: Path, programs: Programs, clients: Programs | None, timeout_seconds: float
    ) -> None:
        self.clients = clients
        self.folder = folder
        self.data = folder / DATA
        self.programs = programs
        self.began = time.monotonic()
        self.deadline = self.began + timeout_seconds
        self.note = RecoveryNote(folder)
        self.told = self.note.read()
        if self.told.get("state") not in ("ready", "started"):
            raise RestoreTargetError(f"{folder} holds no complete recovery; recover into it first")
        if programs.major != self.told["major"]:
            raise TrialError(
                f"{folder} is a cluster of PostgreSQL {self.told['major']}, which no server of"
                f" {programs.version} can open"
            )

    @property
    def target(self) -> dict[str, Any]:
        found: dict[str, Any] = self.told["recovery_target"]
        return found

    @property
    def pauses(self) -> bool:
        return bool(self.target["action"] == "pause")

    @property
    def seconds_left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def run(self, queries: Sequence[str], database: str) -> TrialResult:
        account = run_as()
        give_to(self.folder, account)
        verified = self._verify_files()
        self.note.write(state="started", verified=verified)
        give_to(self.folder, account)
        server = TrialServer(
            self.data,
            programs=self.programs,
            account=account,
            log=self.folder / LOG,
            hot_standby=self.pauses,
            superuser=self.told["superuser"],
        )
        with server:
            began = time.monotonic()
            self._wait(server)
            seconds = time.monotonic() - began
            reached = self._reached(server)
            amcheck = self._amcheck(server)
            answers = tuple(self._ask(server, queries, database))
        return TrialResult(
            **reached,
            paused=self.pauses,
            verified=verified,
            amcheck=amcheck,
            queries=answers,
            recovery_seconds=round(seconds, 3),
            duration_seconds=round(time.monotonic() - self.began, 3),
        )

    # -- before it starts --------------------------------------------------------------------------

    def _verify_files(self) -> str:
        """Compare the base backup with the manifest that PostgreSQL itself wrote."""
        if self.told["state"] == "started":
            return str(self.told.get("verified", "not checked: a server had been started on it before"))
        if not (self.data / "backup_manifest").is_file():
            return "not checked: the base backup has no manifest of PostgreSQL's"
        client = self._client("pg_verifybackup")
        if client is None:
            return "not checked: pg_verifybackup is not installed"
        # Of settings, what may have been changed here. WAL can be parsed by its own version only.
        options = ["--ignore=postgresql.conf", "--ignore=pg_hba.conf", "--ignore=postmaster.opts"]
        if client.major != self.programs.major or not (client.folder / "pg_waldump").exists():
            options.append("--no-parse-wal")
        if client.major != self.programs.major:
            # Read since version 17, each by its own. The engine's hash has proven it; the server reads it.
            options.append("--ignore=global/pg_control")
        # It passes the path on to a shell, so that it gets one of ours, from where it leads to the data.
        arguments = [client.path("pg_verifybackup"), *options, DATA]
        self._run(arguments, {"PATH": os.defpath, "LC_ALL": "C"}, "the base backup is not what was backed up")
        return PASSED

    def _client(self, name: str) -> Programs | None:
        """A client program: the server's own, or a newer one; None where there is none."""
        for given in (self.programs, self.clients):
            if given is not None and os.access(given.folder / name, os.X_OK):
                return given
        try:
            return find_programs(self.programs.major, needed=(name,))
        except SourceError:
            return None

    def _run(self, arguments: list[str], environment: dict[str, str], problem: str) -> None:
        name = os.path.basename(arguments[0])
        try:
            run(
                arguments,
                name=name,
                environment=environment,
                timeout_seconds=self.seconds_left,
                folder=self.folder,
            )
        except ProgramError as error:
            raise TrialError(f"{self.folder}: {problem}: {error}:\n{error.tail()}") from None

    # -- while it runs -----------------------------------------------------------------------------

    def _wait(self, server: TrialServer) -> None:
        """Wait until the recovery is at its end.

        :raises RecoveryError: it cannot get there
        """
        what = "it paused" if self.pauses else "it was recovered"
        try:
            wait_until(lambda: self._is_there(server), server, self.deadline, what)
        except TrialError as error:
            if server.found(_ENDED_BEFORE) is not None:
                where = self._target_text()
                raise RecoveryError(
                    f"{self.folder}: {where}; the end of the server's log:\n{server.tail()}"
                ) from None
            raise TrialError(f"{self.folder}: {error}") from None

    def _target_text(self) -> str:
        if self.target["name"] is not None:
            return (
                f"there is no restore point {self.target['name']!r} in the WAL between base backup"
                f" {self.told['snapshot_id']} and the end of what is stored"
            )
        return "the WAL ends before the target"

    def _is_there(self, server: TrialServer) -> bool:
        import psycopg

        try:
            with server.connected(_MAINTENANCE, seconds=_QUICK_SECONDS) as connection:
                (is_recovering,) = _row(connection, "SELECT pg_is_in_recovery()")
                if not self.pauses or not is_recovering:
                    return not is_recovering
                return _row(connection, "SELECT pg_get_wal_replay_pause_state()") == ("paused",)
        except psycopg.OperationalError as error:
            if "does not exist" in str(error):
                raise TrialError(_one_line(error)) from None
            return False

    def _reached(self, server: TrialServer) -> dict[str, Any]:
        """Where it has got to, and whether it is the cluster that was backed up.

        :raises TrialError: it is another one
        """
        with server.connected(_MAINTENANCE, seconds=_QUICK_SECONDS) as connection:
            cluster = identify_on(connection)
            lsn, moment, checksums = _row(
                connection,
                "SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),"
                " current_setting('data_checksums')",
            )
        if cluster.system_id != self.told["system_id"]:
            raise TrialError(
                f"{self.folder} is system {cluster.system_id}; system {self.told['system_id']} was backed up"
            )
        first = {
            "stopped": server.found("recovery stopping "),
            "reached_lsn": lsn,
            "reached_time": None if moment is None else moment.isoformat(),
        }
        if lsn is None:  # recovered by an earlier trial, which noted it
            first |= {key: value for key, value in self.told.items() if key in first}
        else:
            self.told = self.note.write(**first)
        return {
            **first,
            "version": cluster.version,
            "timeline": cluster.timeline,
            "page_checksums": checksums == "on",
        }

    def _amcheck(self, server: TrialServer) -> str:
        """Check tables and indexes of every database, by the extension amcheck.

        Where a database lacks it, it is there for the check only; a server that pauses is read-only, so that
        those databases are then not checked.
        """
        client = self._client("pg_amcheck")
        if client is None:
            return "not checked: pg_amcheck is not installed"
        databases = self._databases(server)
        lacking = [name for name in databases if not self._has_amcheck(server, name)]
        if lacking and not self._can_install(server):
            why = "the server waits, read-only" if self.pauses else "the server has no extension amcheck"
            return f"not checked: {why}, and {', '.join(lacking)} lacks amcheck"
        arguments = [client.path("pg_amcheck"), "--all", "--no-password"]
        try:
            for name in lacking:
                self._execute(server, name, "CREATE EXTENSION amcheck")
            self._run(arguments, server.environment, "tables or indexes are damaged")
        finally:
            for name in lacking:
                self._execute(server, name, "DROP EXTENSION IF EXISTS amcheck")
        return PASSED

    def _databases(self, server: TrialServer) -> list[str]:
        query = "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname"
        with server.connected(_MAINTENANCE, seconds=_QUICK_SECONDS) as connection:
            return [name for (name,) in connection.execute(query).fetchall()]

    def _has_amcheck(self, server: TrialServer, database: str) -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'amcheck')"
        with server.connected(database, seconds=_QUICK_SECONDS) as connection:
            return _row(connection, query) == (True,)

    def _can_install(self, server: TrialServer) -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')"
        with server.connected(_MAINTENANCE, seconds=_QUICK_SECONDS) as connection:
            return not self.pauses and _row(connection, query) == (True,)

    def _execute(self, server: TrialServer, database: str, statement: str) -> None:
        with server.connected(database, seconds=_QUICK_SECONDS) as connection:
            connection.execute(statement.encode())

    def _ask(self, server: TrialServer, queries: Sequence[str], database: str) -> list[dict[str, Any]]:
        """Ask the queries, one statement each, that cannot write.

        :raises TrialError: one fails
        """
        import psycopg

        answers = []
        for query in queries:
            try:
                with server.connected(database, seconds=self.seconds_left) as connection:
                    connection.read_only = True
                    connection.autocommit = False
                    connection.prepare_threshold = 1  # only what is prepared is one statement for sure
                    row = connection.execute(query.encode(), prepare=True).fetchone()
            except psycopg.Error as error:
                raise TrialError(
                    f"{self.folder}: the check {query!r} fails in database {database!r}: {_one_line(error)}"
                ) from None
            shown = None if row is None else [str(value)[:_SHOWN] for value in row[:_COLUMNS]]
            answers.append({"query": query, "row": shown})
        return answers


def _row(connection: Connection[Any], query: str) -> tuple[Any, ...]:
    found = connection.execute(query.encode()).fetchone()
    assert found is not None  # noqa: S101 - each of these queries has a row
    return tuple(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
