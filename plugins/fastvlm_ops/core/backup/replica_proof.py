"""How far the second place's log may be copied: as far as every snapshot that counts is whole there."""

from __future__ import annotations

import copy
import json
from typing import Any

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.index import ChunkIndex
from fastvlm_ops.core.backup.reading import read_manifest
from fastvlm_ops.core.backup.replica_log import ReplicaLog
from fastvlm_ops.core.backup.repository import Repository
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.verify_result import Findings
from fastvlm_ops.core.backup.verify_trees import Needs


class Proof:
    """Looks at what the second place holds, by what the first one's log says.

    :param state: of the first place, which was read before what lies there was listed
    """

    def __init__(self, repository: Repository, target: S3Storage, state: LogState) -> None:
        self._view = Repository(target, repository.ring, repository.config_line)
        self._view.log.state = copy.deepcopy(state)
        self._index: ChunkIndex | None = None
        self._losses: dict[str, str] = {}

    @property
    def index(self) -> ChunkIndex:
        """Of the second place."""
        if self._index is None:
            self._index = self._view.load_index(lambda _: None)
        return self._index

    def furthest(self, log: ReplicaLog, last: int, state: LogState) -> tuple[int, str]:
        """The last entry that may be copied, and why not the next: empty where all may be.

        A state is good when every snapshot that counts in it is whole in the second place. So where one that
        is not has been copied already, nothing is held back for it: it is damage, and found by verifying.

        :param last: the last entry that there is to copy
        :param state: of the first place, at ``last`` or later
        """
        why = ""
        while last > log.seq:
            hit = self._first_hit(state if last == state.seq else log.state_at(last), log.seq)
            if hit is None:
                break
            last, why = hit[0] - 1, hit[1]
        return last, why

    def _first_hit(self, state: LogState, copied: int) -> tuple[int, str] | None:
        for record in sorted(state.snapshots.values(), key=lambda record: int(record["seq"])):
            if record["seq"] > copied and (what := self._loss(record)):
                return record["seq"], f"snapshot {record['snapshot_id']} is not whole there: {what}"
        return None

    def _loss(self, record: dict[str, Any]) -> str:
        """What a snapshot lacks in the second place; empty when it is whole. Equal trees are walked once."""
        try:
            manifest = read_manifest(self._view, record)
            key = json.dumps([manifest["tree"], manifest["totals"]])
        except CorruptionError as error:
            return str(error)
        if key not in self._losses:
            self._losses[key] = Needs(self._view, self.index, Findings()).walk(manifest).what
        return self._losses[key]
