"""One process that the supervisor keeps running."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_ops.core.programs.proc import ProcessId, session_members
from fastvlm_ops.core.services.instances import Role
from fastvlm_ops.local.processes import Process, Processes

_PATIENCE_SECONDS = 5.0
_KILL_SECONDS = 10.0
#: One that ran for so long is not starting over and over.
_SETTLED_SECONDS = 10.0
_LONGEST_DELAY_SECONDS = 10.0

log = logging.getLogger("fastvlm_ops.supervisor")


class StillRunsError(Exception):
    """A process could not be stopped."""


@dataclass(frozen=True)
class Part:
    """What a supervised process is.

    :param name: of the instance
    :param role: of it
    :param address: host and port that it listens on; None for a process without one
    :param arguments: program and arguments
    :param environment: all of it
    """

    name: str
    role: Role
    address: str | None
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)


class Supervised:
    """Keeps one process running, unless it was told to stop it.

    :param part: what it is
    :param processes: that start and record it
    :param log_file: of its output
    :param delay_seconds: before one that died is started again
    :param prepare: called before each start
    """

    def __init__(
        self,
        part: Part,
        processes: Processes,
        log_file: Path,
        delay_seconds: float,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.part = part
        self.wanted = True
        self.lock = asyncio.Lock()
        self._processes = processes
        self._log_file = log_file
        self._delay_seconds = delay_seconds
        self._prepare = prepare
        self._process: Process | None = None
        #: When it was started, or taken over, on the machine's monotonic clock.
        self.began = 0.0
        self._died: float | None = None
        self._next_delay = delay_seconds / 2

    @property
    def identity(self) -> ProcessId | None:
        """The process; None while it does not run."""
        if self._process is None or not self._process.id.alive:
            return None
        return self._process.id

    def adopt(self, identity: ProcessId | None) -> None:
        """Take over a process that an earlier supervisor started.

        :param identity: of it; None where it did not run
        """
        if identity is not None:
            self._process = Process(self.part.name, identity, self._log_file)
            self.began = time.monotonic()

    def start(self) -> None:
        """Start it, unless it runs."""
        self.wanted = True
        if self.identity is not None:
            return
        self._prepare()
        self._process = self._processes.start(
            self.part.name,
            list(self.part.arguments),
            environment=self.part.environment,
            log=self._log_file,
        )
        self.began, self._died = time.monotonic(), None
        log.info("started", extra={"instance": self.part.name, "pid": self._process.id.pid})

    def watch(self) -> None:
        """Start it again, some time after it died."""
        if not self.wanted or self.lock.locked() or self.identity is not None:
            return
        now = time.monotonic()
        if self._died is None:
            self._died = now
            settled = now - self.began > _SETTLED_SECONDS
            longer = min(2 * self._next_delay, _LONGEST_DELAY_SECONDS)
            self._next_delay = self._delay_seconds if settled or not self.began else longer
            log.warning("died", extra={"instance": self.part.name, "starts_in_seconds": self._next_delay})
        if now - self._died >= self._next_delay:
            self.start()

    async def stop(self) -> None:
        """Stop it, and do not start it again. One that hangs is killed, with its whole session;
        so is what it started and left behind.

        :raises StillRunsError: it cannot be killed
        """
        self.wanted = False
        if (leader := self.identity) is None:
            return
        members = list(session_members(leader))
        leader.signal(signal.SIGTERM)
        if not await _gone(members, 0 if leader.stopped else _PATIENCE_SECONDS):
            for member in members:
                member.signal(signal.SIGKILL)
        if not await _gone(members, _KILL_SECONDS):
            raise StillRunsError(f"{self.part.name} cannot be stopped: process {leader.pid} stays")
        self._processes.reap()


async def _gone(processes: Sequence[ProcessId], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(process.alive for process in processes):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
