"""Lines that say what is going on, for a terminal and for a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

_QUIET_SECONDS = 5.0


class Console:
    """Prints lines with the seconds since the start, and says what it waits for when it waits long.

    :param stream: that is written to
    """

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = self._spoke = time.monotonic()
        self._doing = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Console:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._ticker.join()
        with self._lock:
            self._erase()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """Print a line, and take it for what is going on now."""
        with self._lock:
            self._erase()
            self._print(line)
            self._doing, self._spoke = line, time.monotonic()

    def write(self, text: str) -> None:
        """Print text as it is."""
        with self._lock:
            self._erase()
            print(text, file=self._stream, flush=True)

    def _tick(self) -> None:
        while not self._stop.wait(0.5):
            with self._lock:
                waited = time.monotonic() - self._spoke
                if not self._doing:
                    continue
                if self._terminal:
                    line = f"[{self.seconds:6.1f} s]   … {waited:.0f} s"
                    print(f"\r\033[K{line}", end="", file=self._stream, flush=True)
                elif waited > _QUIET_SECONDS:
                    self._print(f"… {self._doing}")
                    self._spoke = time.monotonic()

    def _print(self, line: str) -> None:
        print(f"[{self.seconds:6.1f} s] {line}", file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=self._stream, flush=True)


def table(rows: list[tuple[str, ...]]) -> str:
    """Return rows as aligned text; the first is the head, and all columns but the first are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
