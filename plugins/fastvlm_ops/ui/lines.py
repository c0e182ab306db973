"""Pictures of values over days, as numbers a template draws as SVG: lines, areas, dots, limits and dates.

Where a day is asked for, a moment (aware) stands where it is within its day.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastvlm_ops.ui.charts import Tick

WIDTH, NARROW, HEIGHT = 960, 580, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 36, 26
_LABEL_WIDTH, _MARK_WIDTH = 130, 120
_LABEL_HEIGHT = 15.0
_TICK_WIDTH = 75
_DAY_STEPS = (1, 2, 7, 14, 28, 56, 91, 182, 364)
_CROWDED = 2.5
"""A limit this many times above all that is drawn would press it flat: it is only mentioned."""

_DAY = timedelta(days=1)

Write = Callable[[float | None], str]


@dataclass(frozen=True)
class Curve:
    """Values over days, drawn as a line. None where a value is not known: the line has a gap.

    :param kind: what it looks like: the name of a class
    :param title: in the legend
    :param longest: between two values that a line joins
    """

    kind: str
    title: str
    days: Sequence[date]
    values: Sequence[float | None]
    longest: timedelta = _DAY


@dataclass(frozen=True)
class Area:
    """What lies between two values over days."""

    kind: str
    title: str
    days: Sequence[date]
    lower: Sequence[float | None]
    upper: Sequence[float | None]
    longest: timedelta = _DAY


@dataclass(frozen=True)
class Cloud:
    """Many values, each a small dot. What is above or below the scale stands at its end."""

    kind: str
    title: str
    days: Sequence[date]
    values: Sequence[float]


@dataclass(frozen=True)
class Spot:
    """One value that is marked, and says what it is where a pointer rests on it.

    :param title: in the legend
    :param value: None where there is none: it stands at the foot of the picture
    :param text: what it is
    """

    kind: str
    title: str
    day: date
    value: float | None
    text: str


@dataclass(frozen=True)
class Limit:
    """A value that holds for all days, drawn as a line across."""

    kind: str
    title: str
    value: float | None


@dataclass(frozen=True)
class Event:
    """A day that is marked.

    :param at_foot: whether its text stands at the foot of the picture, and not above it
    """

    kind: str
    title: str
    day: date
    at_foot: bool = False


@dataclass(frozen=True)
class Shape:
    """A drawn line, area or cloud of dots: ``path`` is SVG's."""

    kind: str
    title: str
    path: str


@dataclass(frozen=True)
class Rule:
    """A drawn limit. ``y`` is None where it is above the picture, and only written."""

    limit: Limit
    y: float | None
    label_y: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A drawn day; ``anchor`` is the side of its text, ``text_y`` its height."""

    event: Event
    x: float
    anchor: str
    text_y: float


@dataclass(frozen=True)
class Dot:
    """A drawn spot."""

    spot: Spot
    x: float
    y: float


@dataclass(frozen=True)
class DayTick:
    """A day below the picture."""

    x: float
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture, ready to be drawn.

    :param name: unique on its page
    :param summary: for those who do not see it
    """

    name: str
    title: str
    summary: str
    areas: tuple[Shape, ...]
    lines: tuple[Shape, ...]
    clouds: tuple[Shape, ...]
    dots: tuple[Dot, ...]
    rules: tuple[Rule, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    days: tuple[DayTick, ...]
    write: Write
    width: int
    right: int

    height, left, top, base = HEIGHT, _LEFT, _TOP, HEIGHT - _BOTTOM

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Shape, kind and title of all that a colour stands for, each once."""
        drawn = (("area", self.areas), ("cloud", self.clouds), ("line", self.lines))
        entries = [(name, shape.kind, shape.title) for name, shapes in drawn for shape in shapes]
        entries += [("dot", dot.spot.kind, dot.spot.title) for dot in self.dots]
        entries += [("rule", rule.limit.kind, rule.limit.title) for rule in self.rules]
        return list(dict.fromkeys(entries))


def draw(
    name: str,
    title: str,
    *,
    summary: str,
    write: Write,
    areas: Sequence[Area] = (),
    curves: Sequence[Curve] = (),
    clouds: Sequence[Cloud] = (),
    spots: Sequence[Spot] = (),
    limits: Sequence[Limit] = (),
    events: Sequence[Event] = (),
    scale: tuple[float, float] | None = None,
    width: int = WIDTH,
) -> Picture:
    """Lay out a picture.

    :param name: unique on its page
    :param summary: for those who do not see it
    :param write: writes a value for people
    :param scale: its lowest and highest value; None: from zero to just above the greatest
    :param width: of the drawing
    """
    series = [*(one.days for one in areas), *(one.days for one in curves), *(one.days for one in clouds)]
    single = [*(spot.day for spot in spots), *(event.day for event in events)]
    days = [_day(day) for some in (*series, single) for day in some]
    first = min(days, default=datetime.now(UTC).date())
    last = max(days, default=first) + _DAY
    known = [limit for limit in limits if limit.value is not None and math.isfinite(limit.value)]
    low, high = scale or (0.0, _top(_greatest(areas, curves), [limit.value or 0.0 for limit in known]))
    right = width - _RIGHT - (_LABEL_WIDTH if known else 0)
    place = _Place(first, last, low, high, right)
    return Picture(
        name=name,
        title=title,
        summary=summary,
        areas=tuple(Shape(one.kind, one.title, _area_path(one, place)) for one in areas),
        lines=tuple(Shape(one.kind, one.title, _line_path(one, place)) for one in curves),
        clouds=tuple(Shape(one.kind, one.title, _cloud_path(one, place)) for one in clouds),
        dots=tuple(_dot(one, place) for one in spots),
        rules=_rules(known, place, write),
        marks=_marks(events, place),
        ticks=tuple(Tick(place.y(value), value) for value in _steps(low, high)),
        days=_day_ticks(place),
        write=write,
        width=width,
        right=right,
    )


@dataclass(frozen=True)
class _Place:
    """Where values and days stand in the drawing."""

    first: date
    last: date
    low: float
    high: float
    right: int

    def x(self, day: date, share: float = 0.5) -> float:
        """:param share: of the day that has passed, where it is no moment"""
        if isinstance(day, datetime):
            moment = day.astimezone(UTC)
            midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
            day, share = moment.date(), (moment - midnight) / _DAY
        of = ((day - self.first).days + share) / max((self.last - self.first).days, 1)
        return round(_LEFT + of * (self.right - _LEFT), 1)

    def y(self, value: float) -> float:
        of = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(HEIGHT - _BOTTOM - of * (HEIGHT - _BOTTOM - _TOP), 1)


def _day(day: date) -> date:
    return day.astimezone(UTC).date() if isinstance(day, datetime) else day


def _greatest(areas: Sequence[Area], curves: Sequence[Curve]) -> float:
    series = [one.upper for one in areas] + [one.values for one in curves]
    return max((value for values in series for value in values if value is not None), default=0.0)


def _top(greatest: float, limits: Sequence[float]) -> float:
    """The end of the scale: above all that is drawn, and the limits that are not far above that."""
    near = [limit for limit in limits if limit <= _CROWDED * greatest or greatest <= 0]
    return nice_above(max([greatest, *near]))


def nice_above(value: float) -> float:
    """Return a number that a scale can end with, at least as great as the value; 1 where that is zero."""
    if value < sys.float_info.min:  # or so little that it cannot be divided any more
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12) if step * power >= value
    )


def _steps(low: float, high: float) -> Iterator[float]:
    span = high - low
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * size for size in (0.1, 0.2, 0.25, 0.5, 1, 2) if span / (power * size) <= 5.001)
    number = math.ceil(round(low / step, 6))
    while number * step <= high * (1 + 1e-9):
        yield round(number * step, 12)
        number += 1


def _runs(
    longest: timedelta, days: Sequence[date], *values: Sequence[float | None]
) -> Iterator[list[tuple[Any, ...]]]:
    """Stretches of days that follow each other and on which all values are known."""
    run: list[tuple[Any, ...]] = []
    for row in zip(days, *values, strict=True):
        gap = any(value is None or not math.isfinite(value) for value in row[1:])
        if run and (gap or row[0] - run[-1][0] > longest):
            yield run
            run = []
        if not gap:
            run.append(row)
    if run:
        yield run


def _line_path(curve: Curve, place: _Place) -> str:
    parts = []
    for run in _runs(curve.longest, curve.days, curve.values):
        points = [f"{place.x(day)} {place.y(value)}" for day, value in run]
        # A day by itself is a dot: its line has no length, and round ends.
        parts.append("M" + "L".join(points if len(points) > 1 else points * 2))
    return "".join(parts)


def _area_path(area: Area, place: _Place) -> str:
    parts = []
    for run in _runs(area.longest, area.days, area.lower, area.upper):
        # A day is as wide as a day, so that one by itself is seen.
        over = [f"{place.x(day)} {place.y(upper)}" for day, _, upper in run]
        under = [f"{place.x(day)} {place.y(lower)}" for day, lower, _ in run]
        parts.append("M" + "L".join([*over, *reversed(under)]) + "Z")
    return "".join(parts)


def _cloud_path(cloud: Cloud, place: _Place) -> str:
    # One path of lines without length, whose round ends are the dots: thousands of circles would be slow.
    known = [
        (day, value) for day, value in zip(cloud.days, cloud.values, strict=True) if math.isfinite(value)
    ]
    return "".join(f"M{place.x(day)} {place.y(value)}h0" for day, value in known)


def _dot(spot: Spot, place: _Place) -> Dot:
    return Dot(spot, place.x(spot.day), place.y(place.low if spot.value is None else spot.value))


def _rules(limits: Sequence[Limit], place: _Place, write: Write) -> tuple[Rule, ...]:
    """Limits with their texts beside the picture, none over another."""
    ordered = sorted(limits, key=lambda limit: -(limit.value or 0.0))
    rules: list[Rule] = []
    lowest = HEIGHT - _BOTTOM - _LABEL_HEIGHT * (len(ordered) - 1)
    for number, limit in enumerate(ordered):
        value = limit.value or 0.0
        above = value > place.high
        wanted = place.y(value) + 4
        label_y = max(wanted, rules[-1].label_y + _LABEL_HEIGHT) if rules else wanted
        label_y = min(label_y, lowest + _LABEL_HEIGHT * number)
        text = f"{limit.title} {write(value)}" + (" ↑" if above else "")
        rules.append(Rule(limit, None if above else place.y(value), round(label_y, 1), text))
    return tuple(rules)


def _marks(events: Sequence[Event], place: _Place) -> tuple[Mark, ...]:
    """Marked days, their texts a line higher where two would stand over each other."""
    marks: list[Mark] = []
    for event in sorted(events, key=lambda event: place.x(event.day, 0)):
        x = place.x(event.day, 0)
        before = [mark for mark in marks if mark.event.at_foot == event.at_foot]
        first_y = HEIGHT - _BOTTOM - 6 if event.at_foot else _TOP - 6
        near = bool(before) and x - before[-1].x < 2 * _MARK_WIDTH and before[-1].text_y == first_y
        text_y = first_y - (_LABEL_HEIGHT if near else 0)
        marks.append(Mark(event, x, "end" if x > place.right - _MARK_WIDTH else "start", text_y))
    return tuple(marks)


def _day_ticks(place: _Place) -> tuple[DayTick, ...]:
    count = (place.last - place.first).days
    step = next(
        (step for step in _DAY_STEPS if count / step <= (place.right - _LEFT) / _TICK_WIDTH), _DAY_STEPS[-1]
    )
    days = [place.first + timedelta(days=number) for number in range(0, count, step)]
    form = "%d %b %Y" if step > 91 else "%d %b"
    return tuple(DayTick(place.x(day), f"{day:{form}}") for day in days)
