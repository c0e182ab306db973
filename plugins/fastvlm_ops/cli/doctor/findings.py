"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing stands. What could not be tried is unknown, never ok."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    :param check: its name
    :param state: how it stands
    :param found: what was found, in a sentence
    :param remedy: what to do; empty where all is well
    """

    check: str
    state: State
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """As JSON has it."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, State.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """It works, but not as one would wish."""
    return Finding(check, State.WARNING, found, remedy)


def failed(check: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, State.FAILED, found, remedy)


def not_tried(check: str, needs: str) -> Finding:
    """It could not be tried, since something else failed.

    :param needs: the check that has to be ok first
    """
    return Finding(check, State.UNKNOWN, f"not tried: {needs} comes first", f"mend {needs}, then try again")
