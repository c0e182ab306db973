"""Restoring part of a tree: what patterns select, and what that needs besides."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry


class Selection:
    """Entries whose path, or that of a folder above them, matches one of the patterns; all without any.

    :param patterns: shell patterns for whole paths, in which ``*`` also matches ``/``.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(pattern.removesuffix("/").removesuffix("/**") for pattern in patterns)
        self._linked_to: set[bytes] = set()

    def selects(self, entry: Entry) -> bool:
        """Whether the entry itself is selected. Notes what a selected hard link refers to."""
        if not self.patterns:
            return True
        parts = show(entry.path).split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        chosen = any(fnmatch.fnmatchcase(path, pattern) for path in above for pattern in self.patterns)
        if chosen and entry.hard_link is not None:
            self._linked_to.add(entry.hard_link)
        return chosen

    def apply(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Selected entries and the folders above them, in order.

        A hard link to a file that is not selected takes that file's contents; :meth:`selects` has to have
        seen all entries before.
        """
        if not self.patterns:
            yield from entries
            return
        above: list[Entry] = []
        stand_ins: dict[bytes, Entry] = {}
        for entry in entries:
            while above and above[-1].parts != entry.parts[: len(above[-1].parts)]:
                above.pop()
            if not self.selects(entry):
                if entry.type == "directory":
                    above.append(entry)
                elif entry.path in self._linked_to:
                    stand_ins[entry.path] = entry
                continue
            yield from above
            above.clear()
            yield self._with_contents(entry, stand_ins)

    @staticmethod
    def _with_contents(entry: Entry, stand_ins: dict[bytes, Entry]) -> Entry:
        first = stand_ins.get(entry.hard_link) if entry.hard_link is not None else None
        if first is None:
            return entry
        if first.hard_link is None:  # the first of its links that is restored becomes the file itself
            stand_ins[first.path] = replace(first, hard_link=entry.path)
            return replace(first, path=entry.path)
        return replace(entry, hard_link=first.hard_link)
