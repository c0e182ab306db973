"""The snapshot before, beside the scan of a source: which files have not changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.tree import Entry

_FINE_GRAIN_NS = 50_000_000
_COARSE_GRAIN_NS = 2_000_000_000


class ParentEntries:
    """The parent's tree beside the scan: both are sorted, so one pass and no memory is enough.

    A parent that cannot be read (any more) only costs time: files count as changed from there on.
    """

    def __init__(
        self, entries: Iterator[Entry], started_ns: int, trusted: bool, warn: Callable[[str], None]
    ) -> None:
        self._entries = entries
        self._started_ns = started_ns
        self._warn = warn
        self.trusted = trusted
        self._current = self._next()

    def _next(self) -> Entry | None:
        try:
            return next(self._entries, None)
        except CorruptionError as error:
            self._warn(f"the parent's tree is damaged, unchanged files are read again: {error}")
            self._entries = iter(())
            return None

    def unchanged(self, entry: Entry) -> Entry | None:
        """The parent's entry of a file whose status has not changed since."""
        while self._current is not None and self._current.parts < entry.parts:
            self._current = self._next()
        old = self._current
        if old is None or old.path != entry.path or old.type != "file" or old.hard_link is not None:
            return None
        if not old.same_file(entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode):
            return None
        return old if is_settled(entry.mtime_ns, entry.ctime_ns, self._started_ns) else None


def is_settled(mtime_ns: int, ctime_ns: int, read_ns: int) -> bool:
    """Whether a file's times are clearly before it was read.

    A file written again in the same tick of the clock in which it was read shows no later time.
    """
    grain = _COARSE_GRAIN_NS if mtime_ns % 1_000_000_000 == 0 else _FINE_GRAIN_NS
    return max(mtime_ns, ctime_ns) < read_ns - grain
