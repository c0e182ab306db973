"""The demo's state folder: whose it is, what runs there, and how it is cleared. Standard library only."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastvlm_ops.core.programs.proc import ProcessId, process_id
from fastvlm_ops.local.processes import Processes

DEFAULT = Path(".demo")
_SIGN = "made-by-fastvlm-ops-demo"
_KEPT = {_SIGN, "lock"}


class StateError(Exception):
    """The state folder cannot be used."""


class DemoState:
    """A folder below which the demo keeps everything.

    :param folder: which need not exist
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.processes = Processes(self.folder)

    @property
    def kit(self) -> Path:
        """The demo kit."""
        return self.folder / "kit"

    @property
    def restored(self) -> Path:
        """The folder below which restores write."""
        return self.folder / "restored"

    @property
    def logs(self) -> Path:
        """The output of all processes."""
        return self.folder / "logs"

    @property
    def scratch(self) -> Path:
        """The temporary folder of all that the demo starts."""
        return self.folder / "tmp"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder where absent, and hold it: one process at a time works on it.

        :raises StateError: another one does, or the folder holds what the demo did not put there
        """
        sign = self.folder / _SIGN
        if self.folder.exists() and not sign.exists() and any(self.folder.iterdir()):
            raise StateError(
                f"{self.folder} is not empty and was not made by the demo; choose another folder"
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sign.touch()
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"another `make demo` or `make down` is at work in {self.folder}; `make down` stops it"
                ) from None
            yield

    def clear(self) -> None:
        """Remove everything in the folder. What is running must have been stopped."""
        for path in self.folder.iterdir():
            if path.name in _KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def note_driver(self) -> None:
        """Record this process as the one that `make down` stops first."""
        me = process_id(os.getpid())
        self.processes.note(driver=asdict(me) if me else None)

    def running(self) -> dict[str, Any] | None:
        """Return what a demo that is up noted when it was ready; None where none is, or not all of it."""
        facts: dict[str, Any] | None = self.processes.read().get("ready")
        if facts is None:
            return None
        leaders = {process.name: process for process in self.processes.recorded()}
        if all(name in leaders and leaders[name].id.alive for name in facts["services"]):
            return facts
        return None

    def stop(self, *, patience_seconds: float = 3) -> list[ProcessId]:
        """Stop the process that is starting a demo, if there is one, and all that was started.

        :param patience_seconds: between SIGTERM and SIGKILL
        :returns: those that could not be stopped
        """
        self._stop_driver()
        outside = self.processes.outside()
        left = self.processes.stop(patience_seconds=patience_seconds)
        for folder in outside if not left else ():
            shutil.rmtree(folder, ignore_errors=True)
        return left

    def _stop_driver(self) -> None:
        record = self.processes.read().get("driver")
        driver = ProcessId(**record) if record else None
        if driver is None or driver.pid == os.getpid() or not driver.signal(signal.SIGTERM):
            return
        # It may be within a call that does not see the signal at once.
        deadline = time.monotonic() + 5
        while driver.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.signal(signal.SIGKILL)
        while driver.alive:
            time.sleep(0.02)
