"""The snapshot before, beside the scan of a source: which files have not changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.tree import Entry, decode_entry, decode_line, is_line_of, path_of, split_path

_FINE_GRAIN_NS = 50_000_000
_COARSE_GRAIN_NS = 2_000_000_000


class ParentEntries:
    """The parent's tree beside the scan: both are sorted, so one pass and no memory is enough.

    A parent that cannot be read (any more) only costs time: files count as changed from there on.
    """

    def __init__(
        self, lines: Iterator[bytes], started_ns: int, trusted: bool, warn: Callable[[str], None]
    ) -> None:
        self._lines = lines
        self._started_ns = started_ns
        self._warn = warn
        self.trusted = trusted
        self._line = b""
        self._current: dict[str, Any] | None = None
        self._path = b""
        self._parts: tuple[bytes, ...] = ()
        self._advance()

    def _advance(self) -> None:
        self._current = None
        try:
            line = next(self._lines, None)
            if line is not None:
                content = decode_line(line)
                self._path = path_of(content)
                self._line, self._parts, self._current = line, split_path(self._path), content
        except CorruptionError as error:
            self._give_up(error)

    def _give_up(self, error: CorruptionError) -> None:
        self._warn(f"the parent's tree is damaged, unchanged files are read again: {error}")
        self._lines, self._current = iter(()), None

    def take_over(self, entry: Entry) -> bool:
        """Give an entry of a file that has not changed in anything the parent's line.

        Only what is ``trusted`` is taken over without a look at its chunks.
        """
        content = self._at(entry)
        if content is None or not self.trusted or not self._is_settled(entry):
            return False
        if not is_line_of(content, entry):
            return False
        entry.line = self._line
        return True

    def unchanged(self, entry: Entry) -> Entry | None:
        """The parent's entry of a file whose status has not changed since."""
        content = self._at(entry)
        if content is None or not self._is_settled(entry):
            return None
        try:
            old = decode_entry(content)
        except CorruptionError as error:
            self._give_up(error)
            return None
        same = old.same_file(entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode)
        return old if same and old.hard_link is None else None

    def _at(self, entry: Entry) -> dict[str, Any] | None:
        """The parent's line for a file of this path."""
        parts = entry.parts
        while self._current is not None and self._parts < parts:
            self._advance()
        if self._current is None or self._path != entry.path or self._current.get("type") != "file":
            return None
        return self._current

    def _is_settled(self, entry: Entry) -> bool:
        return is_settled(entry.mtime_ns, entry.ctime_ns, self._started_ns)


def is_settled(mtime_ns: int, ctime_ns: int, read_ns: int) -> bool:
    """Whether a file's times are clearly before it was read.

    A file written again in the same tick of the clock in which it was read shows no later time.
    """
    grain = _COARSE_GRAIN_NS if mtime_ns % 1_000_000_000 == 0 else _FINE_GRAIN_NS
    return max(mtime_ns, ctime_ns) < read_ns - grain
