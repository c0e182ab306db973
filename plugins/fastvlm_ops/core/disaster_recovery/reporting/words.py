"""How reports and pages of drills write figures. What was not measured is written as such, never as zero."""

from __future__ import annotations

from datetime import UTC, datetime

NOT_MEASURED = "not measured"
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def seconds(value: float | None) -> str:
    """Return a time for people: to a hundredth below ten seconds, then coarser, as in ``2 min 12 s``."""
    if value is None:
        return NOT_MEASURED
    size = abs(value)
    sign = "\u2212" if value < 0 and round(size, 2) else ""
    if round(size, 2) < 10:
        text = f"{size:.2f}".rstrip("0").rstrip(".")
        return f"{sign}{text or '0'} s"
    if round(size, 1) < 2 * _MINUTE:
        return f"{sign}{size:.1f}".removesuffix(".0") + " s"
    return sign + _whole(round(size))


def _whole(size: int) -> str:
    if size < _HOUR:
        greater, lesser, names = size // _MINUTE, size % _MINUTE, ("min", "s")
    elif size < _DAY:
        greater, lesser, names = size // _HOUR, size % _HOUR // _MINUTE, ("h", "min")
    else:
        greater, lesser, names = size // _DAY, size % _DAY // _HOUR, ("d", "h")
    return f"{greater} {names[0]}" + (f" {lesser} {names[1]}" if lesser else "")


def moment(value: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "unknown" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def step(name: str) -> str:
    """Return the name of a step, check or action for people, as in ``verify failover``."""
    return name.replace("_", " ")


def number(value: int, one: str, many: str = "") -> str:
    """Return a count with its noun, as in ``1 write`` or ``3 writes``."""
    return f"{value} {one if value == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return text as a sentence: with a capital letter and its full stop.

    :param text: one sentence, however it was written
    """
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
