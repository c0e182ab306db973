"""What is asked: times that mean one moment, ranges cut into chunks, label values that break no query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from fastvlm_ops.core.prometheus.errors import PrometheusQueryError

HOUR_MS = 3_600_000
# Prometheus refuses more than 11,000 steps in one answer, Amazon's service ranges of more than 32 days.
MAX_POINTS = 11_000
MAX_RANGE_MS = 31 * 24 * HOUR_MS

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Chunk(NamedTuple):
    """One request's part of a range, both ends included, in milliseconds since 1970."""

    start_ms: int
    end_ms: int


def milliseconds(name: str, moment: datetime) -> int:
    """Return a time in milliseconds since 1970.

    :param name: of the argument, for the message
    :param moment: an aware time; a naive one would be read in the machine's own zone
    :raises PrometheusQueryError: it is naive
    """
    if moment.utcoffset() is None:
        raise PrometheusQueryError(
            f"{name} is {moment.isoformat()}, which names no time zone; give an aware time, as in UTC"
        )
    return round(moment.timestamp() * 1000)


def seconds_text(ms: int) -> str:
    """Return milliseconds as seconds, without the rounding of a float.

    :param ms: milliseconds
    """
    return f"{ms // 1000}.{ms % 1000:03d}"


def chunks(start_ms: int, end_ms: int, step_ms: int) -> Iterator[Chunk]:
    """Cut a range so that its points, start + k x step up to the end, are each in exactly one chunk.

    :param start_ms: first point, in milliseconds since 1970
    :param end_ms: not before the start; a point too where a step hits it
    :param step_ms: between points, in milliseconds
    :raises PrometheusQueryError: the end is before the start, or the step is not above 0
    """
    if step_ms <= 0:
        raise PrometheusQueryError("step_seconds must be 0.001 or more")
    if end_ms < start_ms:
        raise PrometheusQueryError("end is before start")
    last = (end_ms - start_ms) // step_ms
    points = min(MAX_POINTS, MAX_RANGE_MS // step_ms + 1)
    for first in range(0, last + 1, points):
        until = min(first + points - 1, last)
        yield Chunk(start_ms + first * step_ms, start_ms + until * step_ms)


def label_matcher(name: str, value: str) -> str:
    """Return ``name="value"`` for a selector, whatever the value holds.

    :param name: of the label
    :param value: any text
    :raises PrometheusQueryError: the name is none of a label, or the value cannot be sent
    """
    if not _LABEL_NAME.fullmatch(name):
        raise PrometheusQueryError(f"{name!r} is no name of a label: letters, digits and _, no digit first")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PrometheusQueryError(f"the value {value!r} of label {name} is no valid Unicode text") from None
    return f'{name}="{value.translate(_ESCAPES)}"'
