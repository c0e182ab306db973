"""Live chunks out of packs that are mostly dead, into new ones, so that the old can be condemned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fastvlm_ops.core.backup.errors import CorruptionError, ObjectNotFoundError
from fastvlm_ops.core.backup.index import ChunkIndex
from fastvlm_ops.core.backup.liveness import Liveness
from fastvlm_ops.core.backup.progress import ProgressMeter
from fastvlm_ops.core.backup.reading import ChunkReader
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.writing import ChunkWriter


@dataclass
class Copied:
    """What became of the packs. Sizes in bytes.

    ``emptied`` are those of which every needed chunk has been read, found right, and is somewhere else;
    ``kept`` says of the others which chunk could not be read where it should have been.
    """

    emptied: set[int] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)
    written_bytes: int = 0


def copy_live(
    repository: Repository,
    index: ChunkIndex,
    liveness: Liveness,
    packs: Collection[int],
    segment_prefix: str,
    meter: ProgressMeter,
) -> Copied:
    """Copy what is chosen to stay in these packs, and check what of them is to stay elsewhere.

    Nothing is condemned for a copy that nobody has looked at: duplicates are often there because a pack was
    damaged. New packs are stored and indexed when this returns. Any chunk that cannot be read keeps its pack.

    :param packs: numbers of packs in the table of ``liveness``
    :param segment_prefix: below ``index/``, of this collection alone
    """
    reader = ChunkReader(repository, index)
    copied = Copied()
    failed: dict[int, str] = {}
    done: set[int] = set()
    leaving = set(packs)
    # It knows no chunk, so that it stores each that it is given; none is given twice.
    with ChunkWriter(repository, ChunkIndex(), segment_prefix, meter, check_packs=False) as writer:
        for pack in sorted(leaving):
            for row in liveness.needed_rows(pack).tolist():
                group = int(liveness.group_of_row[row])
                if group in done:
                    continue
                done.add(group)
                try:
                    _copy_or_check(reader, writer, liveness, liveness.keeper_of(row), leaving)
                except (CorruptionError, ObjectNotFoundError) as error:
                    failed[group] = str(error)
        writer.flush()
        copied.written_bytes = writer.transferred_bytes
    for pack in leaving:
        groups = liveness.group_of_row[liveness.needed_rows(pack)].tolist()
        problem = next((failed[group] for group in groups if group in failed), None)
        if problem is None:
            copied.emptied.add(pack)
        else:
            copied.kept[liveness.table.packs[pack][0]] = problem
    return copied


def _copy_or_check(
    reader: ChunkReader, writer: ChunkWriter, liveness: Liveness, row: int, leaving: Collection[int]
) -> None:
    """:raises CorruptionError: the chunk cannot be read."""
    place = liveness.place(row)
    if int(liveness.table.pack_of_row[row]) in leaving:
        data = reader.get(place.record.chunk_id)
        writer.put_chunk(data, is_listing=bool(liveness.listing[row]))
    else:
        reader.get_from(place)
