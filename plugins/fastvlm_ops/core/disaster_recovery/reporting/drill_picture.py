"""The picture of the whole drill: its fault, its requests, its steps and what each did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastvlm_ops.core.disaster_recovery.plan import STEPS
from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import (
    LEFT,
    RIGHT,
    WIDTH,
    Box,
    Flag,
    Scale,
    Tick,
    step_tone,
)
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Command, Span, Timeline

_ROW_HEIGHT = 30.0


@dataclass(frozen=True)
class Row:
    """A line of the picture of the whole drill.

    :param y: of its middle
    """

    y: float
    title: str
    boxes: tuple[Box, ...]
    commands: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class DrillPicture:
    """The whole drill: its fault, what users saw, its steps and what each did."""

    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    zero_x: float
    has_fault: bool
    summary: str

    width, left, right, top = WIDTH, LEFT, WIDTH - RIGHT, 10

    @property
    def kinds(self) -> set[str]:
        """Of all that is drawn in it."""
        return {box.kind for row in self.rows for box in row.boxes}

    @property
    def base(self) -> float:
        """Where its axis is."""
        return self.top + _ROW_HEIGHT * len(self.rows) + 4

    @property
    def height(self) -> float:
        """Of the drawing."""
        return self.base + 24


def drill_picture(timeline: Timeline) -> DrillPicture | None:
    """Return the whole drill; None where none of its steps has ended.

    :param timeline: of the drill
    """
    spans = [span for span in timeline.spans if span.step != "guard"]
    if not spans:
        return None
    scale = Scale(timeline.start, timeline.end)
    lines: list[tuple[str, list[Box], list[Flag]]] = []
    if timeline.has_fault:
        end = scale.end if timeline.undone is None else timeline.undone
        lasted = "still there" if timeline.undone is None else words.seconds(timeline.undone)
        lines.append(("fault", [_box(scale, 0.0, end, "fault", lasted)], []))
    if timeline.requests:
        lines.append(("requests", _request_boxes(timeline, scale), []))
    for span in sorted(spans, key=lambda one: STEPS.index(one.step) if one.step in STEPS else len(STEPS)):
        commands = [_command(scale, one) for one in timeline.commands if one.step == span.step]
        text = f"{words.seconds(span.end - span.start)}"
        lines.append(
            (
                words.step(span.step),
                [_box(scale, span.start, span.end, step_tone(span.status), text)],
                commands,
            )
        )
    rows = tuple(
        Row(DrillPicture.top + _ROW_HEIGHT * (number + 0.5), title, tuple(boxes), tuple(flags))
        for number, (title, boxes, flags) in enumerate(lines)
    )
    return DrillPicture(rows, scale.ticks, scale.x(0.0), timeline.has_fault, _drill_summary(spans))


def _box(scale: Scale, start: float, end: float, kind: str, text: str) -> Box:
    x = scale.x(start)
    return Box(x, round(max(scale.x(end) - x, 2.0), 1), kind, text)


def _command(scale: Scale, command: Command) -> Flag:
    return Flag(scale.x(command.at), 0.0, "command", f"{words.seconds(command.at)}: {command.what}")


def _request_boxes(timeline: Timeline, scale: Scale) -> list[Box]:
    ok = _box(scale, timeline.requests[0].at, timeline.requests[-1].at, "good", "answered rightly")
    bad = [
        _box(
            scale,
            one.start,
            scale.end if one.end is None else one.end,
            "bad",
            f"{one.failed} {one.what} failed",
        )
        for one in timeline.outages
    ]
    return [ok, *bad]


def _drill_summary(spans: Sequence[Span]) -> str:
    parts = [
        f"{words.step(span.step)} {span.status.replace('_', ' ')}, {words.seconds(span.end - span.start)}"
        for span in spans
    ]
    return "; ".join(parts) + "."
