"""What a WAL segment's file says of itself, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.wal_pages import (
    LastTransaction,
    check_segment,
    last_transaction,
    segment_facts,
)
from tests.wal_kit import MIB, SYSTEM_ID, commit_record, make_segment

SEGMENT = Segment(2, 5, MIB)
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_says_whose_it_is():
    facts = segment_facts(make_segment(SEGMENT), "it")
    assert (facts.system_id, facts.timeline, facts.start_lsn) == (SYSTEM_ID, 2, 5 * MIB)
    assert (facts.segment_bytes, facts.block_bytes) == (MIB, 8192)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_segment(SEGMENT, "42"), "WAL of system 42, not of"),
        (make_segment(Segment(2, 6, MIB)), "from 0/600000; expected timeline 2 from 0/500000"),
        (make_segment(SEGMENT, timeline=3), "timeline 3 from"),
        (make_segment(SEGMENT)[:-8192], "bytes and says"),
        (make_segment(Segment(2, 5, 2 * MIB)), "expected 1048576"),
        (bytes(MIB), "does not begin like a WAL segment"),
        (b"short", "is 5 bytes"),
    ],
    ids=["system", "number", "later timeline", "truncated", "size", "zeros", "short"],
)
def test_refuses_what_it_is_not(data: bytes, message: str):
    with pytest.raises(CorruptionError, match=message):
        check_segment(data, SEGMENT, SYSTEM_ID, "it")


def test_the_first_segment_of_a_timeline_begins_with_its_parents():
    check_segment(make_segment(SEGMENT, timeline=1), SEGMENT, SYSTEM_ID, "it")


def test_a_segment_without_transactions_has_no_last_one():
    assert last_transaction(make_segment(SEGMENT), "it") is None


def test_finds_the_last_transaction():
    records = tuple(commit_record(NOON + timedelta(seconds=n), 100 + n) for n in range(500))
    found = last_transaction(make_segment(SEGMENT, records=records), "it")
    assert found == LastTransaction(NOON + timedelta(seconds=499), 599)


def test_finds_it_behind_the_rest_of_a_long_record():
    made = make_segment(SEGMENT, records=(commit_record(NOON, 7, data=bytes(3000)),), rest=20_001)
    assert last_transaction(made, "it") == LastTransaction(NOON, 7)


@pytest.mark.parametrize(("info", "counts"), [(0x00, True), (0x20, True), (0x30, True), (0x10, False)])
def test_commits_and_aborts_count_and_preparing_does_not(info: int, counts: bool):
    made = make_segment(SEGMENT, records=(commit_record(NOON, 7, info=info | 0x80),))
    assert (last_transaction(made, "it") is not None) == counts


def test_one_that_goes_on_in_the_next_segment_does_not_count():
    filler = bytearray(commit_record(NOON, 1, data=bytes(2 * MIB)))
    made = make_segment(SEGMENT, records=(commit_record(NOON, 7), bytes(filler)))
    assert last_transaction(made, "it") == LastTransaction(NOON, 7)


def test_a_clock_that_went_back_leaves_the_newest_time_and_the_last_id():
    records = (commit_record(NOON, 8), commit_record(NOON - timedelta(hours=1), 9))
    assert last_transaction(make_segment(SEGMENT, records=records), "it") == LastTransaction(NOON, 9)


def test_reads_any_bytes_to_their_end():
    begin = make_segment(SEGMENT)[:40]
    for filler in (b"\xff", b"\x18\x00\x00\x00" * 2, bytes(range(256))):
        last_transaction((begin + filler * (MIB // len(filler)))[:MIB], "it")
