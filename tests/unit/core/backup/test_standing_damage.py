"""How much damage stands: found by a verification, and shown to be gone by none since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fastvlm_ops.core.backup.catalogue import Verification
from fastvlm_ops.core.backup.metrics import standing_damage


def run(number: int, level: str, damaged: int | None, share: int | None = None) -> Verification:
    """A verification; the higher its number, the later."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    shares = None if share is None else 8
    ok = damaged == 0
    return Verification(number, at, "run", level, share, shares, ok, 2, 0, 9, 9, 9, 1.0, damaged, ())


@pytest.mark.parametrize(
    ("oldest_first", "found"),
    [
        ([], []),
        ([run(1, "full", 0)], []),
        ([run(1, "share", 3, 0)], [3]),
        ([run(1, "share", 3, 0), run(2, "share", 0, 1)], [3]),
        ([run(1, "share", 3, 0), run(2, "share", 0, 0)], []),
        ([run(1, "share", 3, 0), run(2, "full", 0)], []),
        ([run(1, "full", 0), run(2, "share", 3, 0)], [3]),
        ([run(1, "head", 2), run(2, "members", 0)], [2]),
        ([run(1, "head", 2), run(2, "share", 0, 4)], []),
        ([run(1, "full", None)], [1]),
    ],
)
def test_damage_stands_until_something_looks_where_it_was(
    oldest_first: list[Verification], found: list[int]
) -> None:
    assert standing_damage(oldest_first[::-1]) == found
