"""What keeps a drill from going on. Each message names what, and the remedy."""

from __future__ import annotations


class DrillError(Exception):
    """A drill cannot go on.

    :param message: for people
    :param retryable: whether it may pass by itself
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class DrillRefusedError(DrillError):
    """A guard does not hold: nothing may be broken."""


class DrillAbortedError(DrillError):
    """A drill has to be broken off: what is broken is taken back, and it is not told whether it recovers."""


class InconclusiveError(DrillError):
    """Something that has to be known could not be found out: neither passed nor failed."""
