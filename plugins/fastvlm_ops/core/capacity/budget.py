"""A limit to the processor time of a computation, so that one that hangs does not take others with it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class TimeSpentError(BaseException):
    """A computation has spent its time. Like Airflow's own time-out no Exception, which it might swallow."""


class ProcessorTime:
    """Ends what is inside by :class:`TimeSpentError`, once this process has spent so much time on it.

    What counts is the time in user mode (``SIGVTALRM``): another program that keeps the machine busy takes
    none of it, and Airflow's ``execution_timeout``, which uses ``SIGALRM``, stays as it is. Only Python code
    can be ended, between two of its steps, and only in the main thread: elsewhere nothing is limited.

    :param seconds: above 0
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._active = False
        self._handler: Any = None
        self._timer = (0.0, 0.0)

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
            return
        self._handler = signal.signal(signal.SIGVTALRM, self._end)
        self._active = True
        self._timer = signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._active:
            return
        self._active = False  # before all else: a signal that comes now ends nothing any more
        signal.setitimer(signal.ITIMER_VIRTUAL, *self._timer)
        signal.signal(signal.SIGVTALRM, self._handler or signal.SIG_DFL)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._active:
            raise TimeSpentError(f"not done after {self._seconds:g} s of the processor's time")
