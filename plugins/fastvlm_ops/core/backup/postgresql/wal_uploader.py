"""Finished segments from the spool into the bucket, in order, by a thread of their own.

A request to a server that is away takes minutes to fail; meanwhile the receiver has to look after its child.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastvlm_ops.core.backup.errors import BackupError, CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.wal_names import History, WalListing
from fastvlm_ops.core.backup.postgresql.wal_spool import Spool, System
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.repository import Repository

_LOOK_SECONDS = 0.3
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_REOPEN_SECONDS = 3600.0  # so that a new key epoch is used within the hour


class Uploader:
    """Stores what is finished, again and again until it is stopped.

    ``trouble`` is what keeps it from storing at the moment; ``refusal`` what a person has to look at, after
    which it has ended: the bucket or the spool holds other WAL than this.

    :param spool: held by the receiver
    :param component: whose WAL it is
    :param open_repository: opens the repository
    :param tell: takes a line of the log
    """

    def __init__(
        self,
        spool: Spool,
        component: str,
        open_repository: Callable[[], Repository],
        tell: Callable[[str], None],
    ) -> None:
        self.trouble: str | None = None
        self.refusal: BackupError | None = None
        self.failures = 0
        self.stored = 0
        self.last_name: str | None = None
        self.last_at: datetime | None = None
        self._spool = spool
        self._component = component
        self._open_repository = open_repository
        self._tell = tell
        self._store: WalStore | None = None
        self._opened = 0.0
        self._opening = threading.Lock()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wal-uploader", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, patience_seconds: float) -> None:
        """End it after the file that it is at; what it does not get to stays in the spool."""
        self._is_stopping.set()
        self._thread.join(patience_seconds)

    def seed(self, system: System) -> Segment | None:
        """Fetch the newest stored segment into an empty spool, so that pg_receivewal goes on after it.

        :returns: which one; None where the bucket has none
        :raises BackupError: the bucket cannot be read
        """
        store = self._opened_store()
        listing = store.systems().get(system.system_id, WalListing())
        stored = [item.segment for item in listing.parsed(system.segment_bytes)]
        if not stored:
            return None
        newest = max(stored)
        store.fetch(newest, system.system_id, self._spool.segments_folder)
        self._spool.mark_stored(newest, system.segment_bytes)
        return newest

    def _opened_store(self) -> WalStore:
        with self._opening:
            if self._store is None or time.monotonic() - self._opened > _REOPEN_SECONDS:
                self._store = WalStore(self._open_repository(), self._component)
                self._opened = time.monotonic()
            return self._store

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._is_stopping.wait(_LOOK_SECONDS):
            try:
                self._store_finished()
                pause, self.failures = _FIRST_PAUSE_SECONDS, 0
            except CorruptionError as error:
                self.refusal = error
                return
            except Exception as error:  # whatever it is, the segments stay and are tried again
                self._note(error)
                self._is_stopping.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self._store = None
        text = str(error) if isinstance(error, BackupError) else repr(error)
        if text != self.trouble:
            self._tell(f"WAL cannot be stored, and waits in {self._spool.folder}: {text}")
        self.trouble = text

    def _store_finished(self) -> None:
        system = self._spool.system()
        if system is None:
            return
        for item in self._spool.finished(system.segment_bytes):
            if self._is_stopping.is_set():
                return
            self._store_one(item, system)
        if self.trouble is not None:
            self._tell("WAL is stored again")
            self.trouble = None

    def _store_one(self, item: Segment | History, system: System) -> None:
        closed_at = self._spool.flush(item)
        store, path = self._opened_store(), self._spool.path(item)
        if isinstance(item, History):
            is_new = store.put_history(path, system_id=system.system_id, timeline=item.timeline)
        else:
            is_new = store.put_segment(path, system_id=system.system_id, segment=item, closed_at=closed_at)
        self._spool.mark_stored(item, system.segment_bytes)
        self.stored += 1
        self.last_name, self.last_at = item.name, datetime.now(UTC)
        self._tell(f"{item.name} {'is stored' if is_new else 'was stored already'}")
