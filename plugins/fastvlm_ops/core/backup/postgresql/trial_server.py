"""A server on a recovered folder that only this process can reach, and that never outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import RestoreTargetError, TrialError
from fastvlm_ops.core.backup.postgresql.programs import Account, Programs

if TYPE_CHECKING:
    from psycopg import Connection

_PORT = 5432  # part of the socket's name only: nothing listens on a network
_SOCKET_PATH_BYTES = 100  # the system's limit is 108
_TAIL_BYTES = 1 << 16
_TAIL_LINES = 20
_STOP_SECONDS = 120.0
_HURRY_SECONDS = 20.0
# A trial is not reached, reaches nothing, writes nowhere else, needs nothing of the original's machine.
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "ssl": "off",
    "archive_mode": "off",
    "external_pid_file": "",
    "max_logical_replication_workers": "0",  # a subscription would go on where the original's is
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "huge_pages": "try",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_statement": "none",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",  # what it says is read
}


class TrialServer:
    """A server on trial. Starts on entry and is stopped on exit, whatever happens between.

    It listens on a Unix socket in a folder that only its account can enter, where everybody may connect as
    anybody: whom the cluster itself lets in is not known here.

    :param data: the data folder
    :param programs: of exactly the cluster's major version
    :param account: who it runs as; must own the data folder
    :param log: file that its output is added to
    :param hot_standby: whether it answers while it still recovers, as a pause needs it
    :param superuser: whom to connect as
    """

    def __init__(
        self,
        data: Path,
        *,
        programs: Programs,
        account: Account,
        log: Path,
        hot_standby: bool,
        superuser: str,
    ) -> None:
        self.data = data
        self.programs = programs
        self.account = account
        self.log = log
        self.hot_standby = hot_standby
        self.superuser = superuser
        self._log_start = log.stat().st_size if log.exists() else 0
        self._sockets: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TrialServer:
        try:
            self._start()
        except BaseException:
            self._remove_sockets()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._remove_sockets()

    # -- starting and stopping ---------------------------------------------------------------------

    def _start(self) -> None:
        """:raises TrialError: its program cannot be run."""
        self._sockets = _socket_folder(self.account)
        access = self._sockets / "pg_hba.conf"
        access.write_text("local all all trust\n")
        os.chown(access, self.account.uid, self.account.gid)
        settings = {
            **_SETTINGS,
            "data_directory": os.fspath(self.data),
            "hba_file": os.fspath(access),
            "unix_socket_directories": os.fspath(self._sockets),
            "hot_standby": "on" if self.hot_standby else "off",
        }
        arguments = [self.programs.path("postgres"), "-D", os.fspath(self.data)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        environment = {"PATH": os.defpath, "HOME": os.fspath(self._sockets), "LC_ALL": "C", "TZ": "UTC"}
        command, options = _as_account(arguments, self.account)
        try:
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=self._sockets,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                    **options,
                )
        except OSError as error:
            raise TrialError(f"{arguments[0]} cannot be started: {error.strerror}") from error

    def stop(self) -> None:
        """Stop it and wait until it has ended: its data is then whole, unless it had to be killed."""
        if self._process is None:
            return
        for number, seconds in (
            (signal.SIGINT, _STOP_SECONDS),
            (signal.SIGQUIT, _HURRY_SECONDS),
            (signal.SIGKILL, _HURRY_SECONDS),
        ):
            self._process.send_signal(
                number
            )  # by its own id, which is not given away before it is waited for
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                return

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    # -- asking ------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it has stopped by itself."""
        return self._process is None or self._process.poll() is not None

    @property
    def _host(self) -> str:
        """The folder of its socket, as clients take it.

        :raises TrialError: it has not been started
        """
        if self._sockets is None:
            raise TrialError("the server on trial has not been started")
        return os.fspath(self._sockets)

    @property
    def environment(self) -> dict[str, str]:
        """What makes PostgreSQL's client programs connect to it."""
        return {
            "PATH": os.defpath,
            "LC_ALL": "C",
            "PGHOST": self._host,
            "PGPORT": str(_PORT),
            "PGUSER": self.superuser,
            "PGCONNECT_TIMEOUT": "10",
        }

    @contextlib.contextmanager
    def connected(self, database: str, *, seconds: float) -> Iterator[Connection[Any]]:
        """Connect to one of its databases, each statement a transaction of its own.

        :param seconds: after which the server ends a statement
        :raises psycopg.Error: it does not let us in, or a statement fails
        """
        import psycopg

        with psycopg.connect(
            host=self._host,
            port=_PORT,
            user=self.superuser,
            dbname=database,
            connect_timeout=10,
            application_name="fastvlm-ops trial",
            options=f"-c statement_timeout={max(1, int(seconds * 1000))}",
            autocommit=True,
            prepare_threshold=None,
        ) as connection:
            yield connection

    def said(self) -> str:
        """What it has written to its log since it was started here."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            size = self.log.stat().st_size
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
        return ""

    def tail(self) -> str:
        """The end of its log, for messages."""
        return "\n".join(self.said().strip().splitlines()[-_TAIL_LINES:])

    def found(self, pattern: str) -> str | None:
        """The last message in its log that a pattern matches, without time and process."""
        lines = re.findall(rf"(?:LOG|FATAL):\s+({pattern}.*)$", self.said(), re.M)
        return lines[-1] if lines else None


def give_to(folder: Path, account: Account) -> None:
    """Make a folder and all in it an account's own. For root only; else it is one's own already.

    :raises RestoreTargetError: the account cannot reach the folder
    """
    if account.name is None:
        return
    closed = [path for path in folder.resolve().parents if not path.stat().st_mode & 0o001]
    if closed:
        raise RestoreTargetError(
            f"{folder} cannot be reached by the user {account.name}, whom the server runs as, since"
            f" {closed[0]} is closed to others; restore into a folder that is not, or run the worker as"
            " another user than root"
        )
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def wait_until(ready: Any, server: TrialServer, deadline: float, what: str) -> None:
    """Wait for a state of a server.

    :param ready: called again and again until it is true
    :param deadline: by the monotonic clock
    :param what: is waited for, for messages
    :raises TrialError: the server ended, or it took too long; with the end of its log
    """
    while not ready():
        if server.ended:
            raise TrialError(f"the server ended before {what}; the end of its log:\n{server.tail()}")
        if time.monotonic() > deadline:
            raise TrialError(f"the time is over before {what}; the end of its log:\n{server.tail()}")
        time.sleep(0.05)


def _socket_folder(account: Account) -> Path:
    """A folder of the account alone, whose path leaves room for the name of a socket."""
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):  # noqa: S108
        open_to_all = all(path.stat().st_mode & 0o001 for path in (parent, *parent.parents))
        if len(os.fsencode(parent)) + 40 < _SOCKET_PATH_BYTES and (account.name is None or open_to_all):
            folder = Path(tempfile.mkdtemp(prefix="fastvlm-trial-", dir=parent))  # 0700
            os.chown(folder, account.uid, account.gid)
            return folder
    raise TrialError("there is no temporary folder for the server's socket that its user can reach")


def _as_account(arguments: list[str], account: Account) -> tuple[list[str], dict[str, Any]]:
    """A command as an account, which the kernel stops with this process where it can; options of Popen."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return arguments, account.popen_options()
    options = ["--pdeathsig", "INT"]
    if account.name is not None:  # set together: a change of user afterwards would clear it
        options += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    return [setpriv, *options, *arguments], {}
