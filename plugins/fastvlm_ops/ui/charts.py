"""Charts as numbers a template draws as SVG: bars over time, in units of the drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 4, 10, 20
_GAP = 0.25  # of a bar's place
_WIDEST = 22.0
_BYTES_STEP, _SECONDS_STEPS = 1024, (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Point:
    """One figure of a chart.

    :param label: what it is about, as in a backup's id
    :param at: when it was
    :param value: None where it is unknown: no bar is drawn, but a mark
    :param kind: what colour it gets
    :param address: where a click leads
    """

    label: str
    at: datetime
    value: float | None
    kind: str
    address: str


@dataclass(frozen=True)
class Bar:
    """A drawn point; ``height`` is 0 where its value is."""

    point: Point
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A line across the chart, and what it stands for."""

    y: float
    value: float


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn.

    :param name: unique on its page
    :param title: what is drawn
    :param write: writes a value for people
    """

    name: str
    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    write: Callable[[float | None], str]

    width, height, left, right = WIDTH, HEIGHT, _LEFT, WIDTH - _RIGHT
    base = HEIGHT - _BOTTOM

    @property
    def summary(self) -> str:
        """One sentence for those who do not see it."""
        known = [bar.point.value for bar in self.bars if bar.point.value is not None]
        if not known:
            return f"{self.title}: nothing is known."
        first, last = self.bars[0].point.at, self.bars[-1].point.at
        return (
            f"{self.title} of {len(self.bars)} backups from {first:%Y-%m-%d} to {last:%Y-%m-%d}: lowest"
            f" {self.write(min(known))}, highest {self.write(max(known))}, last"
            f" {self.write(self.bars[-1].point.value)}."
        )


def bar_chart(
    name: str,
    title: str,
    points: Sequence[Point],
    write: Callable[[float | None], str],
    top: Callable[[float], float],
) -> Chart:
    """Lay bars out, side by side in the order of the points.

    :param points: oldest first
    :param write: writes a value for people
    :param top: the scale's end for the greatest value: :func:`bytes_top` or :func:`seconds_top`
    """
    greatest = max((point.value for point in points if point.value is not None), default=0.0)
    end = top(greatest)
    base, room = HEIGHT - _BOTTOM, HEIGHT - _BOTTOM - _TOP
    place = (WIDTH - _LEFT - _RIGHT) / max(len(points), 1)
    width = min(place * (1 - _GAP), _WIDEST)
    bars = []
    for position, point in enumerate(points):
        height = 0.0 if point.value is None else point.value / end * room
        if point.value and height < 1:
            height = 1.0  # little is not nothing
        x = _LEFT + place * (position + 0.5) - width / 2
        bars.append(Bar(point, round(x, 2), round(base - height, 2), round(width, 2), round(height, 2)))
    ticks = tuple(Tick(base - room * share, end * share) for share in (0.0, 0.5, 1.0))
    return Chart(name, title, tuple(bars), ticks, write)


def bytes_top(greatest: float) -> float:
    """Return the end of a scale in bytes: 2, 5, 10, 20 … of the greatest unit that fits."""
    unit = 1.0
    while greatest >= unit * _BYTES_STEP:
        unit *= _BYTES_STEP
    amount = max(greatest / unit, 1.0)
    power = 10 ** math.floor(math.log10(amount))
    return unit * next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= amount)


def seconds_top(greatest: float) -> float:
    """Return the end of a scale in seconds: the next customary duration."""
    day = 86400.0
    return next((float(step) for step in _SECONDS_STEPS if step >= greatest), math.ceil(greatest / day) * day)
