"""Histories of timelines, and which timeline holds which segment."""

from __future__ import annotations

import pytest

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.timelines import Lineage
from fastvlm_ops.core.backup.postgresql.window import lineage_for
from tests.wal_kit import MIB

HISTORY = """# what PostgreSQL writes
1\t0/580000\tno recovery target specified

2\t0/900000\tbefore 2026-11-30 12:00:00+00
"""


def test_a_history_is_read():
    assert Lineage.parse(3, HISTORY, "it") == Lineage(3, ((1, 0x580000), (2, 0x900000)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no history of timeline 3"),
        ("1 0/5\n1 0/6\n", "no history"),
        ("2 0/5\n1 0/6\n", "no history"),
        ("3 0/5\n", "no history"),
        ("one 0/5\n", "none of a history"),
        ("1 5\n", "none of a history"),
    ],
)
def test_what_is_none_is_refused(text: str, message: str):
    with pytest.raises(CorruptionError, match=message):
        Lineage.parse(3, text, "it")


def test_a_segment_is_read_from_the_newest_timeline_that_has_begun_in_it():
    lineage = Lineage.parse(3, HISTORY, "it")
    timelines = [lineage.timeline_of(number, MIB) for number in range(3, 11)]
    assert timelines == [1, 1, 2, 2, 2, 2, 3, 3]
    assert lineage.segment(5, MIB) == Segment(2, 5, MIB)
    assert Lineage(4).timeline_of(5, MIB) == 4


def test_what_was_written_after_a_timeline_was_left_is_no_part():
    lineage = Lineage.parse(3, HISTORY, "it")
    assert lineage.includes(1, 0x580000)
    assert not lineage.includes(1, 0x580001)
    assert lineage.includes(3, 1 << 60)
    assert not lineage.includes(4, 1)


def test_the_newest_timeline_that_leads_from_the_base_is_followed():
    known = {3: Lineage.parse(3, HISTORY, "it"), 5: Lineage(5, ((4, 0x10),)), 2: Lineage(2, ((1, 0x580000),))}
    assert lineage_for(1, 0x500000, [2, 3, 5], known.get) == known[3]
    assert lineage_for(2, 0x950000, [2, 3, 5], known.get) == known[2]
    assert lineage_for(6, 0x950000, [2, 3, 5], known.get) == Lineage(6)
    assert lineage_for(1, 0x500000, [2, 3], {2: known[2]}.get) == known[2]
