"""Timelines: which one holds which segment on the way from a base backup to the newest WAL."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, parse_lsn

_LINE = re.compile(r"\s*([0-9]{1,10})\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(\s.*)?")
_LINES_LIMIT = 10_000


@dataclass(frozen=True)
class Lineage:
    """A timeline and its ancestors, oldest first, each with the LSN at which it was left."""

    timeline: int
    ancestors: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, timeline: int, text: str, name: str) -> Lineage:
        """Read a history file.

        :param name: of the file, for messages
        :raises CorruptionError: it is none, or of another timeline
        """
        ancestors: list[tuple[int, int]] = []
        for line in text.splitlines()[:_LINES_LIMIT]:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise CorruptionError(f"{name} has the line {line[:200]!r}, which is none of a history")
            ancestors.append((int(match[1]), parse_lsn(match[2])))
        timelines = [ancestor for ancestor, _ in ancestors]
        if not ancestors or timelines != sorted(set(timelines)) or timelines[-1] >= timeline:
            raise CorruptionError(f"{name} is no history of timeline {timeline}: it names {timelines}")
        return cls(timeline, tuple(ancestors))

    def includes(self, timeline: int, lsn: int) -> bool:
        """Whether what stands at an LSN on a timeline is part of it."""
        if timeline == self.timeline:
            return True
        return any(ancestor == timeline and lsn <= left for ancestor, left in self.ancestors)

    def timeline_of(self, number: int, segment_bytes: int) -> int:
        """Return the timeline whose file of a segment recovery reads.

        That is the newest one that has begun in it: its first segment begins with a copy of its parent's.

        :param number: of the segment
        """
        found = self.ancestors[0][0] if self.ancestors else self.timeline
        following = [*(ancestor for ancestor, _ in self.ancestors[1:]), self.timeline]
        for (_, left), timeline in zip(self.ancestors, following, strict=False):
            if left // segment_bytes <= number:
                found = timeline
        return found

    def segment(self, number: int, segment_bytes: int) -> Segment:
        """Return a segment on it.

        :param number: of the segment
        """
        return Segment(self.timeline_of(number, segment_bytes), number, segment_bytes)
