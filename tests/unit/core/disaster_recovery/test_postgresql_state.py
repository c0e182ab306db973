"""What a pair of databases is taken for, from what each says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError, SplitBrainError
from fastvlm_ops.core.disaster_recovery.postgresql.state import (
    DatabaseState,
    Sender,
    not_streaming,
    only_primary,
    parse_address,
    read_state,
    wait_until_streaming,
)
from fastvlm_ops.local.ports import free_ports

SENDER = Sender("b", "streaming", "async", 0x2000)
PRIMARY = DatabaseState("a", "primary", "7", "18.6", 2, 0x2000, senders=(SENDER,))
STANDBY = DatabaseState("b", "standby", "7", "18.6", 2, 0x2000, receiving="streaming")


def test_a_standby_that_follows() -> None:
    assert not_streaming(PRIMARY, STANDBY) is None
    assert wait_until_streaming(lambda: PRIMARY, lambda: STANDBY, seconds=0) == (PRIMARY, STANDBY)


@pytest.mark.parametrize(
    ("primary", "standby", "said"),
    [
        (replace(PRIMARY, role="not_running"), STANDBY, "a is not running, not primary"),
        (PRIMARY, replace(STANDBY, role="unknown", problem="no answer"), "b is unknown (no answer), not"),
        (PRIMARY, replace(STANDBY, role="primary"), "b is primary, not standby"),
        (PRIMARY, replace(STANDBY, system_id="8"), "b belongs to another cluster than a"),
        (PRIMARY, replace(STANDBY, receiving=None), "b is up but not streaming: it receives nothing"),
        (PRIMARY, replace(STANDBY, receiving="waiting"), "not streaming: its receiver is waiting"),
        (replace(PRIMARY, senders=()), STANDBY, "a streams to nobody"),
        # pg_basebackup and pg_receivewal stream too, and are no standbys.
        (replace(PRIMARY, senders=(replace(SENDER, replayed=None),)), STANDBY, "a streams to nobody"),
        (replace(PRIMARY, senders=(replace(SENDER, state="catchup"),)), STANDBY, "a streams to nobody"),
        (PRIMARY, replace(STANDBY, timeline=1), "b is on timeline 1, a on timeline 2"),
        (PRIMARY, replace(STANDBY, replay_paused=True), "b receives, but its replay is paused"),
    ],
)
def test_what_is_no_standby_that_follows(primary: DatabaseState, standby: DatabaseState, said: str) -> None:
    assert said in (not_streaming(primary, standby) or "")
    with pytest.raises(DatabaseError, match="not within 0 s"):
        wait_until_streaming(lambda: primary, lambda: standby, seconds=0)


def test_a_standby_that_streams_but_lags_is_waited_for() -> None:
    with pytest.raises(DatabaseError, match="b streams, but has replayed 0/1000 of 0/2000"):
        wait_until_streaming(lambda: PRIMARY, lambda: replace(STANDBY, lsn=0x1000), seconds=0)


def test_there_is_one_primary_at_most() -> None:
    assert only_primary([STANDBY, PRIMARY]) is PRIMARY
    assert only_primary([STANDBY, replace(PRIMARY, role="unknown")]) is None
    with pytest.raises(
        SplitBrainError, match=r"a \(timeline 2, 0/2000\) and b \(timeline 2, 0/2000\) are both"
    ):
        only_primary([PRIMARY, replace(STANDBY, role="primary")])


def test_evidence_names_places_in_the_log() -> None:
    assert PRIMARY.evidence()["lsn"] == "0/2000"
    assert PRIMARY.evidence()["senders"][0]["replayed"] == "0/2000"
    assert "receiving" not in PRIMARY.evidence()


def test_what_nobody_listens_on_is_not_running() -> None:
    (port,) = free_ports(1)

    found = read_state("a", f"postgresql://user:secret@127.0.0.1:{port}/service")

    assert (found.role, found.problem) == ("not_running", f"nothing listens on 127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["host=a password=secret", "mysql://u:secret@h:1/d", "postgresql://u:secret@h/d"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        parse_address(address)
    assert "secret" not in str(caught.value)
