"""What snapshots need, and what of it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.index import ChunkIndex, PackRecords
from fastvlm_ops.core.backup.reading import ChunkReader, read_tree
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.sources import show
from fastvlm_ops.core.backup.tree import Entry, IdList, TreeValidator
from fastvlm_ops.core.backup.verify_result import LISTED, Findings, HitFile, HitSnapshot


@dataclass
class TreeLoss:
    """What of a tree cannot be restored; the first paths with the reason, and the count of all."""

    files: int = 0
    paths: list[tuple[str, str]] = field(default_factory=list)
    what: str = ""

    def add(self, path: bytes, what: str) -> None:
        self.files += 1
        self.what = self.what or f"{show(path)}: {what}"
        if len(self.paths) < LISTED:
            self.paths.append((show(path), what))


class Needs:
    """Walks trees over the packs that are intact.

    A chunk counts as lost when no frame that can be read holds it. Packs that hold the only copies of a
    needed chunk and have a problem of any kind are ``findings.needed_packs``.

    :param findings: the damage to packs known so far.
    """

    def __init__(self, repository: Repository, index: ChunkIndex, findings: Findings) -> None:
        damaged = {name: damage.frames for name, damage in findings.packs.items()}
        self.index = index.without(damaged) if damaged else index
        fallen: list[PackRecords] = list(index.lost)
        fallen += [pack for pack in index.packs() if pack.name in damaged] if damaged else []
        self._fallen = ChunkIndex.build(fallen)
        self._suspects = damaged.keys() | {pack.name for pack in index.adopted}
        self._findings = findings
        self.reader = ChunkReader(repository, self.index)
        self.used_packs: set[str] = set()
        self.unexplained_loss = False

    def walk(self, manifest: dict[str, Any], visit: Callable[[Entry], None] | None = None) -> TreeLoss:
        """Everything a restore would check before it writes.

        :param visit: given every file that can be restored.
        """
        loss = TreeLoss()
        lost: set[bytes] = set()
        validator = TreeValidator()
        files = size_bytes = 0
        try:
            self._require(IdList.from_json(manifest["tree"], "the tree"))
            for entry in read_tree(self.reader, manifest["tree"]):
                validator.check(entry)
                if entry.type != "file":
                    continue
                files += 1
                size_bytes += entry.size
                if (what := self._problem(entry, lost)) is not None:
                    lost.add(entry.path)
                    loss.add(entry.path, what)
                elif visit is not None:
                    visit(entry)
            totals = manifest["totals"]
            if (files, size_bytes) != (totals["files"], totals["size_bytes"]):
                raise CorruptionError("the tree has not the files its manifest states")
        except CorruptionError as error:
            loss.files = manifest["totals"]["files"]
            loss.what = f"its tree cannot be read: {error}"
        return loss

    def _problem(self, entry: Entry, lost: set[bytes]) -> str | None:
        if entry.hard_link is not None:
            return f"is a hard link to {show(entry.hard_link)}" if entry.hard_link in lost else None
        try:
            found = self._require(entry.contents)
        except CorruptionError as error:
            return str(error)
        if found != entry.stored_bytes:
            return f"states {entry.stored_bytes} bytes, its chunks have {found}"
        return None

    def _require(self, id_list: IdList) -> int:
        """Bytes of an id list's chunks.

        :raises CorruptionError: when one is lost; all have been looked at then.
        """
        size_bytes, first_lost = 0, None
        for chunk_id in self._ids(id_list):
            length = self._length(chunk_id)
            size_bytes += length or 0
            if length is None and first_lost is None:
                first_lost = chunk_id
        if first_lost is not None:
            raise CorruptionError(f"chunk {first_lost.hex()} is in no intact pack")
        return size_bytes

    def _ids(self, id_list: IdList) -> Iterator[bytes]:
        if id_list.nested:
            self._require(IdList(id_list.ids))
        return self.reader.ids(id_list)

    def _length(self, chunk_id: bytes) -> int | None:
        """Length of a chunk; None when it is lost."""
        places = list(self.index.locations(chunk_id))
        packs = {place.pack for place in places}
        if not places:
            fallen = {place.pack for place in self._fallen.locations(chunk_id)}
            self._findings.needed_packs |= fallen
            self.unexplained_loss |= not fallen
            return None
        if packs <= self._suspects:
            self._findings.needed_packs |= packs
        self.used_packs |= packs
        return places[0].record.length


def note_loss(findings: Findings, record: dict[str, Any], loss: TreeLoss) -> None:
    """Note a snapshot that cannot be restored whole."""
    snapshot_id, component = record["snapshot_id"], record["component"]
    files = [HitFile(path, snapshot_id, component, what) for path, what in loss.paths]
    findings.hit(HitSnapshot(snapshot_id, component, loss.files, loss.what), files)
