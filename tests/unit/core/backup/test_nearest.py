"""What is offered in place of a damaged backup."""

from __future__ import annotations

import pytest

from fastvlm_ops.core.backup.commit_log import LogState
from fastvlm_ops.core.backup.nearest import Candidate, nearest_intact, sets_hit

SETS = [
    Candidate("one", 10, {"models": "m1", "data": "d1"}),
    Candidate("two", 20, {"models": "m2", "data": "d2"}),
    Candidate("only data", 28, {"data": "d3"}),
    Candidate("three", 30, {"models": "m3", "data": "d3"}),
    Candidate("four", 40, {"models": "m4", "data": "d4"}),
]


@pytest.mark.parametrize(
    ("damaged", "components", "found"),
    [
        ({"m3"}, ("models", "data"), "four"),  # as near as two, and newer
        ({"m3", "m4"}, ("models", "data"), "two"),
        ({"m3"}, ("data",), "only data"),
        ({"m1", "m2", "m3", "m4"}, ("models",), None),
        ({"m3"}, ("models", "uploads"), None),
    ],
)
def test_the_nearest_that_has_all_of_it_intact(
    damaged: set[str], components: tuple[str, ...], found: str | None
) -> None:
    assert nearest_intact(SETS, SETS[3], components, lambda snapshot: snapshot not in damaged) == found


def test_each_backup_that_is_hit_has_its_own_and_older_damage_counts() -> None:
    state = LogState()
    for one in SETS:
        state.sets[one.set_id] = {"seq": one.sequence, "snapshots": dict(one.snapshots)}
    state.checks["d4"] = {"damaged": {}}
    assert sets_hit(state, {"d3"}) == {"three": "two", "only data": "two"}
    assert sets_hit(state, {"m1", "m2", "m3"}) == {"three": None, "two": None, "one": None}
