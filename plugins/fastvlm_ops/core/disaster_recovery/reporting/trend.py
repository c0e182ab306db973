"""Figures of drills over time, and beside their objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import Box, Tick, nice_above, tone


@dataclass(frozen=True)
class Figure:
    """A figure of one drill, for a picture over time.

    :param value: None where it was not measured
    :param address: where a click leads; empty for nowhere
    """

    at: datetime
    value: float | None
    verdict: str | None
    address: str = ""


@dataclass(frozen=True)
class Bar:
    """A drawn figure; ``height`` is 0 where there is none."""

    figure: Figure
    x: float
    y: float
    width: float
    height: float
    text: str
    tone: str


@dataclass(frozen=True)
class TrendPicture:
    """A figure of the last drills of a scenario, oldest first, beside its objective.

    :param objective_y: of its line; None where it is above the picture
    """

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    objective_y: float | None
    objective: str
    summary: str

    width, height, left, right, top, base = 500, 158, 58, 488, 12, 134


_TREND_BARS = 20
_CROWDED = 3.0
"""An objective this many times above all figures would press them flat: it is only written."""


def trend_picture(title: str, figures: Sequence[Figure], objective_seconds: float) -> TrendPicture:
    """Return a figure over the last drills.

    :param title: ``RTO`` or ``RPO``
    :param figures: oldest first
    :param objective_seconds: of the figure
    """
    shown = figures[-_TREND_BARS:]
    known = [one.value for one in shown if one.value is not None]
    greatest = max(known, default=0.0)
    near = objective_seconds <= _CROWDED * greatest or greatest <= 0
    end = nice_above(max(greatest, objective_seconds) if near else greatest)
    picture = TrendPicture
    room = picture.base - picture.top
    place = (picture.right - picture.left) / max(len(shown), 6)
    width = round(min(place * 0.64, 30.0), 1)
    bars = []
    for number, one in enumerate(shown):
        height = 0.0 if one.value is None else max(one.value / end * room, 1.5)
        x = round(picture.left + place * (number + 0.5) - width / 2, 1)
        text = (
            f"{words.moment(one.at)}: {words.seconds(one.value)}, {(one.verdict or 'no verdict yet').lower()}"
        )
        bars.append(
            Bar(one, x, round(picture.base - height, 1), width, round(height, 1), text, tone(one.verdict))
        )
    return TrendPicture(
        title=title,
        bars=tuple(bars),
        ticks=tuple(Tick(picture.base - room * part, words.seconds(end * part)) for part in (0.0, 0.5, 1.0)),
        objective_y=round(picture.base - objective_seconds / end * room, 1) if near else None,
        objective=f"objective {words.seconds(objective_seconds)}" + ("" if near else " \u2191"),
        summary=_trend_summary(title, known, len(shown), objective_seconds),
    )


def _trend_summary(title: str, known: Sequence[float], count: int, objective_seconds: float) -> str:
    if not known:
        return f"{title} was not measured in {words.number(count, 'drill')}."
    return (
        f"{title} of {len(known)} of {words.number(count, 'drill')}: lowest {words.seconds(min(known))},"
        f" highest {words.seconds(max(known))}, last {words.seconds(known[-1])}; objective"
        f" {words.seconds(objective_seconds)}."
    )


@dataclass(frozen=True)
class Gauge:
    """A figure beside its objective, as a bar.

    :param parts: of the figure, from its left: detection, and the rest
    :param objective_x: of the objective's mark
    """

    parts: tuple[Box, ...]
    objective_x: float
    is_over: bool

    width, height = 300, 14


def gauge(value: float | None, objective: float, parts: Sequence[tuple[str, float]] = ()) -> Gauge:
    """Return a figure beside its objective.

    :param value: None where it was not measured: nothing is drawn
    :param parts: kind and seconds, from the start; what they do not explain is the rest
    """
    end = max(objective, value or 0.0) * 1.06 or 1.0
    boxes: list[Box] = []
    at = 0.0
    for kind, size in [*parts, ("rest", max((value or 0.0) - sum(size for _, size in parts), 0.0))]:
        if value is not None and size > 0:
            x = round(at / end * Gauge.width, 1)
            boxes.append(Box(x, round(max(size / end * Gauge.width, 1.5), 1), kind, words.seconds(size)))
            at += size
    return Gauge(tuple(boxes), round(objective / end * Gauge.width, 1), (value or 0.0) > objective)
