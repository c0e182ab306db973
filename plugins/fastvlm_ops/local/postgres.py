"""A real PostgreSQL server on loopback.

PostgreSQL refuses to run as root, so for root it runs as an unprivileged user, its data in a scratch folder
that this user can reach.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.core.programs.proc import family
from fastvlm_ops.local.ports import HOST, answers, free_ports
from fastvlm_ops.local.postgres_programs import NEWEST, usable_programs
from fastvlm_ops.local.postgres_starting import account, as_account, environment, initialise, scratch_folder
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

if TYPE_CHECKING:
    from types import TracebackType

_USER = "fastvlm"
# The data is not kept from one start to the next, so nothing is gained by flushing it.
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "log_min_messages": "warning",
}


class PostgreSQL:
    """A PostgreSQL server with one superuser, who may replicate too, and whose password is made up.

    :param folder: for its logs; made where absent
    :param major: version
    :param settings: of ``postgresql.conf``, besides and instead of those here
    :param segment_mb: size of its WAL segments in MiB, a power of two
    :param processes: that keeps its process; its own, in ``folder``, unless given
    :param die_with_parent: whether the kernel ends it with this process, as tests want it
    """

    def __init__(
        self,
        folder: Path,
        *,
        major: int = NEWEST,
        settings: Mapping[str, str] | None = None,
        segment_mb: int = 16,
        processes: Processes | None = None,
        die_with_parent: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = processes or Processes(self.folder)
        self.major = major
        self._settings = {**_SETTINGS, **(settings or {})}
        self._segment_mb = segment_mb
        self._die_with_parent = die_with_parent
        self._account = account()
        self._password = secrets.token_urlsafe(24)
        self._scratch: Path | None = None
        self._programs = Path()
        self._process: Process | None = None
        self._port = 0

    def __enter__(self) -> PostgreSQL:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._password

    @property
    def user(self) -> str:
        """The superuser."""
        return _USER

    @property
    def scratch(self) -> Path:
        """The folder of its data, outside ``folder`` where the account that it runs as cannot reach that.

        :raises ProcessStartError: it does not run
        """
        if self._scratch is None:
            raise ProcessStartError("PostgreSQL does not run, and has no data")
        return self._scratch

    @property
    def data(self) -> Path:
        """The folder of its data.

        :raises ProcessStartError: it does not run
        """
        return self.scratch / "data"

    @property
    def programs(self) -> Path:
        """The folder of the programs that it was started from, which its account can run."""
        return self._programs

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, with its password.

        :param database: its name
        """
        return f"postgresql+psycopg://{_USER}:{self._password}@{HOST}:{self._port}/{database}"

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start it, on an empty data folder, and wait until it answers.

        :raises ProcessStartError: it ended, or was not ready in time
        """
        scratch = self._scratch = scratch_folder(self._account)
        try:
            self._programs = usable_programs(self.major, self._account, scratch)
            initialise(
                self._programs,
                scratch / "data",
                account=self._account,
                user=_USER,
                password=self._password,
                segment_mb=self._segment_mb,
            )
            self._start_serving(scratch, timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def crash(self) -> None:
        """Stop it as a crash would; :meth:`restart` brings it back."""
        self._end(signal.SIGQUIT)

    def restart(
        self, settings: Mapping[str, str] | None = None, *, crash: bool = False, timeout_seconds: float = 60
    ) -> None:
        """Stop it where it runs, and start it on the same data, on another port.

        With ``die_with_parent`` it ends with the thread that calls this, as with the one that started it.

        :param settings: to change, from now on
        :param crash: whether it is stopped as a crash would stop it
        :raises ProcessStartError: it ended, or was not ready in time
        """
        self._end(signal.SIGQUIT if crash else signal.SIGINT)
        self._settings.update(settings or {})
        self._start_serving(self.scratch, timeout_seconds)

    def pause(self) -> None:
        """Stop all its processes where they are, so that it answers nothing until :meth:`resume`."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes go on."""
        self._signal_all(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, its connections cut, and remove its data."""
        self.resume()
        self._end(signal.SIGINT)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def make_database(self, name: str) -> str:
        """Make an empty database and return its address.

        :param name: letters, digits and _ only
        """
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a database")
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, cutting the connections to it.

        :param name: as it was made
        """
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a database")
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        import psycopg

        url = self.url().replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.encode())

    def _signal_all(self, number: int) -> None:
        if self._process is None:
            return
        for one in family(self._process.id):
            one.signal(number)

    def _start_serving(self, scratch: Path, timeout_seconds: float) -> None:
        for attempts_left in (2, 1, 0):
            try:
                return self._serve(scratch, time.monotonic() + timeout_seconds)
            except ProcessStartError:
                # Another program can take a port between our picking it and the server's using it.
                if not attempts_left:
                    raise

    def _serve(self, scratch: Path, deadline: float) -> None:
        (self._port,) = free_ports(1)
        settings = {**self._settings, "port": str(self._port)}
        log = self.folder / "logs" / "postgres.log"
        arguments = [str(self._programs / "postgres"), "-D", str(scratch / "data")]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        self._process = self.processes.start(
            "postgres",
            as_account(self._account, arguments, die_with_parent=self._die_with_parent),
            environment=environment(scratch),
            log=log,
            folder=scratch,
        )
        while not self._is_ready():
            if not self._process.id.alive or time.monotonic() > deadline:
                self._end(signal.SIGQUIT)
                raise ProcessStartError(f"PostgreSQL was not ready; the end of {log}:\n{tail(log)}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        import psycopg

        if not answers(self._port):
            return False
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.id.signal(number)
            self.processes.wait(self._process)
            self._process = None
