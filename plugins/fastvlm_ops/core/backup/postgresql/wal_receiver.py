"""The process that keeps receiving WAL: it looks after pg_receivewal, the spool and the uploader.

Nothing is lost when any of them, the server or S3 ends at any moment. What is not yet in a finished segment,
the replication slot keeps on the server; a finished one stays in the spool until the bucket has it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastvlm_ops.core.backup.errors import BackupError, DumpError, StorageError
from fastvlm_ops.core.backup.postgresql.address import libpq_environment
from fastvlm_ops.core.backup.postgresql.cluster import Cluster, identify
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.programs import Programs
from fastvlm_ops.core.backup.postgresql.wal_program import PROGRAM, ReceivingProgram
from fastvlm_ops.core.backup.postgresql.wal_server import ask_server, create_slot
from fastvlm_ops.core.backup.postgresql.wal_spool import OtherSystemError, Spool, System
from fastvlm_ops.core.backup.postgresql.wal_uploader import Uploader
from fastvlm_ops.core.backup.repository import Repository

if TYPE_CHECKING:
    from sqlalchemy import URL

# Where to begin in an empty spool: behind the newest segment in the bucket, where the slot is, or the server.
Beginning = Literal["newest", "slot", "server"]

_LOOK_SECONDS = 0.2
_STATUS_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 30.0  # that pg_receivewal ran, for its next end to be a new trouble
_STOP_SECONDS = 5.0
_ONCE_SECONDS = 600.0  # without a finished segment
_ONCE_FAILURES = 3
_LEAST_SEGMENTS = 4
_REMINDER_SECONDS = 60.0
# What the server says when it cannot go on from where the spool ends.
_POSITION_LOST = ("has already been removed", "is not in this server's history")


@dataclass(frozen=True)
class ReceiverSettings:
    """What a receiver works with.

    :param component: whose WAL it is
    :param url: address of the cluster; its user needs REPLICATION
    :param slot: replication slot, made where absent, never removed
    :param spool_folder: for segments that wait, on a disk that outlives a crash
    :param spool_limit_bytes: of segments that wait, above which no more are received, so that the server
        keeps them
    :param programs: of PostgreSQL
    """

    component: str
    url: URL
    slot: str
    spool_folder: Path
    spool_limit_bytes: int
    programs: Programs


class WalReceiver:
    """Receives one component's WAL.

    :param settings: what it works with
    :param open_repository: opens the repository, each time as the connection says then
    :param tell: takes a line of the log
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        open_repository: Callable[[], Repository],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.spool = Spool(settings.spool_folder)
        self._tell = tell
        self._uploader = Uploader(self.spool, settings.component, open_repository, tell)
        self._environment = libpq_environment(settings.url)
        self._child: ReceivingProgram | None = None
        self._started_at = 0.0
        self._next_start = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._trouble: str | None = None
        self._is_paused = False
        self._is_stopping = False
        self._beginning: Beginning = "newest"
        self._began: Beginning = self._beginning  # where the running program did
        self._status_due = 0.0
        self._remind_due = 0.0
        self._timeline: int | None = None

    def stop(self) -> None:
        """Ask it to end, as from the handler of a signal."""
        self._is_stopping = True

    def run(self, *, once: bool = False) -> None:
        """Receive until it is asked to stop; or what there is, and end when that is stored.

        To be called in the main thread.

        :raises SpoolBusyError: another receiver uses the spool
        :raises OtherSystemError: the spool is another cluster's
        :raises CorruptionError: the bucket has other WAL under a name, or a file of the spool is not WAL
        :raises DumpError: with ``once``: the server does not answer
        :raises StorageError: with ``once``: S3 does not
        """
        with self.spool.locked() as lock:
            self._uploader.start()
            state = "stopped"
            try:
                if once:
                    self._receive_once(lock)
                else:
                    self._supervise(lock)
            except BackupError as error:
                state, self._trouble = "refused", str(error)
                raise
            finally:
                self._end_child()
                self._uploader.stop(_STOP_SECONDS)
                self._write_status(state)

    # -- for ever ----------------------------------------------------------------------------------

    def _supervise(self, lock: int) -> None:
        while not self._is_stopping:
            if self._uploader.refusal is not None:
                raise self._uploader.refusal
            self._look_at_spool()
            self._look_at_child()
            if self._child is None and not self._is_paused and time.monotonic() >= self._next_start:
                self._try_to_start(lock)
            self._write_status_in_time()
            time.sleep(_LOOK_SECONDS)

    def _look_at_spool(self) -> None:
        """Receive no more while too much waits; go on when half of it is stored."""
        waiting = self._waiting_bytes()
        if self._is_paused and waiting <= self._limit_bytes() // 2:
            self._is_paused = False
            self._tell("the spool has room again: receiving goes on")
        elif not self._is_paused and waiting >= self._limit_bytes():
            self._is_paused = True
            self._end_child()
            self._remind_due = 0.0
        if self._is_paused and time.monotonic() >= self._remind_due:
            self._remind_due = time.monotonic() + _REMINDER_SECONDS
            self._tell(
                f"RECEIVING IS STOPPED: {waiting >> 20} MiB of WAL wait in {self.spool.folder}, as much as"
                f" wal_spool_max_gib allows. The slot {self.settings.slot!r} keeps WAL on the server, whose"
                f" disk fills. Mend why nothing is stored: {self._uploader.trouble or 'it is slow'}"
            )

    def _look_at_child(self) -> None:
        if self._child is None or self._child.ended() is None:
            return
        said = self._child.said
        if time.monotonic() - self._started_at > _STEADY_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._child = None
        self._failed(f"{PROGRAM} ended: {said}")
        if any(sign in said for sign in _POSITION_LOST):
            self._give_position_up()

    def _give_position_up(self) -> None:
        """Go on from wherever the server can: what is missing is missing, and backup_wal names the gap."""
        if self._uploader.trouble is not None or self.spool.pending().segments:
            return  # everything that was received is stored first
        self._tell(
            "THE SERVER CANNOT GO ON from the newest stored segment; receiving begins where the slot or the"
            " server is now. WAL is missing in between: see backup_wal, and run backup_full for a base backup"
        )
        self.spool.forget_position()
        # A program that asked for what is gone may have told the server that it has all before that: then the
        # slot is there too.
        self._beginning = "slot" if self._began == "newest" else "server"

    def _try_to_start(self, lock: int) -> None:
        try:
            self._start(lock)
        except OtherSystemError:
            raise
        except BackupError as error:
            self._failed(str(error))

    def _failed(self, why: str) -> None:
        if why != self._trouble:
            self._tell(f"no WAL is received: {why}")
        self._trouble = why
        self._next_start = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    # -- once --------------------------------------------------------------------------------------

    def _receive_once(self, lock: int) -> None:
        deadline, stored, failures = time.monotonic() + _ONCE_SECONDS, self._uploader.stored, 0
        segment_bytes: int | None = None  # until it has begun
        while not self._is_stopping:
            if self._uploader.refusal is not None:
                raise self._uploader.refusal
            if self._uploader.trouble is not None and self._uploader.failures >= _ONCE_FAILURES:
                raise StorageError(f"WAL waits in {self.spool.folder}: {self._uploader.trouble}")
            if self._uploader.stored > stored:
                deadline, stored = time.monotonic() + _ONCE_SECONDS, self._uploader.stored
            if time.monotonic() > deadline:
                raise DumpError(f"no segment was finished and stored for {_ONCE_SECONDS:.0f} s")
            try:
                if segment_bytes is None:
                    segment_bytes = self._start(lock, to_the_end=True).segment_bytes
                if self._has_ended() and not self.spool.finished(segment_bytes):
                    return
            except (DumpError, StorageError) as error:
                failures, segment_bytes = failures + 1, None
                if failures >= _ONCE_FAILURES or not error.retryable:
                    raise
                self._failed(str(error))
                time.sleep(_FIRST_PAUSE_SECONDS)
            self._write_status_in_time()
            time.sleep(_LOOK_SECONDS)

    def _has_ended(self) -> bool:
        if self._child is not None and (code := self._child.ended()) is not None:
            said, self._child = self._child.said, None
            if code:
                raise DumpError(f"{PROGRAM} ended with status {code}: {said}")
        return self._child is None

    # -- both --------------------------------------------------------------------------------------

    def _start(self, lock: int, *, to_the_end: bool = False) -> Cluster:
        cluster = identify(self.settings.url)
        system = System(cluster.system_id, cluster.segment_bytes)
        self.spool.claim(system)
        create_slot(self.settings.url, self.settings.slot)
        if self.spool.is_empty and self._beginning == "newest":
            self._find_position(system, cluster.timeline)
        elif self.spool.is_empty and self._beginning == "server":
            self.spool.begin_at(Segment.of(cluster.timeline, cluster.current_lsn, system.segment_bytes))
        # It ends once it is past the LSN it is given.
        end = cluster.current_lsn - 1 if to_the_end else None
        self._child = ReceivingProgram(
            self.settings.programs,
            folder=self.spool.segments_folder,
            slot=self.settings.slot,
            environment=self._environment,
            lock=lock,
            until_lsn=end,
            tell=self._tell,
        )
        self._started_at, self._timeline = time.monotonic(), cluster.timeline
        self._began, self._beginning = self._beginning, "newest"
        return cluster

    def _find_position(self, system: System, timeline: int) -> None:
        """Where to begin in an empty spool: else PostgreSQL 14 would begin where it is now."""
        seed = self._uploader.seed(system)
        self._tell(f"the newest segment in the bucket is {seed.name if seed else 'none'}")
        slot = None if seed else ask_server(self.settings.url, self.settings.slot).slot
        if slot is not None and slot.restart_lsn is not None:
            self.spool.begin_at(Segment.of(timeline, slot.restart_lsn, system.segment_bytes))

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _limit_bytes(self) -> int:
        system = self.spool.system()
        least = _LEAST_SEGMENTS * (system.segment_bytes if system else 0)
        return max(self.settings.spool_limit_bytes, least)

    def _waiting_bytes(self) -> int:
        system = self.spool.system()
        return self.spool.pending().segments * system.segment_bytes if system else 0

    def _write_status_in_time(self) -> None:
        if time.monotonic() >= self._status_due:
            state = "waiting" if self._child is None else "receiving"
            self._write_status("spool full" if self._is_paused else state)

    def _write_status(self, state: str) -> None:
        self._status_due = time.monotonic() + _STATUS_SECONDS
        if self._child is not None and time.monotonic() - self._started_at > _STATUS_SECONDS:
            self._trouble = None
        try:
            self.spool.write_status(self._status(state))
        except OSError as error:  # a full disk must not end what is to empty it
            self._tell(f"{self.spool.status_file} cannot be written: {error.strerror}")

    def _status(self, state: str) -> dict[str, Any]:
        system, pending, uploader = self.spool.system(), self.spool.pending(), self._uploader
        return {
            "component": self.settings.component,
            "state": state,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid": os.getpid(),
            "pg_receivewal_pid": None if self._child is None else self._child.pid,
            "slot": self.settings.slot,
            "system_id": None if system is None else system.system_id,
            "timeline": self._timeline,
            "waiting_segments": pending.segments,
            "spool_bytes": pending.size_bytes,
            "spool_limit_bytes": self._limit_bytes(),
            "last_stored": uploader.last_name,
            "last_stored_at": None if uploader.last_at is None else uploader.last_at.isoformat(),
            "receiving_trouble": self._trouble,
            "storing_trouble": uploader.trouble,
        }
