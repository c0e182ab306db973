"""What can go wrong with faults."""

from __future__ import annotations

from fastvlm_ops.core.disaster_recovery.errors import DrillError


class FaultError(DrillError):
    """A fault cannot be injected, taken back or looked at; the message says what, and what to do."""


class EntryError(FaultError):
    """The entry of a fault cannot be read, or is not what it should be. What it may mean is never guessed."""
