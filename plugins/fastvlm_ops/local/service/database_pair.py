"""A primary and its streaming standby, which fail, are promoted and rejoin.

Which of the two is the primary stands in a file, and is written there before anything is promoted: so an old
primary that is started again, by whatever means, is refused instead of becoming a second one. What differs
between the two is in a settings file of each outside its data folder, since pg_rewind and pg_basebackup bring
the other's settings along.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastvlm_ops.core.backup.postgresql.cluster import connected
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError
from fastvlm_ops.core.disaster_recovery.postgresql.failover import Promotion, promote
from fastvlm_ops.core.disaster_recovery.postgresql.rejoin import (
    STANDBY_SIGNAL,
    Rejoined,
    Rejoiner,
    unfinished_mark,
)
from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import (
    clear_stale_lock,
    kill_server,
    postmaster_of,
    server_processes,
)
from fastvlm_ops.core.disaster_recovery.postgresql.state import (
    DatabaseState,
    not_streaming,
    parse_address,
    read_state,
    wait_until_streaming,
)
from fastvlm_ops.core.programs.proc import ProcessId
from fastvlm_ops.local.ports import HOST, free_ports
from fastvlm_ops.local.postgres_programs import NEWEST, usable_programs
from fastvlm_ops.local.postgres_starting import (
    account,
    as_account,
    environment,
    initialise,
    scratch_folder,
    write_private,
)
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

if TYPE_CHECKING:
    from types import TracebackType

NAMES = ("database-1", "database-2")
Mode = Literal["async", "sync"]
_USER = "fastvlm"
_FACTS = "pair.json"
_PASSWORDS = "pgpass"
# Only processes are killed here, never the machine, so nothing has to reach the disk.
_SETTINGS = {
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",
    "max_connections": "60",
    "shared_buffers": "'32MB'",
    "fsync": "off",
    "wal_level": "replica",
    "wal_keep_size": "'64MB'",  # what an old primary needs to be rewound, and a standby to catch up
    "max_wal_size": "'128MB'",
    "min_wal_size": "'32MB'",
    "hot_standby_feedback": "on",
    "wal_receiver_status_interval": "'1s'",
    "wal_retrieve_retry_interval": "'200ms'",
    "log_min_messages": "warning",
    "log_line_prefix": "'%m [%p] '",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
}


class DatabasePair:
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
        if not database.isidentifier():
            raise ValueError(f"{database!r} cannot name a database")
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mode = mode
        self.database = database
        self.user = _USER
        self.password = password or secrets.token_urlsafe(24)
        self.processes = processes or Processes(self.folder)
        self._die_with_parent = die_with_parent
        self._account = account()
        self._ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self._scratch: Path | None = None
        self._programs = Path()
        self._primary = NAMES[0]
        self._paused = False
        self._started: dict[str, Process] = {}
        self._rejoined: dict[str, str] = {}
        self._lock = threading.RLock()
        # The kernel ends a process with the *thread* that started it, and these may end at any time.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="database-pair")

    def __enter__(self) -> DatabasePair:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Of its instances."""
        return NAMES

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
        return self.scratch / _known(name)

    def log(self, name: str) -> Path:
        """Return the log of an instance."""
        return self.folder / "logs" / f"{_known(name)}.log"

    def primary(self) -> str:
        """Return the name of the primary, whether it runs or not: the other is never started as one."""
        return self._primary

    def standby(self) -> str:
        """Return the name of the other."""
        return _other(self._primary)

    def role(self, name: str) -> Literal["database_primary", "database_standby"]:
        """Return the role of an instance, whether it runs or not."""
        return "database_primary" if _known(name) == self._primary else "database_standby"

    def port(self, name: str) -> int:
        """Return the port of an instance, which stays the same."""
        return self._ports[_known(name)]

    def address(self, name: str) -> str:
        """Return host and port of an instance."""
        return f"{HOST}:{self.port(name)}"

    def dsn(self, name: str) -> str:
        """Return the address of the service's database on an instance, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.address(name)}/{self.database}"

    def client_dsn(self) -> str:
        """Return an address for clients, with the password: of whichever instance takes writes."""
        hosts = ",".join(self.address(name) for name in NAMES)
        return (
            f"postgresql://{self.user}:{self.password}@{hosts}/{self.database}"
            "?target_session_attrs=read-write&connect_timeout=2"
        )

    def identity(self, name: str) -> ProcessId | None:
        """Return the postmaster of an instance; None where it does not run."""
        return postmaster_of(self.data(name))

    def read(self, name: str, *, seconds: float = 2) -> DatabaseState:
        """Ask an instance what it is."""
        return read_state(name, self._maintenance(name), seconds=seconds)

    def health(self, name: str) -> tuple[bool, str]:
        """Say whether an instance does its work (a standby: whether it streams), and why not."""
        found = self.read(name)
        if name == self._primary:
            if found.role == "primary":
                return True, self._rejoined.get(name, "")
            return False, found.problem or f"is {found.role}, and should be the primary"
        problem = not_streaming(self.read(self._primary), found)
        return problem is None, problem or self._rejoined.get(name, "")

    # -- all of it -----------------------------------------------------------------------------------

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Make both, start them, and wait until the standby streams.

        :raises ProcessStartError: one of them ended, or was not ready in time
        """
        with self._lock:
            scratch = self._scratch = scratch_folder(self._account)
            try:
                self._programs = usable_programs(NEWEST, self._account, scratch)
                write_private(
                    scratch / _PASSWORDS, f"{HOST}:*:*:{self.user}:{self.password}\n", self._account
                )
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
                self._execute(self._primary, f'CREATE DATABASE "{self.database}"', database="postgres")
                self._rejoiner().copy(self.data(self.standby()), self._maintenance(self._primary))
                self._serve(self.standby(), timeout_seconds)
                self._wait_until_streaming(timeout_seconds)
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
            self._programs = usable_programs(NEWEST, self._account, scratch)
            self._scratch = scratch

    def stop(self) -> None:
        """Stop both, their connections cut, and remove their data."""
        with self._lock:
            if self._scratch is None:
                return
            for name in (self.standby(), self._primary):
                self._end(name, signal.SIGQUIT)  # nothing of them is kept
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
            self._starter.shutdown(wait=False)

    # -- instances -----------------------------------------------------------------------------------

    def start_instance(self, name: str, *, timeout_seconds: float = 60) -> None:
        """Start an instance as what it is, unless it runs.

        :raises SplitBrainError: it was the primary before the present one; :meth:`rejoin` it
        :raises DatabaseError: its data folder is half made; :meth:`rejoin` it
        :raises ProcessStartError: it ended, or was not ready in time
        """
        with self._lock:
            self._reap(name)
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
            self._end(name, signal.SIGINT)

    def kill(self, name: str) -> list[ProcessId]:
        """Kill every process of an instance, as a power cut would; returns those that were hit."""
        with self._lock:
            hit = kill_server(self.data(name))
            self._reap(name)
            return hit

    def promote(self, name: str, *, timeout_seconds: float = 60) -> Promotion:
        """Make the standby the primary.

        :raises SplitBrainError: the old primary still runs: stop it, or kill it where it hangs
        :raises DatabaseError: it does not run, or was not promoted in time; to be tried again
        """
        with self._lock:
            old = _other(_known(name))
            self._reap(old)
            if name != self._primary:
                self._require_gone(old)
                if self.identity(name) is None:
                    raise DatabaseError(f"{name} does not run, so that it cannot be promoted; start it first")
                # From here on, the old one is started as a standby only, whatever becomes of this.
                self._primary = name
                self._rejoined.pop(name, None)
                self._note()
            self._paused = False
            self._write_settings(name, synchronous=False)  # else its commits wait for the one that is gone
            self._reload(name)
            return promote(self._maintenance(name), seconds=timeout_seconds)

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
            self._end(name, signal.SIGINT)
            self._write_settings(name, synchronous=False)
            done = self._rejoiner().rejoin(
                self.data(name),
                self._maintenance(self._primary),
                afresh=afresh,
                settings_file=self._settings_file(name),
            )
            try:
                self._serve(name, timeout_seconds)
                self._wait_until_streaming(timeout_seconds if afresh else min(15.0, timeout_seconds))
            except (DatabaseError, ProcessStartError) as error:
                if done.how == "copied":
                    raise
                why = f"after pg_rewind it did not stream: {str(error).splitlines()[0]}"
                return self.rejoin(name, afresh=why, timeout_seconds=timeout_seconds)
            self._rejoined[name] = f"{done.how} in {done.seconds:.1f} s" + (
                f": {done.why}" if done.why else ""
            )
            return done

    def pause_replication(self, *, timeout_seconds: float = 10) -> None:
        """Cut the standby off: it stays up and is not sent anything, until :meth:`resume_replication`."""
        with self._lock:
            self._paused = True
            self._write_settings(self.standby())
            self._reload(self.standby())
            self._wait(
                lambda: self.read(self.standby()).receiving is None,
                timeout_seconds,
                "the standby still receives",
            )

    def resume_replication(self, *, timeout_seconds: float = 60) -> None:
        """Let the standby follow again, and wait until it has caught up."""
        with self._lock:
            self._paused = False
            self._write_settings(self.standby())
            self._reload(self.standby())
            self._wait_until_streaming(timeout_seconds)

    # -- serving -------------------------------------------------------------------------------------

    def _serve(self, name: str, timeout_seconds: float) -> None:
        self._reap(name)
        clear_stale_lock(self.data(name))
        self._write_settings(name)
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [
            str(self._programs / "postgres"),
            *("-D", str(self.data(name))),
            *("-c", f"config_file={self._settings_file(name)}"),
        ]
        command = as_account(self._account, arguments, die_with_parent=self._die_with_parent)
        started = self._starter.submit(
            lambda: self.processes.start(
                name, command, environment=environment(self.scratch), log=log, folder=self.scratch
            )
        ).result()
        self._started[name] = started
        deadline = time.monotonic() + timeout_seconds
        while self.read(name).role not in ("primary", "standby"):
            if not started.id.alive or time.monotonic() > deadline:
                self._end(name, signal.SIGQUIT)
                raise ProcessStartError(f"{name} was not ready; the end of {log}:\n{tail(log)}")
            time.sleep(0.05)

    def _require_startable(self, name: str) -> None:
        data = self.data(name)
        if unfinished_mark(data).exists() or not data.is_dir():
            raise DatabaseError(f"the data folder of {name} is half made; rejoin it")
        is_standby = (data / STANDBY_SIGNAL).exists()
        if name != self._primary and not is_standby:
            raise SplitBrainError(
                f"{name} was the primary before {self._primary}, and would be a second one; rejoin it"
            )
        if name == self._primary:
            self._require_gone_as_primary(_other(name))

    def _require_gone(self, name: str) -> None:
        alive = server_processes(self.data(name))
        if alive:
            numbers = ", ".join(str(one.pid) for one in alive)
            raise SplitBrainError(
                f"{name} still runs (processes {numbers}), and there would be two primaries; stop it first"
            )

    def _require_gone_as_primary(self, name: str) -> None:
        if not (self.data(name) / STANDBY_SIGNAL).exists():
            self._require_gone(name)

    def _end(self, name: str, number: int, *, patience_seconds: float = 20) -> None:
        """Stop an instance by a signal to its postmaster; kill it where that does not help."""
        leader = self.identity(name)
        if leader is not None:
            leader.signal(number)
            leader.signal(signal.SIGCONT)  # one that was stopped would not end
            deadline = time.monotonic() + patience_seconds
            while leader.alive and time.monotonic() < deadline:
                time.sleep(0.02)
        kill_server(self.data(name))
        self._reap(name)

    def _reap(self, name: str) -> None:
        """Wait for an instance that has ended: until then it is a zombie, and its lock file looks held."""
        process = self._started.get(name)
        if process is not None and not process.id.alive:
            self.processes.wait(process)
            del self._started[name]

    # -- settings ------------------------------------------------------------------------------------

    def _settings_file(self, name: str) -> Path:
        return self.scratch / f"{name}.conf"

    def _write_settings(self, name: str, *, synchronous: bool | None = None) -> None:
        """:param synchronous: whether commits wait for the standby; as it was before where None"""
        file = self._settings_file(name)
        if synchronous is None:
            synchronous = file.exists() and f'"{_other(name)}"' in file.read_text() and name == self._primary
        follows = (
            f"host={HOST} port={self.port(_other(name))} user={self.user} application_name={name}"
            f" passfile={self.scratch / _PASSWORDS} connect_timeout=5"
        )
        settings = {
            **_SETTINGS,
            "port": str(self.port(name)),
            "cluster_name": f"'{name}'",
            "primary_conninfo": "''" if self._paused and name != self._primary else f"'{follows}'",
            "synchronous_commit": "remote_apply" if self.mode == "sync" else "on",
            "synchronous_standby_names": f"'\"{_other(name)}\"'" if synchronous else "''",
        }
        text = "".join(f"{key} = {value}\n" for key, value in settings.items())
        fresh = file.with_suffix(".new")
        write_private(fresh, text, self._account)
        fresh.replace(file)

    def _reload(self, name: str) -> None:
        leader = self.identity(name)
        if leader is not None:
            leader.signal(signal.SIGHUP)

    def _set_synchronous(self, wanted: bool) -> None:
        if self.mode == "sync":
            self._write_settings(self._primary, synchronous=wanted)
            self._reload(self._primary)

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

    # -- small things --------------------------------------------------------------------------------

    def _rejoiner(self) -> Rejoiner:
        return Rejoiner(self._programs, self._account, sync=False)

    def _maintenance(self, name: str) -> str:
        return self.dsn(name).replace(f"/{self.database}", "/postgres")

    def _execute(self, name: str, statement: str, *, database: str) -> None:
        url = parse_address(self.dsn(name)).set(database=database)
        with connected(url) as connection:
            connection.execute(statement.encode())

    def _note(self) -> None:
        """Write down who the primary is, in one step."""
        facts: dict[str, Any] = {"primary": self._primary, "ports": self._ports, "mode": self.mode}
        file = self.folder / _FACTS
        fresh = file.with_suffix(".new")
        with fresh.open("w") as output:
            json.dump(facts, output, indent=1)
            output.flush()
            os.fsync(output.fileno())
        fresh.replace(file)

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise DatabaseError(f"{what} after {seconds:g} s", retryable=True)
            time.sleep(0.05)


def _known(name: str) -> str:
    if name not in NAMES:
        raise DatabaseError(f"there is no database {name!r}; there are {' and '.join(NAMES)}")
    return name


def _other(name: str) -> str:
    return NAMES[1 - NAMES.index(_known(name))]
