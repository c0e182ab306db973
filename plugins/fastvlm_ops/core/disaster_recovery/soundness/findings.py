"""What checks of soundness find."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_NAMED = 50


@dataclass
class Soundness:
    """What was looked at, and what came of it.

    :param counts: how many of each kind are sound, as in ``packages`` or ``json``
    :param problems: what cannot be used, each with its path, for people
    :param unchecked: what could not be checked, and why: that is not passed
    :param evidence: small JSON, as counts of rows
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As small JSON."""
        return {
            "sound": dict(sorted(self.counts.items())),
            "problems": self.problems[:_NAMED],
            "unchecked": self.unchecked[:_NAMED],
            **self.evidence,
        }
