"""Places in PostgreSQL's write-ahead log, and the segments that hold them.

As in PostgreSQL's ``xlog_internal.h``: a log sequence number (LSN) is a 64-bit count of bytes, and segment n
holds the bytes from n times the segment's size on; its file is named by the timeline and n in three groups
of eight hexadecimal digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from fastvlm_ops.core.backup.errors import CorruptionError

DEFAULT_SEGMENT_BYTES = 16 << 20
SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
HISTORY_NAME = re.compile(r"[0-9A-F]{8}\.history")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_LOGICAL_BYTES = 1 << 32


def parse_lsn(text: str) -> int:
    """Return the LSN of ``pg_lsn``'s form, as in ``16/B374D848``.

    :raises ValueError: it has another form
    """
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no LSN; expected two hexadecimal numbers, as in 16/B374D848")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """Return an LSN as PostgreSQL shows it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, order=True)
class Segment:
    """One segment: its timeline, its number on it, and how many bytes each has (a power of two)."""

    timeline: int
    number: int
    segment_bytes: int = DEFAULT_SEGMENT_BYTES

    @classmethod
    def parse(cls, name: str, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> Self:
        """:raises CorruptionError: no segment of that size has such a name"""
        if SEGMENT_NAME.fullmatch(name) is None:
            raise CorruptionError(f"{name!r} is no name of a WAL segment")
        timeline, high, low = (int(name[start : start + 8], 16) for start in (0, 8, 16))
        per_group = _LOGICAL_BYTES // segment_bytes
        if low >= per_group or not timeline:
            raise CorruptionError(f"{name!r} is no name of a WAL segment of {segment_bytes} bytes")
        return cls(timeline, high * per_group + low, segment_bytes)

    @classmethod
    def of(cls, timeline: int, lsn: int, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> Self:
        """Return the segment that holds the byte at an LSN."""
        return cls(timeline, lsn // segment_bytes, segment_bytes)

    @property
    def name(self) -> str:
        """Of its file."""
        high, low = divmod(self.number, _LOGICAL_BYTES // self.segment_bytes)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    @property
    def start_lsn(self) -> int:
        """Of its first byte."""
        return self.number * self.segment_bytes

    @property
    def end_lsn(self) -> int:
        """Of the first byte after it."""
        return (self.number + 1) * self.segment_bytes

    def next(self, timeline: int | None = None) -> Self:
        """Return the one after it, on the same timeline unless another is named."""
        return type(self)(timeline or self.timeline, self.number + 1, self.segment_bytes)
