"""A primary and its streaming standby, which fail, are promoted and rejoin.

Which of the two is the primary stands in a file, and is written there before anything is promoted: so an old
primary that is started again, by whatever means, is refused instead of becoming a second one. What differs
between the two is in a settings file of each outside its data folder, since pg_rewind and pg_basebackup bring
the other's settings along.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_ops.core.backup.postgresql.cluster import connected
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError
from fastvlm_ops.core.disaster_recovery.postgresql.failover import Promotion, promote
from fastvlm_ops.core.disaster_recovery.postgresql.rejoin import (
    STANDBY_SIGNAL,
    Rejoined,
    Rejoiner,
    unfinished_mark,
)
from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import server_processes
from fastvlm_ops.core.disaster_recovery.postgresql.state import (
    not_streaming,
    parse_address,
    wait_until_streaming,
)
from fastvlm_ops.core.programs.proc import ProcessId
from fastvlm_ops.local.ports import HOST
from fastvlm_ops.local.postgres_programs import NEWEST, usable_programs
from fastvlm_ops.local.postgres_starting import account, initialise, scratch_folder, write_private
from fastvlm_ops.local.processes import Processes, ProcessStartError
from fastvlm_ops.local.service.database_addresses import NAMES, PairAddresses, known, other_of, write_facts
from fastvlm_ops.local.service.database_server import DatabaseServer, Starting

if TYPE_CHECKING:
    from types import TracebackType

Mode = Literal["async", "sync"]
_FACTS = "pair.json"
_PASSWORDS = "pgpass"


class DatabasePair(PairAddresses):
    """Two PostgreSQL servers on loopback, ``database-1`` and ``database-2``; the first begins as primary.

    Its methods may be called from any thread, one at a time does its work. Errors are
    :class:`~fastvlm_ops.core.disaster_recovery.postgresql.errors.DatabaseError` and
    :class:`~fastvlm_ops.local.processes.ProcessStartError`.

    :param folder: for its logs and its state; made where absent
    :param mode: ``sync``: the primary acknowledges what the standby has replayed; ``async``: it does not wait
    :param database: name of the service's database, which is made
    :param password: of the superuser; made up where None
    :param processes: that keeps its processes; its own, in ``folder``, unless given
    :param die_with_parent: whether the kernel ends it with this process, as tests want it
    """

    def __init__(
        self,
        folder: Path,
        mode: Mode = "async",
        *,
        database: str = "service",
        password: str | None = None,
        processes: Processes | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(database, password)
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mode = mode
        self.processes = processes or Processes(self.folder)
        self._die_with_parent = die_with_parent
        self._account = account()
        self._scratch: Path | None = None
        self._programs = Path()
        self._primary = NAMES[0]
        self._paused = False
        self._servers: dict[str, DatabaseServer] = {}
        self._synchronous = False
        self._rejoined: dict[str, str] = {}
        self._lock = threading.RLock()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="database-pair")

    def __enter__(self) -> DatabasePair:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def scratch(self) -> Path:
        """The folder of its data, outside ``folder`` where its account cannot reach that.

        :raises ProcessStartError: it has not been started
        """
        if self._scratch is None:
            raise ProcessStartError("the pair of databases has not been started, and has no data")
        return self._scratch

    @property
    def programs(self) -> Path:
        """The folder of the programs that they were started from, which their account can run."""
        return self._programs

    def data(self, name: str) -> Path:
        """Return the data folder of an instance."""
        return self._server(name).data

    def log(self, name: str) -> Path:
        """Return the log of an instance."""
        return self.folder / "logs" / f"{known(name)}.log"

    def primary(self) -> str:
        """Return the name of the primary, whether it runs or not: the other is never started as one."""
        return self._primary

    def standby(self) -> str:
        """Return the name of the other."""
        return other_of(self._primary)

    def role(self, name: str) -> Literal["database_primary", "database_standby"]:
        """Return the role of an instance, whether it runs or not."""
        return "database_primary" if known(name) == self._primary else "database_standby"

    def identity(self, name: str) -> ProcessId | None:
        """Return the postmaster of an instance; None where it does not run."""
        return self._server(name).identity()

    def health(self, name: str) -> tuple[bool, str]:
        """Say whether an instance does its work (a standby: whether it streams), and why not."""
        found = self.read(name)
        if name == self._primary:
            if found.role == "primary":
                return True, self._rejoined.get(name, "")
            return False, found.problem or f"is {found.role}, and should be the primary"
        problem = not_streaming(self.read(self._primary), found)
        return problem is None, problem or self._rejoined.get(name, "")

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Make both, start them, and wait until the standby streams.

        :raises ProcessStartError: one of them ended, or was not ready in time
        """
        with self._lock:
            scratch = scratch_folder(self._account)
            try:
                self._settle(scratch)
                self._make(scratch, timeout_seconds)
            except BaseException:
                self.stop()
                raise

    def resume(self, scratch: Path) -> None:
        """Go on with a pair that another object, with the same folder and password, has started.

        :param scratch: of that one
        """
        with self._lock:
            facts = json.loads((self.folder / _FACTS).read_text())
            self._ports, self._primary = facts["ports"], facts["primary"]
            self._settle(scratch)
            self._synchronous = self.mode == "sync" and bool(self.read(self._primary).senders)

    def stop(self) -> None:
        """Stop both, their connections cut, and remove their data."""
        with self._lock:
            if self._scratch is None:
                return
            for name in (self.standby(), self._primary):
                if name in self._servers:
                    self._servers[name].end(signal.SIGQUIT)  # nothing of them is kept
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
            self._servers.clear()
            self._starter.shutdown(wait=False)

    def _settle(self, scratch: Path) -> None:
        self._scratch = scratch
        self._programs = usable_programs(NEWEST, self._account, scratch)
        starting = Starting(scratch, self._programs, self._account, self._die_with_parent)
        self._servers = {
            name: DatabaseServer(name, self.log(name), starting, self.processes, self._starter)
            for name in NAMES
        }

    def _make(self, scratch: Path, timeout_seconds: float) -> None:
        write_private(scratch / _PASSWORDS, f"{HOST}:*:*:{self.user}:{self.password}\n", self._account)
        initialise(
            self._programs,
            self.data(self._primary),
            account=self._account,
            user=self.user,
            password=self.password,
            segment_mb=1,
        )
        self._note()
        self._serve(self._primary, timeout_seconds)
        with connected(parse_address(self.maintenance_dsn(self._primary))) as connection:
            connection.execute(f'CREATE DATABASE "{self.database}"'.encode())
        self._rejoiner().copy(self.data(self.standby()), self.maintenance_dsn(self._primary))
        self._serve(self.standby(), timeout_seconds)
        self._wait_until_streaming(timeout_seconds)

    def start_instance(self, name: str, *, timeout_seconds: float = 60) -> None:
        """Start an instance as what it is, unless it runs.

        :raises SplitBrainError: it was the primary before the present one; :meth:`rejoin` it
        :raises DatabaseError: its data folder is half made; :meth:`rejoin` it
        :raises ProcessStartError: it ended, or was not ready in time
        """
        with self._lock:
            self._server(name).reap()
            if self.identity(name) is None:
                self._require_startable(name)
                self._serve(name, timeout_seconds)
                if self.mode == "sync" and name != self._primary and self.identity(self._primary):
                    self._wait_until_streaming(timeout_seconds)

    def stop_instance(self, name: str) -> None:
        """Stop an instance and cut its connections; one that hangs is killed.

        In mode ``sync``, the primary no longer waits for a standby that was stopped on purpose.
        """
        with self._lock:
            if name != self._primary:
                self._set_synchronous(False)
            self._server(name).end(signal.SIGINT)

    def kill(self, name: str) -> list[ProcessId]:
        """Kill every process of an instance, as a power cut would; returns those that were hit."""
        with self._lock:
            return self._server(name).kill()

    def promote(self, name: str, *, timeout_seconds: float = 60) -> Promotion:
        """Make the standby the primary.

        :raises SplitBrainError: the old primary still runs: stop it, or kill it where it hangs
        :raises DatabaseError: it does not run, or was not promoted in time; to be tried again
        """
        with self._lock:
            old = other_of(known(name))
            self._server(old).reap()
            if name != self._primary:
                self._require_gone(old)
                if self.identity(name) is None:
                    raise DatabaseError(f"{name} does not run, so that it cannot be promoted; start it first")
                # From here on, the old one is started as a standby only, whatever becomes of this.
                self._primary = name
                self._rejoined.pop(name, None)
                self._note()
                self._paused = False
                self._synchronous = False  # else its commits wait for the one that is gone
            self._apply(name)
            return promote(self.maintenance_dsn(name), seconds=timeout_seconds)

    def rejoin(self, name: str, *, afresh: str = "", timeout_seconds: float = 60) -> Rejoined | None:
        """Make the old primary a standby of the present one, and wait until it streams.

        :param afresh: why it is to be copied, without trying to rewind it; empty for trying
        :returns: what had to be done; None where it streams already
        :raises DatabaseError: it is the primary, or does not stream in time
        """
        with self._lock:
            if name == self._primary:
                raise DatabaseError(
                    f"{name} is the primary, and cannot follow itself; promote the other first"
                )
            primary = self.read(self._primary)
            if primary.role != "primary":  # nothing is stopped then: it may be all that there is
                raise DatabaseError(
                    f"{self._primary} is {primary.role}, not primary, so that nothing can follow it",
                    retryable=True,
                )
            if not afresh and not_streaming(primary, self.read(name)) is None:
                return None
            self._paused = False
            self._server(name).end(signal.SIGINT)
            self._write_settings(name)
            done = self._rejoiner().rejoin(
                self.data(name),
                self.maintenance_dsn(self._primary),
                afresh=afresh,
                settings_file=self._server(name).settings_file,
            )
            try:
                self._serve(name, timeout_seconds)
                self._wait_until_streaming(timeout_seconds if afresh else min(15.0, timeout_seconds))
            except (DatabaseError, ProcessStartError) as error:
                if done.how == "copied":
                    raise
                why = f"after pg_rewind it did not stream: {str(error).splitlines()[0]}"
                return self.rejoin(name, afresh=why, timeout_seconds=timeout_seconds)
            self._rejoined[name] = f"{done.how} in {done.seconds:.1f} s{done.why and f': {done.why}'}"
            return done

    def pause_replication(self, *, timeout_seconds: float = 10) -> None:
        """Cut the standby off: it stays up and is not sent anything, until :meth:`resume_replication`."""
        with self._lock:
            self._paused = True
            self._apply(self.standby())
            standby = self.standby()
            self._wait(lambda: self.read(standby).receiving is None, timeout_seconds, "it still receives")

    def resume_replication(self, *, timeout_seconds: float = 60) -> None:
        """Let the standby follow again, and wait until it has caught up."""
        with self._lock:
            self._paused = False
            self._apply(self.standby())
            self._wait_until_streaming(timeout_seconds)

    def _server(self, name: str) -> DatabaseServer:
        if not self._servers:
            raise ProcessStartError("the pair of databases has not been started, and has no data")
        return self._servers[known(name)]

    def _serve(self, name: str, timeout_seconds: float) -> None:
        self._write_settings(name)
        self._server(name).serve(
            lambda: self.read(name).role in ("primary", "standby"), timeout_seconds=timeout_seconds
        )

    def _require_startable(self, name: str) -> None:
        data = self.data(name)
        if unfinished_mark(data).exists() or not data.is_dir():
            raise DatabaseError(f"the data folder of {name} is half made; rejoin it")
        if name != self._primary and not (data / STANDBY_SIGNAL).exists():
            raise SplitBrainError(
                f"{name} was the primary before {self._primary}, and would be a second one; rejoin it"
            )
        other = other_of(name)
        if name == self._primary and not (self.data(other) / STANDBY_SIGNAL).exists():
            self._require_gone(other)

    def _require_gone(self, name: str) -> None:
        alive = server_processes(self.data(name))
        if alive:
            numbers = ", ".join(str(one.pid) for one in alive)
            raise SplitBrainError(
                f"{name} still runs (processes {numbers}), and there would be two primaries; stop it first"
            )

    def _write_settings(self, name: str) -> None:
        other, is_primary = other_of(name), name == self._primary
        follows = (
            f"host={HOST} port={self.port(other)} user={self.user} application_name={name}"
            f" passfile={self.scratch / _PASSWORDS} connect_timeout=5"
        )
        self._server(name).write_settings(
            port=self.port(name),
            follows="" if self._paused and not is_primary else follows,
            waits_for=other if is_primary and self._synchronous else "",
            commit="remote_apply" if self.mode == "sync" else "on",
        )

    def _apply(self, name: str) -> None:
        self._write_settings(name)
        self._server(name).reload()

    def _set_synchronous(self, wanted: bool) -> None:
        if self.mode == "sync":
            self._synchronous = wanted
            self._apply(self._primary)

    def _wait_until_streaming(self, timeout_seconds: float) -> None:
        primary, standby = self._primary, self.standby()
        wait_until_streaming(lambda: self.read(primary), lambda: self.read(standby), seconds=timeout_seconds)
        if self.mode == "sync":
            self._set_synchronous(True)
            self._wait(
                lambda: any(one.sync == "sync" for one in self.read(primary).senders),
                timeout_seconds,
                f"{primary} does not wait for {standby}",
            )

    def _rejoiner(self) -> Rejoiner:
        return Rejoiner(self._programs, self._account, sync=False)

    def _note(self) -> None:
        write_facts(self.folder / _FACTS, {"primary": self._primary, "ports": self._ports})

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise DatabaseError(f"{what} after {seconds:g} s", retryable=True)
            time.sleep(0.05)
