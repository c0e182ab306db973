"""The reaper as a process that always runs: looks twice a second, and keeps rows and metrics in step.

The database is looked after beside the faults, never before them: one that does not answer must not make a
fault last longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from fastvlm_ops.core.disaster_recovery.fault_entries import entry_files, make_folder, read_entry
from fastvlm_ops.core.disaster_recovery.fault_rows import remove_old_entries, sync_entries
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError
from fastvlm_ops.core.disaster_recovery.reaper import ReapResult, is_overdue, reap
from fastvlm_ops.core.store.engine import Store

METRICS_FILE = "fastvlm_drill_faults.prom"
_PASS_SECONDS = 0.5
_GRACE_SECONDS = 1.0
_SYNC_SECONDS = 2.0
_SYNC_AGAIN_SECONDS = 15.0
_METRICS_SECONDS = 5.0
_SAY_AGAIN_SECONDS = 60.0

#: Takes an event and its facts.
Say = Callable[..., None]


class ReaperBusyError(Exception):
    """Another reaper looks after this folder."""


@dataclass
class Reaping:
    """Takes back the faults of this machine, until it is told to stop.

    :param drill_dir: of this machine
    :param open_store: opens the operations database; None where rows are not kept
    :param metrics_dir: what the node exporter reads; None for no metrics
    :param say: takes an event and its facts, for the log
    """

    drill_dir: Path
    open_store: Callable[[], Store] | None
    metrics_dir: Path | None
    say: Say
    stopping: threading.Event = field(default_factory=threading.Event)
    _said: dict[str, tuple[str, float]] = field(default_factory=dict)
    _metrics_at: float = 0.0

    def run(self) -> None:
        """Look until :attr:`stopping` is set.

        :raises ReaperBusyError: another one does
        :raises EntryError: the folder cannot be used
        """
        with self._alone():
            self.say("started", drill_dir=str(self.drill_dir))
            rows = threading.Thread(target=self._keep_rows, daemon=True)
            rows.start()
            while not self.stopping.is_set():
                self.look()
                self.stopping.wait(_PASS_SECONDS)
            rows.join(_SYNC_SECONDS)
            self.say("stopped")

    def once(self) -> bool:
        """Look once, and bring the rows up to date; returns whether nothing is left that should not be.

        :raises ReaperBusyError: another one does so all the time
        :raises EntryError: the folder cannot be used
        """
        with self._alone():
            results = self.look()
            return self._sync() and all(result.ok for result in results)

    def look(self) -> list[ReapResult]:
        """Take back what is over, and say so; what stays as it is is said once a minute."""
        try:
            results = reap(self.drill_dir, grace_seconds=_GRACE_SECONDS)
        except Exception as error:
            # Of whatever kind: it has to look again.
            self._say_once("", "trouble", problem=f"{type(error).__name__}: {error}")
            return [ReapResult("", "left", str(error))]
        for result in results:
            self._say_once(result.fault_id, result.outcome, fault_id=result.fault_id, detail=result.detail)
        if self.metrics_dir is not None and (results or time.monotonic() > self._metrics_at):
            self._write_metrics(self.metrics_dir, results)
        return results

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        make_folder(self.drill_dir)
        path = self.drill_dir / "reaper.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ReaperBusyError(
                    f"another reaper looks after {self.drill_dir} ({path} is locked)"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def _keep_rows(self) -> None:
        while not self.stopping.is_set():
            self.stopping.wait(_SYNC_SECONDS if self._sync() else _SYNC_AGAIN_SECONDS)

    def _sync(self) -> bool:
        if self.open_store is None:
            return True
        try:
            with self.open_store() as store:
                changed = sync_entries(store, self.drill_dir)
                removed = remove_old_entries(store, self.drill_dir)
        except Exception as error:
            # Of whatever kind: Airflow's, the driver's, or the store's. The faults do not wait for it.
            self._say_once("rows", "rows_late", problem=f"{type(error).__name__}: {error}")
            return False
        if changed:
            self.say("rows_written", count=changed)
        if removed:
            self.say("entries_removed", count=removed)
        return True

    def _say_once(self, about: str, event: str, **facts: Any) -> None:
        now = time.monotonic()
        what = f"{event} {facts}"
        before, at = self._said.get(about, ("", 0.0))
        if what != before or now - at > _SAY_AGAIN_SECONDS:
            self._said[about] = (what, now)
            self.say(event, **facts)

    def _write_metrics(self, folder: Path, results: Sequence[ReapResult]) -> None:
        self._metrics_at = time.monotonic() + _METRICS_SECONDS
        held = overdue = 0
        for file in entry_files(self.drill_dir):
            with contextlib.suppress(EntryError):
                entry = read_entry(file)
                held += entry.state in {"injecting", "injected"}
                overdue += is_overdue(entry, _GRACE_SECONDS)
        registry = CollectorRegistry(auto_describe=False)
        unreadable = sum(result.outcome == "unreadable" for result in results)
        figures = {
            "fastvlm_drill_faults_held": ("Faults of drills that are there, or may be.", held),
            "fastvlm_drill_faults_overdue": ("Those that are there longer than they may be.", overdue),
            "fastvlm_drill_fault_entries_unreadable": ("Entries of faults that cannot be read.", unreadable),
            "fastvlm_drill_reaper_timestamp_seconds": ("When the reaper last looked.", time.time()),
        }
        for name, (text, value) in figures.items():
            Gauge(name, text, registry=registry).set(value)
        try:
            write_to_textfile(str(folder / METRICS_FILE), registry)
        except OSError as error:
            self._say_once("metrics", "metrics_not_written", problem=str(error))
