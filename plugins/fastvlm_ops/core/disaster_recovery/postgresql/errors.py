"""What can go wrong with a pair of databases; each message names the database and what would help."""

from __future__ import annotations


class DatabaseError(Exception):
    """A database did not answer, is not what it should be, or does not become so in time.

    :param message: for people
    :param retryable: whether it may pass by itself
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class SplitBrainError(DatabaseError):
    """There is, or would be, more than one primary: two histories, of which one is going to be lost."""
