"""RTO and RPO from ledgers whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.disaster_recovery.ledger import ProbeRecord, WriteRecord
from fastvlm_ops.core.disaster_recovery.measuring import LostWrite, Measures, measure, measure_restore

SECOND = 1_000_000_000
FAULT = 1_000 * SECOND
STEP = 0.05


def at(seconds: float) -> int:
    return FAULT + round(seconds * SECOND)


def requests(
    *down: tuple[float, float], until: float = 5.0, since: float = -2.0, takes: float = 0.004
) -> list[ProbeRecord]:
    """Requests every 0.05 s; those sent in one of the spans fail."""
    found = []
    for number in range(round((until - since) / STEP)):
        sent = round(since + number * STEP, 6)
        ok = not any(begin <= sent < end for begin, end in down)
        found.append(ProbeRecord(number, at(sent), at(sent + takes), ok, 200 if ok else None))
    return found


def writes(until: float = 5.0, since: float = -2.0) -> list[WriteRecord]:
    """Acknowledged writes every 0.05 s."""
    return [
        WriteRecord(number, f"f-{number}", f"{number:064x}", at(sent), "acknowledged", at(sent + 0.003))
        for number in range(round((until - since) / STEP))
        for sent in [round(since + number * STEP + 0.01, 6)]
    ]


def rows(of: list[WriteRecord], *less: int) -> dict[str, str]:
    return {one.id: one.sha256 for one in of if one.number not in less}


def measured(probes: list[ProbeRecord], of: list[WriteRecord] | None = None, *less: int) -> Measures:
    of = writes() if of is None else of
    return measure(probes, of, rows(of, *less), FAULT)


# -- RTO ------------------------------------------------------------------------------------------------


def test_an_outage() -> None:
    found = measured(requests((0.2, 1.4)))
    assert found.detection_seconds == pytest.approx(0.204)
    assert found.rto_seconds == pytest.approx(1.404)
    assert found.failover_seconds == pytest.approx(1.2)
    assert [(one.failed, one.ended_seconds) for one in found.outages] == [(24, found.rto_seconds)]
    assert found.requests == 100
    assert (found.problems, found.unknowns, found.notes) == ((), (), ())


def test_no_request_failed_which_is_said() -> None:
    found = measured(requests())
    assert found.rto_seconds == pytest.approx(0.013)
    assert found.detection_seconds is None
    assert found.failover_seconds is None
    assert found.notes == (
        "no request failed: RTO is the time to the first right answer that was asked for later",
    )


def test_failures_of_before_the_fault_are_none_of_it() -> None:
    found = measured(requests((-1.5, -0.5)))
    assert found.outages == ()


def test_a_request_under_way_at_the_fault_that_fails_belongs_to_it() -> None:
    probes = requests()
    cut = next(number for number, one in enumerate(probes) if one.sent_ns >= FAULT) - 1
    probes[cut] = replace(probes[cut], ok=False, answered_ns=at(0.01))
    found = measured(probes)
    assert found.detection_seconds == pytest.approx(0.01)
    assert found.rto_seconds == pytest.approx(0.004)
    assert found.failover_seconds == 0


def test_writes_that_fail_are_an_outage_too() -> None:
    of = [
        replace(one, outcome="failed", answered_ns=one.sent_ns + SECOND // 100)
        if at(0.5) <= one.sent_ns < at(2)
        else one
        for one in writes()
    ]
    found = measured(requests((0.2, 1.4)), of)
    assert found.rto_seconds == pytest.approx(2.013)
    assert found.detection_seconds == pytest.approx(0.204)
    assert [(one.what, one.failed) for one in found.outages] == [("requests", 24), ("writes", 30)]
    assert measured(requests(), of).rto_seconds == pytest.approx(2.013)
    gone = [replace(one, outcome="in_flight") if one.sent_ns > at(0.5) else one for one in writes()]
    found = measured(requests((0.2, 1.4)), gone)
    assert found.rto_seconds is None
    assert found.problems[0].startswith("the service did not recover: 90 writes failed since 0.5 s after")


def test_one_replica_of_two_that_hangs_is_not_taken_for_a_recovery_between_its_failures() -> None:
    probes = [
        replace(one, ok=False, answered_ns=one.sent_ns + SECOND)
        if 0 <= one.sent_ns - FAULT < 2 * SECOND and one.number % 5 == 0
        else one
        for one in requests()
    ]
    found = measured(probes)
    last = max(one.sent_ns for one in probes if not one.ok)
    assert found.rto_seconds == pytest.approx((last - FAULT) / SECOND + STEP + 0.004)
    assert found.detection_seconds == pytest.approx(1.0)
    assert len(found.outages) == 1


def test_a_later_outage_is_told_apart() -> None:
    found = measured(requests((0, 0.5), (3, 3.2)))
    assert found.rto_seconds == pytest.approx(0.504)
    assert found.notes == ("4 requests failed again, from 3.0 s to 3.2 s after the fault",)
    assert found.problems == ()


def test_a_later_outage_that_stays_is_a_problem() -> None:
    found = measured(requests((0, 0.5), (3, 99)))
    assert found.problems == (
        "requests failed again 3.0 s after the fault, and had not recovered when the observation ended",
    )


def test_no_recovery_has_no_rto() -> None:
    found = measured(requests((0.1, 99)))
    assert found.rto_seconds is None
    assert found.problems == (
        "the service did not recover: 98 requests failed since 0.1 s after the fault, and never were 3 in a"
        " row answered rightly, and for 1 s",
    )


def test_two_right_answers_at_the_end_are_no_recovery() -> None:
    assert measured(requests((0.1, 4.9))).rto_seconds is None
    assert measured(requests((0.1, 4.85))).rto_seconds == pytest.approx(4.854)


def test_without_requests_after_the_fault_nothing_is_measured() -> None:
    found = measured(requests(until=-0.05))
    assert found.rto_seconds is None
    assert "RTO was not measured: no request was sent after the fault" in found.unknowns
    assert measured(requests(until=0.1)).unknowns[0] == (
        "RTO was not measured: only 2 requests were sent after the fault"
    )


@given(
    begin=st.floats(0, 1),
    lasts=st.floats(0.2, 10),
    interval=st.floats(0.01, 0.1),
    seed=st.integers(0, 1 << 32),
)
def test_rto_is_the_end_of_the_outage_to_an_interval_and_an_answer(
    begin: float, lasts: float, interval: float, seed: int
) -> None:
    rng = random.Random(seed)
    end, sent, number, probes = begin + lasts, -1.0, 0, []
    while sent < end + 3:
        number, sent = number + 1, sent + interval * rng.uniform(0.5, 1.5)
        ok, takes = not begin <= sent < end, rng.uniform(0.001, 0.02)
        probes.append(ProbeRecord(number, at(sent), at(sent + takes), ok))
    rng.shuffle(probes)
    found = measure(probes, [], {}, FAULT)
    assert found.rto_seconds is not None
    assert found.detection_seconds is not None
    assert end <= found.rto_seconds <= end + 1.5 * interval + 0.02 + 1e-6
    assert begin <= found.detection_seconds <= begin + 1.5 * interval + 0.02 + 1e-6


@given(st.dictionaries(st.integers(-100, 400), st.booleans(), max_size=60))
def test_rto_is_never_before_a_failure_that_is_close_to_it(history: dict[int, bool]) -> None:
    probes = [ProbeRecord(n, at(n / 100), at(n / 100) + 1000, ok) for n, ok in sorted(history.items())]
    found = measure(probes, [], {}, FAULT)
    if found.rto_seconds is None:
        assert found.problems or found.unknowns
        return
    first = next(one for one in probes if one.ok and one.answered_ns == at(found.rto_seconds))
    run = [one for one in probes if one.sent_ns >= first.sent_ns]
    assert first.sent_ns >= FAULT
    assert len(run) >= 3
    assert all(one.ok for one in run if one.sent_ns < first.sent_ns + SECOND)


# -- RPO ------------------------------------------------------------------------------------------------


def test_nothing_lost_is_an_rpo_of_zero() -> None:
    found = measured(requests())
    assert (found.rpo_seconds, found.lost, found.lost_later) == (0.0, (), ())
    assert (found.acknowledged, found.acknowledged_later) == (40, 100)


def test_the_oldest_lost_write_gives_the_rpo_and_the_lost_ones_are_named() -> None:
    found = measured(requests(), None, 30, 38, 39)
    assert found.rpo_seconds == pytest.approx(0.49)
    assert [one.id for one in found.lost] == ["f-30", "f-38", "f-39"]
    assert found.lost[0] == LostWrite(
        id="f-30", sent_seconds=-0.49, acknowledged_seconds=-0.487, what="missing"
    )
    assert found.problems == ()


def test_an_altered_row_is_lost_and_a_problem() -> None:
    of = writes()
    found = measure(requests(), of, {**rows(of), "f-20": "ff"}, FAULT)
    assert [(one.id, one.what) for one in found.lost] == [("f-20", "altered")]
    assert found.rpo_seconds == pytest.approx(0.99)
    assert found.problems == ("1 acknowledged writes have other contents now: f-20",)


def test_a_write_acknowledged_after_the_fault_that_is_lost_is_no_rpo_but_a_problem() -> None:
    found = measured(requests(), None, 100, 101, 102, 103, 104, 105, 106)
    assert found.rpo_seconds == 0
    assert found.problems == (
        "7 writes that were acknowledged after the fault are lost (lost after failover):"
        " f-100, f-101, f-102, f-103, f-104 and 2 more",
    )


def test_what_was_acknowledged_after_the_rows_were_asked_for_need_not_be_among_them() -> None:
    of = writes()
    found = {one.id: one.sha256 for one in of if one.number < 90}
    asked = of[92].sent_ns
    assert (
        measure(requests(), of, found, FAULT, rows_asked_ns=asked).lost_later
        == measured(requests(), of[:92], 90, 91).lost_later
    )
    assert len(measure(requests(), of, found, FAULT).lost_later) == 50


def test_what_was_acknowledged_while_the_fault_was_injected_was_acknowledged_before_it() -> None:
    # Of 140 writes, 40 were sent before the injection began, and 30 in the 1.5 s that it took.
    of, injected = writes(), at(1.5)
    found = measure(requests((1.5, 2.5)), of, rows(of, 60, 69, 70), FAULT, injected_ns=injected)
    assert [one.id for one in found.lost] == ["f-60", "f-69"]
    assert [one.id for one in found.lost_later] == ["f-70"]
    assert (found.acknowledged, found.acknowledged_later) == (70, 70)
    assert found.lost[0].sent_seconds == pytest.approx(1.01)
    assert found.rpo_seconds == pytest.approx(0.49)  # from the end: from the beginning, it would be none
    assert found.rto_seconds == pytest.approx(2.504)  # from the beginning
    assert found.detection_seconds == pytest.approx(1.504)
    assert found.notes == (
        "the fault took 1.5 s to inject: RTO counts from when that began, RPO from when it had ended",
    )


def test_a_right_answer_to_a_request_sent_during_the_injection_is_no_recovery() -> None:
    found = measure(requests(), writes(), {}, FAULT, injected_ns=at(1.5))
    assert found.rto_seconds == pytest.approx(1.513)
    few = measure(requests(until=1.6), writes(), {}, FAULT, injected_ns=at(1.5))
    assert few.rto_seconds is None
    assert few.unknowns[0] == "RTO was not measured: only 2 requests were sent after the fault"


def test_writes_that_stopped_when_a_long_injection_began_are_fresh() -> None:
    of = [one for one in writes() if one.sent_ns < FAULT]
    assert measure([], of, rows(of, 39), FAULT, injected_ns=at(3)).rpo_seconds == pytest.approx(3.04)
    stale = [one for one in writes() if one.sent_ns < at(-1.1)]
    assert measure([], stale, rows(stale), FAULT, injected_ns=at(3)).rpo_seconds is None


@pytest.mark.parametrize("injected", [None, FAULT, FAULT - SECOND])
def test_an_injection_that_took_no_time_changes_nothing(injected: int | None) -> None:
    of = writes()
    found = measure(requests((0.2, 1.4)), of, rows(of, 39, 40), FAULT, injected_ns=injected)
    assert found == measured(requests((0.2, 1.4)), None, 39, 40)


def test_writes_in_flight_are_apart() -> None:
    of = [
        replace(one, outcome="in_flight", answered_ns=None) if one.number in (39, 40) else one
        for one in writes()
    ]
    found = measure(requests(), of, rows(of, 40), FAULT)
    assert found.in_flight == ("f-39", "f-40")
    assert found.in_flight_stored == ("f-39",)
    assert found.rpo_seconds == 0
    assert found.problems == ()


def test_a_refused_write_that_is_there_is_no_problem() -> None:
    of = [replace(one, outcome="failed") if one.number == 50 else one for one in writes()]
    assert measure(requests(), of, rows(of), FAULT).problems == ()


def test_a_row_that_nobody_wrote_is_a_problem() -> None:
    of = writes()
    found = measure(requests(), of, {**rows(of), "f-9999": "00"}, FAULT)
    assert found.problems == ("1 rows are there that were never written: f-9999",)


@pytest.mark.parametrize("last", [-1.01, -1.5])
def test_without_a_fresh_acknowledged_write_the_rpo_is_not_measured(last: float) -> None:
    of = [one for one in writes() if one.answered_ns and one.answered_ns <= at(last)]
    found = measure(requests(), of, rows(of), FAULT)
    assert found.rpo_seconds is None
    assert found.unknowns[0] == (
        "RPO was not measured: no write was acknowledged in the last 1 s before the fault;"
        " is the canary alive?"
    )


def test_rows_that_cannot_be_read_leave_the_rpo_unmeasured() -> None:
    found = measure(requests(), writes(), None, FAULT)
    assert found.rpo_seconds is None
    assert found.unknowns == ("RPO was not measured: the canary's rows could not be read",)


def test_a_canary_that_dies_after_the_fault_is_said() -> None:
    found = measured(requests(), writes(until=1.0))
    assert found.unknowns == (
        "nothing was written for 3.9 s, from 1.0 s after the fault: what happened to the service then is not"
        " known",
    )


def test_a_prober_that_dies_after_the_fault_is_said() -> None:
    found = measured(requests(until=0.5), writes())
    assert found.unknowns == (
        "no request was sent for 4.5 s, from 0.5 s after the fault: what happened to the service then is not"
        " known",
    )


def test_a_machine_that_stood_still_is_no_dead_canary() -> None:
    probes = [one for one in requests() if not at(1) < one.sent_ns < at(4)]
    of = [one for one in writes() if not at(1) < one.sent_ns < at(4)]
    assert measured(probes, of).unknowns == ()


@given(lost=st.sets(st.integers(0, 139), max_size=20), seed=st.integers(0, 1 << 32))
def test_lost_writes_are_exactly_those_that_are_lost(lost: set[int], seed: int) -> None:
    of = writes()
    shuffled = random.Random(seed).sample(of, len(of))
    found = measure(requests(), shuffled, rows(of, *lost), FAULT)
    before = sorted(number for number in lost if number < 40)
    assert [one.id for one in found.lost] == [f"f-{number}" for number in before]
    assert [one.id for one in found.lost_later] == [f"f-{number}" for number in sorted(lost) if number >= 40]
    assert found.rpo_seconds == (pytest.approx((FAULT - of[before[0]].sent_ns) / SECOND) if before else 0)
    assert Measures.model_validate_json(found.model_dump_json()) == found


# -- restore tests ----------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_a_restore_test_has_the_restores_time_and_the_backups_age() -> None:
    found = measure_restore(NOW, NOW + timedelta(seconds=61), NOW - timedelta(hours=3), NOW)
    assert (found.rto_seconds, found.rpo_seconds, found.unknowns) == (61, 10_800, ())


@pytest.mark.parametrize(
    ("backup_at", "message"),
    [
        (None, "RPO was not measured: it is not known when the restored backup was made"),
        (
            NOW + timedelta(seconds=1),
            "RPO was not measured: the restored backup is younger than the time it is asked for",
        ),
    ],
)
def test_an_age_that_is_not_known_is_not_zero(backup_at: datetime | None, message: str) -> None:
    found = measure_restore(NOW, NOW, backup_at, NOW)
    assert found.rpo_seconds is None
    assert found.unknowns == (message,)
