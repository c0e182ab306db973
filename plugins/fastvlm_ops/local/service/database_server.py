"""One of the servers of a pair of databases: its process, its data folder and its settings file."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.core.backup.postgresql.programs import Account
from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import (
    clear_stale_lock,
    kill_server,
    postmaster_of,
)
from fastvlm_ops.core.programs.proc import ProcessId
from fastvlm_ops.local.ports import HOST
from fastvlm_ops.local.postgres_starting import as_account, environment, write_private
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

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


@dataclass(frozen=True)
class Starting:
    """What all servers of a pair are started with.

    :param scratch: folder of their account, with their data
    :param programs: folder of PostgreSQL's programs
    :param account: who they run as
    :param die_with_parent: whether the kernel ends them with this process
    """

    scratch: Path
    programs: Path
    account: Account
    die_with_parent: bool


class DatabaseServer:
    """A server, which is started on the same data again and again.

    :param name: of it
    :param log: file that its output is added to
    :param starting: what it is started with
    :param processes: that keeps its process
    :param starter: of threads that live as long as this process: the kernel ends a process with the *thread*
        that started it, and those that call this may end at any time
    """

    def __init__(
        self, name: str, log: Path, starting: Starting, processes: Processes, starter: Executor
    ) -> None:
        self.name = name
        self.log = log
        self.data = starting.scratch / name
        self.settings_file = starting.scratch / f"{name}.conf"
        self._starting = starting
        self._processes = processes
        self._starter = starter
        self._process: Process | None = None

    def identity(self) -> ProcessId | None:
        """Return its postmaster; None where it does not run."""
        return postmaster_of(self.data)

    def serve(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Start it, and wait until it answers.

        :param ready: whether it does
        :raises ProcessStartError: it ended, or was not ready in time
        """
        self.reap()
        clear_stale_lock(self.data)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._starting.scratch
        arguments = [
            str(self._starting.programs / "postgres"),
            *("-D", str(self.data)),
            *("-c", f"config_file={self.settings_file}"),
        ]
        command = as_account(
            self._starting.account, arguments, die_with_parent=self._starting.die_with_parent
        )
        started = self._process = self._starter.submit(
            lambda: self._processes.start(
                self.name, command, environment=environment(scratch), log=self.log, folder=scratch
            )
        ).result()
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if not started.id.alive or time.monotonic() > deadline:
                self.end(signal.SIGQUIT)
                raise ProcessStartError(
                    f"{self.name} was not ready; the end of {self.log}:\n{tail(self.log)}"
                )
            time.sleep(0.05)

    def end(self, number: int, *, patience_seconds: float = 20) -> None:
        """Stop it by a signal to its postmaster; kill it where that does not help.

        :param number: of the signal
        :param patience_seconds: until it is killed
        """
        leader = self.identity()
        if leader is not None:
            leader.signal(number)
            leader.signal(signal.SIGCONT)  # one that was stopped would not end
            deadline = time.monotonic() + patience_seconds
            while leader.alive and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()

    def kill(self) -> list[ProcessId]:
        """Kill all of its processes; returns those that were hit."""
        hit = kill_server(self.data)
        self.reap()
        return hit

    def reap(self) -> None:
        """Wait for it where it has ended: until then it is a zombie, and its lock file looks held."""
        if self._process is not None and not self._process.id.alive:
            self._processes.wait(self._process)
            self._process = None

    def reload(self) -> None:
        """Have it read its settings again, where it runs."""
        leader = self.identity()
        if leader is not None:
            leader.signal(signal.SIGHUP)

    def write_settings(self, *, port: int, follows: str, waits_for: str, commit: str) -> None:
        """Write its settings file, in one step.

        :param port: that it listens on
        :param follows: where a standby gets its log from; empty for nowhere
        :param waits_for: name of the standby that its commits wait for; empty for none
        :param commit: what they wait for
        """
        settings = {
            **_SETTINGS,
            "port": str(port),
            "cluster_name": f"'{self.name}'",
            "primary_conninfo": f"'{follows}'",
            "synchronous_commit": commit,
            "synchronous_standby_names": f"'\"{waits_for}\"'" if waits_for else "''",
        }
        text = "".join(f"{key} = {value}\n" for key, value in settings.items())
        fresh = self.settings_file.with_suffix(".new")
        write_private(fresh, text, self._starting.account)
        fresh.replace(self.settings_file)
