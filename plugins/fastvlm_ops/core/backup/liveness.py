"""Which chunks the remaining snapshots need, and what that leaves of each pack.

Nothing is counted by reference: every tree that counts is walked. Equal trees, equal pieces of trees and
equal lists of ids are read once, so that a hundred snapshots of what hardly changes cost as much as one.

Memory is about 40 bytes a chunk of the repository beside the index's own 76, and about 400 bytes for each
piece of a tree: 0.5 GB for a repository of 1 TiB in chunks of 256 KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.index import ChunkIndex, ChunkTable, Location
from fastvlm_ops.core.backup.packs import RECORD, RECORDS, Record
from fastvlm_ops.core.backup.reading import ChunkReader
from fastvlm_ops.core.backup.tree import IdList, decode_line

_BATCH = 8192
_SLICE = 1 << 20
_ID_WORDS = 4
_ROW_WORDS = RECORDS.itemsize // 8


class Edges(NamedTuple):
    """What of a piece of a tree belongs to lines that begin or end in its neighbours.

    ``tail`` is None where no line ends in it at all: then ``head`` is all of it.
    """

    head: bytes
    tail: bytes | None


class NeededChunks:
    """Marks the chunks that snapshots need, among all that an index knows."""

    def __init__(self, reader: ChunkReader, index: ChunkIndex) -> None:
        self._reader = reader
        self.table = index.table()
        self._words = self.table.records.view(np.uint64).reshape(-1, _ROW_WORDS)
        self._group_of_position = _group(self.table, self._words)
        groups = int(self._group_of_position[-1]) + 1 if len(self._group_of_position) else 0
        self._needed = np.zeros(groups, bool)
        self._listing = np.zeros(groups, bool)  # chunks of trees and of lists of ids
        self._pending: list[bytes] = []
        self._lists: set[bytes] = set()
        self._edges: dict[bytes, Edges] = {}
        self._trees: set[IdList] = set()

    def take_over(self, before: NeededChunks) -> None:
        """Mark what an earlier walk has marked, over an index of then; what that has read is not read again.

        :raises CorruptionError: something of it is in no pack any more. Then nothing has been taken over.
        """
        starts = np.flatnonzero(np.diff(before._group_of_position, prepend=np.uint32(0xFFFFFFFF)))
        ids = before._words[before.table.order[starts], :_ID_WORDS]
        for marked, are_listings in ((before._needed, False), (before._listing, True)):
            self._mark((ids[marked].tobytes(),), are_listings=are_listings)
        self._lists, self._edges, self._trees = before._lists, before._edges, before._trees

    def walk(self, manifest: dict[str, Any]) -> None:
        """Mark everything a restore of this snapshot would read.

        :raises CorruptionError: something of it is in no pack, or cannot be read or understood. What has been
            marked is then not all that is needed.
        """
        tree = IdList.from_json(manifest["tree"], "the tree")
        if tree in self._trees:
            return
        self._mark(tree.ids, are_listings=True)
        pieces = list(self._reader.ids(tree))
        self._mark(pieces, are_listings=True)
        for line in self._new_lines(pieces):
            content = decode_line(line)
            if "chunks" in content or "lists" in content:
                self._need(IdList.from_json(content, "an entry of the tree"))
        self._mark_pending()
        self._trees.add(tree)

    def _new_lines(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Lines of a tree, but for those that lie within pieces that have been read before."""
        carry = b""
        for chunk_id in pieces:
            edges = self._edges.get(chunk_id)
            if edges is None:
                data = self._reader.get(chunk_id)
                first, last = data.find(b"\n"), data.rfind(b"\n")
                if last > first:
                    yield from data[first + 1 : last].split(b"\n")
                edges = Edges(data, None) if first < 0 else Edges(data[:first], data[last + 1 :])
                self._edges[chunk_id] = edges
            if edges.tail is None:
                carry += edges.head
                continue
            yield carry + edges.head
            carry = edges.tail
        if carry:
            raise CorruptionError("the tree ends within a line")

    def _need(self, id_list: IdList) -> None:
        if not id_list.nested:
            self._pending += id_list.ids
        else:
            self._mark(id_list.ids, are_listings=True)
            for list_id in id_list.ids:
                if list_id not in self._lists:
                    self._pending += self._reader.ids(IdList((list_id,), nested=True))
                    self._lists.add(list_id)
        if len(self._pending) >= _BATCH:
            self._mark_pending()

    def _mark_pending(self) -> None:
        pending, self._pending = self._pending, []
        self._mark(pending)

    def _mark(self, chunk_ids: Iterable[bytes], *, are_listings: bool = False) -> None:
        """:raises CorruptionError: when no pack holds one of them."""
        joined = b"".join(chunk_ids)
        if not joined:
            return
        wanted = np.frombuffer(joined, np.uint64).reshape(-1, _ID_WORDS)
        if not len(self._words):
            raise CorruptionError(f"chunk {joined[:32].hex()} is in no pack")
        positions = np.minimum(self.table.prefixes.searchsorted(wanted[:, 0]), len(self._words) - 1)
        equal = (self._words[self.table.order[positions], :_ID_WORDS] == wanted).all(axis=1)
        for number in np.flatnonzero(~equal):
            positions[number] = self._search(int(positions[number]), wanted[number])
        groups = self._group_of_position[positions]
        self._needed[groups] = True
        if are_listings:
            self._listing[groups] = True

    def _search(self, position: int, wanted: np.ndarray) -> int:
        """The position of a chunk whose first eight bytes others have too."""
        while position < len(self._words) and self.table.prefixes[position] == wanted[0]:
            if (self._words[self.table.order[position], :_ID_WORDS] == wanted).all():
                return position
            position += 1
        raise CorruptionError(f"chunk {wanted.tobytes().hex()} is in no pack")

    def choose(self) -> Liveness:
        """Where each needed chunk is to stay, once all trees have been walked."""
        rows = len(self._words)
        group_of_row = np.empty(rows, np.uint32)
        group_of_row[self.table.order] = self._group_of_position
        needed = self._needed[group_of_row]
        return Liveness.of(self.table, group_of_row, needed, self._listing[group_of_row])


def _group(table: ChunkTable, words: np.ndarray) -> np.ndarray:
    """A number for each position in the order by id: the same for copies of a chunk."""
    differs = np.ones(len(words), np.uint32)
    for start in range(1, len(words), _SLICE):
        stop = min(start + _SLICE, len(words))
        these, before = table.order[start:stop], table.order[start - 1 : stop - 1]
        differs[start:stop] = (words[these, :_ID_WORDS] != words[before, :_ID_WORDS]).any(axis=1)
    groups: np.ndarray = np.cumsum(differs, dtype=np.uint32) - np.uint32(1)
    return groups


@dataclass(frozen=True)
class Liveness:
    """What is needed of each pack. Arrays are by row of the table, or by pack.

    ``needed`` rows hold a needed chunk, ``chosen`` those of them that are to keep it: one a chunk, in the
    pack of which the largest share is needed; among equals, the one whose name comes first. ``stored_bytes``
    is a row's share of its frame, ``needed_bytes`` and ``chosen_bytes`` their sums for each pack, and
    ``all_bytes`` the sum of all of its rows.
    """

    table: ChunkTable
    needed: np.ndarray
    chosen: np.ndarray
    listing: np.ndarray
    group_of_row: np.ndarray
    stored_bytes: np.ndarray
    needed_bytes: np.ndarray
    chosen_bytes: np.ndarray
    all_bytes: np.ndarray

    @classmethod
    def of(
        cls, table: ChunkTable, group_of_row: np.ndarray, needed: np.ndarray, listing: np.ndarray
    ) -> Liveness:
        records = table.records
        stored = (
            records["stored_length"] * (records["length"] / np.maximum(records["raw_length"], 1))
        ).astype(np.float32)

        def by_pack(rows: np.ndarray) -> np.ndarray:
            sums: np.ndarray = np.bincount(
                table.pack_of_row[rows], weights=stored[rows], minlength=len(table.packs)
            )
            return sums

        needed_bytes = by_pack(needed)
        all_bytes = by_pack(np.ones(len(needed), bool))
        chosen = _choose(table, group_of_row, needed, needed_bytes / np.maximum(all_bytes, 1))
        return cls(
            table, needed, chosen, listing, group_of_row, stored, needed_bytes, by_pack(chosen), all_bytes
        )

    def waste(self, pack: int) -> float:
        """The share of a pack that nobody would miss, from 0 to 1."""
        return 1.0 - float(self.chosen_bytes[pack]) / max(float(self.all_bytes[pack]), 1.0)

    def needed_rows(self, pack: int) -> np.ndarray:
        """Rows of a pack that hold needed chunks, as they lie in it."""
        first, last = np.searchsorted(self.table.pack_of_row, [pack, pack + 1])
        rows: np.ndarray = first + np.flatnonzero(self.needed[first:last])
        return rows

    def keeper_of(self, row: int) -> int:
        """The row that keeps the chunk of a needed row."""
        if self.chosen[row]:
            return row
        return int(self._keepers[self._keepers_groups.searchsorted(self.group_of_row[row])])

    @cached_property
    def _keepers(self) -> np.ndarray:
        rows = np.flatnonzero(self.chosen)
        ordered: np.ndarray = rows[np.argsort(self.group_of_row[rows], kind="stable")]
        return ordered

    @cached_property
    def _keepers_groups(self) -> np.ndarray:
        groups: np.ndarray = self.group_of_row[self._keepers]
        return groups

    def place(self, row: int) -> Location:
        name, size_bytes = self.table.packs[int(self.table.pack_of_row[row])]
        return Location(name, size_bytes, Record(*RECORD.unpack(self.table.records[row].tobytes())))


def _choose(table: ChunkTable, group_of_row: np.ndarray, needed: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Of each needed chunk one row."""
    copies = np.bincount(group_of_row, minlength=1)
    chosen: np.ndarray = needed & (copies[group_of_row] == 1)
    several = np.flatnonzero(needed & ~chosen)
    if len(several):
        best_first = sorted(range(len(table.packs)), key=lambda pack: (-share[pack], table.packs[pack][0]))
        rank = np.empty(len(best_first), np.int64)
        rank[best_first] = np.arange(len(best_first))
        order = np.lexsort((several, rank[table.pack_of_row[several]], group_of_row[several]))
        ordered = several[order]
        groups = group_of_row[ordered]
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = groups[1:] != groups[:-1]
        chosen[ordered[is_first]] = True
    return chosen
