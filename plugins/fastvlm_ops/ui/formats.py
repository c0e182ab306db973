"""How figures, times and names are written. None is unknown, and is written as such, never as zero."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, date, datetime, timedelta

UNKNOWN = "unknown"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_TEN = 10
_SHORTEST = 0.1
_SMALL = 0.01
_LEAST, _MOST = 1e-4, 1e12  # beyond, digits say less than an exponent
_MINUS = "\u2212"  # as wide as a plus
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def size(value: int | None) -> str:
    """Return bytes for people, as in ``1.5 GiB``."""
    if value is None:
        return UNKNOWN
    number = float(value)
    if number < 1024:
        return f"{value} B"
    for unit in _UNITS:
        number /= 1024
        # 1023.96 would be written as 1024.0: it belongs to the next unit.
        if round(number, 1) < 1024 or unit == _UNITS[-1]:
            break
    return f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"


def count(value: int | None) -> str:
    """Return a whole number for people, with thin spaces between thousands."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\u202f")


def amount(value: float | None, unit: str = "") -> str:
    """Return a measured number for people, to three figures, as in ``42.7 %`` or ``1\u202f250/s``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value and not _LEAST <= abs(value) < _MOST:
        text = f"{value:.2e}"
    elif abs(value) >= 100:
        text = count(round(value))
    else:
        places = 2 - math.floor(math.log10(abs(value))) if value else 0
        text = f"{value:.{max(places, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text + (unit if unit.startswith("/") else f" {unit}" if unit else "")


def share(value: float | None) -> str:
    """Return a share of one as percent; what is neither none nor all is not written as such."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if 0 < value < _SMALL:
        return "< 1 %"
    if 1 - _SMALL < value < 1:
        return "> 99 %"
    return f"{value * 100:.0f} %"


def change(value: float | None) -> str:
    """Return a change in parts of what was before, as percent with its sign, as in ``+5.2 %``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    percent = value * 100
    text = f"{abs(percent):.1f}" if abs(percent) < 99.95 else count(round(abs(percent)))
    if not float(text.replace("\u202f", "")):
        return "±0.0 %"
    return f"{'+' if percent > 0 else _MINUS}{text} %"


def changes(low: float | None, high: float | None) -> str:
    """Return the interval of a change, as in ``+4.1 to +6.3 %``; nothing where it is not known."""
    if low is None or high is None:
        return ""
    return f"{change(low).removesuffix(' %')} to {change(high)}"


def day(value: date | None) -> str:
    """Return a day."""
    return UNKNOWN if value is None else f"{value:%Y-%m-%d}"


def duration(value: float | timedelta | None) -> str:
    """Return a duration (seconds, or a timedelta) for people: its two greatest units, as in ``2 h 5 min``."""
    if value is None:
        return UNKNOWN
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if 0 < seconds < _SHORTEST:
        return f"< {_SHORTEST} s"
    if abs(seconds) < _TEN:
        return f"{seconds:.1f} s"
    rest, parts = round(abs(seconds)), []
    for length, unit in _STEPS:
        amount, rest = divmod(rest, length)
        if amount:
            parts.append(f"{amount} {unit}")
        elif parts:
            break
    return ("-" if seconds < 0 else "") + " ".join(parts[:2])


def moment(value: datetime | None) -> str:
    """Return a time in UTC, to the minute."""
    return UNKNOWN if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, by its greatest unit, as in ``3 h ago``."""
    if value is None:
        return UNKNOWN
    seconds = (now - value).total_seconds()
    for length, unit in _STEPS[:-1]:
        if abs(seconds) >= length:
            text = f"{int(abs(seconds) // length)} {unit}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now"


def name(value: str | bytes) -> str:
    """Return a name as text in which nothing is hidden.

    Bytes that are no UTF-8, control characters (a line end, an escape) and those that turn the direction of
    writing are written as escapes, so that a name cannot look like another. A backslash stays as it is.
    """
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", errors="backslashreplace").decode()
