"""What can go wrong with faults."""

from __future__ import annotations


class FaultError(Exception):
    """A fault cannot be injected, taken back or looked at; the message says what, and what to do.

    :param message: for people
    :param retryable: whether it may pass by itself
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class EntryError(FaultError):
    """The entry of a fault cannot be read, or is not what it should be. What it may mean is never guessed."""
