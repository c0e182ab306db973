"""What to restore in place of a backup that is damaged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fastvlm_ops.core.backup.commit_log import LogState


@dataclass(frozen=True)
class Candidate:
    """A published set: where it stands in the log, and its snapshot of each component."""

    set_id: str
    sequence: int
    snapshots: Mapping[str, str]


def nearest_intact(
    sets: Sequence[Candidate],
    damaged: Candidate,
    components: Collection[str],
    is_intact: Callable[[str], bool],
) -> str | None:
    """Return the set that holds some components intact and is published nearest to a damaged one.

    Of two as near, the newer. Near is by the log, whose order no clock has made.

    :param sets: published ones, in any order
    :param damaged: the set in whose place one is wanted
    :param components: that it has to have, each of them intact
    :param is_intact: whether a snapshot, by its id, can be restored
    :returns: id of the set; None where there is none
    """
    found = [
        (abs(one.sequence - damaged.sequence), -one.sequence, one.set_id)
        for one in sets
        if one.set_id != damaged.set_id
        and one.snapshots.keys() >= set(components)
        and all(is_intact(one.snapshots[component]) for component in components)
    ]
    return min(found)[2] if found else None


def sets_hit(state: LogState, damaged: set[str]) -> dict[str, str | None]:
    """Return the published sets that have a damaged snapshot, newest first, each with the nearest intact set
    that has all of its components.

    :param state: what the log says; what it knows to be damaged since earlier is not intact either
    :param damaged: ids of snapshots that were found damaged just now
    """
    sets = [Candidate(set_id, body["seq"], body["snapshots"]) for set_id, body in state.sets.items()]

    def is_intact(snapshot_id: str) -> bool:
        return snapshot_id not in damaged and "damaged" not in state.checks.get(snapshot_id, {})

    return {
        one.set_id: nearest_intact(sets, one, one.snapshots, is_intact)
        for one in reversed(sets)
        if not damaged.isdisjoint(one.snapshots.values())
    }
