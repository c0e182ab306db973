"""What pictures of drills are made of: a scale of seconds, boxes, marks and colours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fastvlm_ops.core.disaster_recovery.reporting import words

WIDTH = 1040
LEFT, RIGHT = 128, 18
SECONDS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900),
    *(1800, 3600, 7200, 14_400, 28_800, 86_400),
)
"""Steps and ends of scales."""
_TICK_ROOM = 78
_LABEL_ROOM = 7.2  # of a character
#: Colour of a verdict: of the same classes as the badges of the pages.
TONES = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "warn", "ABORTED": "warn", "REFUSED": "neutral"}
STEP_TONES = {"passed": "good", "failed": "bad", "inconclusive": "warn", "aborted": "warn"}


def tone(verdict: str | None) -> str:
    """Return the colour of a verdict: ``good``, ``bad``, ``warn`` or ``neutral``."""
    return TONES.get(verdict or "", "neutral")


def step_tone(status: str) -> str:
    """Return the colour of the status of a step or of one of its checks."""
    return STEP_TONES.get(status, "neutral")


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Where seconds stand in a picture."""

    start: float
    end: float
    left: float = LEFT
    right: float = WIDTH - RIGHT

    def x(self, seconds: float) -> float:
        """Return where a moment stands; one that is outside stands at the edge."""
        share = (min(max(seconds, self.start), self.end) - self.start) / (self.end - self.start)
        return round(self.left + share * (self.right - self.left), 1)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Round seconds, none over another."""
        span, room = self.end - self.start, (self.right - self.left) / _TICK_ROOM
        step = next((step for step in SECONDS if span / step <= room), SECONDS[-1])
        first = math.ceil(self.start / step)
        return tuple(
            Tick(self.x(number * step), words.seconds(round(number * step, 6)))
            for number in range(first, math.floor(self.end / step) + 1)
        )


@dataclass(frozen=True)
class Box:
    """Something that lasts: from ``x`` for ``width``."""

    x: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True)
class Flag:
    """A moment that is marked, with its text above the picture.

    :param anchor: side of the text
    """

    x: float
    y: float
    kind: str
    text: str
    anchor: str = "start"


def place_flags(moments: Iterable[tuple[float, str, str]], right: float, y: float = 40.0) -> tuple[Flag, ...]:
    """Return marks whose texts do not cover each other.

    :param moments: where, kind and text
    :param right: edge of the picture
    :param y: of the lowest line of texts
    """
    flags: list[Flag] = []
    taken: list[tuple[float, float, float]] = []  # from, to, line
    for x, kind, text in sorted(moments):
        room = len(text) * _LABEL_ROOM + 10
        anchor = "end" if x + room > right else "start"
        low, high = (x - room, x) if anchor == "end" else (x, x + room)
        line = y
        while any(line == other and low < end and high > start for start, end, other in taken) and line > 12:
            line -= 14
        taken.append((low, high, line))
        flags.append(Flag(x, line, kind, text, anchor))
    return tuple(flags)


def nice_above(value: float) -> float:
    """Return seconds that a scale can end with, at least as many."""
    if value <= 0:
        return 1.0
    return next(
        (float(step) for step in SECONDS if step >= value),
        float(math.ceil(value / 86_400) * 86_400),
    )
