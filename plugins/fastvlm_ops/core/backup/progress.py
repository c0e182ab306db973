"""Progress of a long run, throttled so that a log stays readable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

MIB = 1 << 20
GIB = 1 << 30


def format_bytes(size_bytes: int) -> str:
    """Bytes for people: ``1.5 MiB``."""
    if size_bytes >= GIB:
        return f"{size_bytes / GIB:.2f} GiB"
    if size_bytes >= MIB:
        return f"{size_bytes / MIB:.1f} MiB"
    if size_bytes >= 1024:
        return f"{size_bytes / 1024:.1f} KiB"
    return f"{size_bytes} B"


@dataclass(frozen=True)
class Progress:
    """One progress report. Sizes in bytes, ``elapsed_seconds`` since the start; ``files`` counts ``unit``."""

    action: str
    component: str
    elapsed_seconds: float
    files: int
    read_bytes: int
    transferred_bytes: int
    total_bytes: int | None = None
    unit: str = "files"

    def line(self) -> str:
        """The report as one line of a log."""
        done = format_bytes(self.read_bytes)
        if self.total_bytes:
            share = min(100.0, 100.0 * self.read_bytes / self.total_bytes)
            done = f"{done} of {format_bytes(self.total_bytes)} ({share:.0f} %)"
        return (
            f"{self.action} {self.component}: {self.files} {self.unit}, {done}, "
            f"{format_bytes(self.transferred_bytes)} transferred, {self.elapsed_seconds:.0f} s"
        )


ProgressCallback = Callable[[Progress], None]


class ProgressMeter:
    """Counts, and reports at most every ``interval_seconds``."""

    def __init__(
        self,
        action: str,
        component: str,
        callback: ProgressCallback | None,
        interval_seconds: float = 3.0,
        total_bytes: int | None = None,
        unit: str = "files",
    ) -> None:
        self.action = action
        self.component = component
        self.files = 0
        self.read_bytes = 0
        self.transferred_bytes = 0
        self.total_bytes = total_bytes
        self.unit = unit
        self._callback = callback
        self._interval = interval_seconds
        self._started = time.monotonic()
        self._reported = self._started
        self._lock = Lock()

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._started

    def add(self, *, files: int = 0, read_bytes: int = 0, transferred_bytes: int = 0) -> None:
        """Count; from any thread."""
        with self._lock:
            self.files += files
            self.read_bytes += read_bytes
            self.transferred_bytes += transferred_bytes
            if self._callback is None or time.monotonic() - self._reported < self._interval:
                return
            self._reported = time.monotonic()
        self.report()

    def report(self) -> None:
        """Report now, whatever the interval."""
        self._reported = time.monotonic()
        if self._callback is not None:
            self._callback(
                Progress(
                    self.action,
                    self.component,
                    self.elapsed_seconds,
                    self.files,
                    self.read_bytes,
                    self.transferred_bytes,
                    self.total_bytes,
                    self.unit,
                )
            )
