"""RTO, RPO and lost writes, from what the observer wrote down. Pure: the same ledger gives the same figures.

A figure that was not measured is None, and ``unknowns`` says why. What the service did wrong is in
``problems``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Literal

from fastvlm_ops.core.disaster_recovery.fault_types import Recorded
from fastvlm_ops.core.disaster_recovery.ledger import ProbeRecord, WriteRecord

#: So many requests in a row have to be answered rightly for an outage to be over,
CONSECUTIVE = 3
#: and none that is sent this soon after the first of them may fail: one replica of two that fails half of the
#: requests would otherwise pass for a recovery now and then.
STABLE_SECONDS = 1.0
#: The canary has to have had a write acknowledged this shortly before the fault, or nobody knows what could
#: have been lost.
FRESH_SECONDS = 1.0
#: Prober and canary see to one another: where one went on for so long without the other, that one was dead.
SILENT_SECONDS = 2.0
#: A fault that took longer to inject than this is said to have.
INJECTED_SECONDS = 0.1

_SECOND = 1_000_000_000
_STOOD_STILL = 0.5  # longer without anything from either: the machine was busy with something else
_NAMED = 5


What = Literal["requests", "writes"]


class Outage(Recorded):
    """A time in which requests or writes failed. Seconds are counted from the fault.

    :param what: failed
    :param began_seconds: when the first of its failures was known
    :param ended_seconds: when the first right answer after the last failure was there; None: never
    :param failed: how many failed
    """

    what: What = "requests"
    began_seconds: float
    ended_seconds: float | None
    failed: int


class LostWrite(Recorded):
    """An acknowledged write that is not there as it was written. Seconds are counted from the fault.

    :param id: of its row
    :param what: ``missing``, or ``altered``: there, with other contents
    """

    id: str
    sent_seconds: float
    acknowledged_seconds: float
    what: Literal["missing", "altered"]


class Measures(Recorded):
    """What a drill has measured. Seconds are counted from when the injection of the fault began. What was
    acknowledged before it ended was acknowledged at the fault: until then, what is hit may go on.

    :param rto_seconds: to the first right answer after the outage: to a request and, where writes failed, to
        a write as well; None: never, or not measured
    :param detection_seconds: to the moment that the first failed request was known; None where none failed
    :param failover_seconds: from there to the first right answer; 0 where users were served again before a
        time-out told of the outage; None where none failed, or none succeeded again
    :param rpo_seconds: age, at the fault, of the oldest write that had been acknowledged and is lost; 0 where
        none is lost; None: not measured
    :param lost: of the writes that had been acknowledged at the fault
    :param lost_later: of those that were acknowledged afterwards
    :param acknowledged: how many writes had been acknowledged at the fault
    :param acknowledged_later: how many were afterwards
    :param in_flight: ids of writes of which nobody said whether they are stored
    :param in_flight_stored: those of them that are there
    :param outages: of requests and of writes after the fault
    :param requests: how many were sent after the fault
    :param problems: what the service did wrong
    :param unknowns: what could not be measured, and why
    :param notes: what a reader of the figures should know
    """

    rto_seconds: float | None = None
    detection_seconds: float | None = None
    failover_seconds: float | None = None
    rpo_seconds: float | None = None
    lost: tuple[LostWrite, ...] = ()
    lost_later: tuple[LostWrite, ...] = ()
    acknowledged: int = 0
    acknowledged_later: int = 0
    in_flight: tuple[str, ...] = ()
    in_flight_stored: tuple[str, ...] = ()
    outages: tuple[Outage, ...] = ()
    requests: int = 0
    problems: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    probes: Sequence[ProbeRecord],
    writes: Sequence[WriteRecord],
    rows_found: Mapping[str, str] | None,
    fault_ns: int,
    *,
    injected_ns: int | None = None,
    rows_asked_ns: int | None = None,
) -> Measures:
    """Measure a drill of a service.

    :param probes: requests of the prober, in any order
    :param writes: of the canary, in any order
    :param rows_found: what the service has of the canary at the end: id of each row → SHA-256 of its payload,
        in lower-case hexadecimal; None where it could not be read
    :param fault_ns: when the injection of the fault began, on the machine's monotonic clock
    :param injected_ns: when it had ended; None: at once
    :param rows_asked_ns: when the rows were asked for, where the canary went on: what was acknowledged later
        need not be among them; None: all has to be
    """
    probes = sorted(probes, key=lambda probe: (probe.sent_ns, probe.number))
    writes = sorted(writes, key=lambda write: (write.sent_ns, write.number))
    injected_ns = fault_ns if injected_ns is None else max(injected_ns, fault_ns)
    recovery = _recovery(probes, writes, fault_ns, injected_ns)
    data = _data(writes, rows_found, (fault_ns, injected_ns), rows_asked_ns)
    blind = _blind([one.sent_ns for one in probes], [one.sent_ns for one in writes], fault_ns)
    merged = {
        "problems": (*recovery.problems, *data.problems),
        "unknowns": (*recovery.unknowns, *data.unknowns, *blind),
        "notes": (*recovery.notes, *_long_injection(_seconds(injected_ns, fault_ns))),
    }
    return data.model_copy(update={name: getattr(recovery, name) for name in _RECOVERY} | merged)


def _long_injection(seconds: float) -> tuple[str, ...]:
    counts = "RTO counts from when that began, RPO from when it had ended"
    return (f"the fault took {seconds:.1f} s to inject: {counts}",) if seconds > INJECTED_SECONDS else ()


def measure_restore(
    began_at: datetime, validated_at: datetime, backup_at: datetime | None, as_of: datetime
) -> Measures:
    """Measure a restore test, which breaks nothing.

    :param began_at: when the restore began
    :param validated_at: when all of it was validated
    :param backup_at: when the backup that was restored was made; None where that is not known
    :param as_of: of the run: when the data would have been lost
    """
    rto = (validated_at - began_at).total_seconds()
    unknowns = [] if rto >= 0 else ["RTO was not measured: the clock went back during the restore"]
    rpo = None if backup_at is None else (as_of - backup_at).total_seconds()
    if rpo is None:
        unknowns.append("RPO was not measured: it is not known when the restored backup was made")
    elif rpo < 0:
        unknowns.append("RPO was not measured: the restored backup is younger than the time it is asked for")
    return Measures(
        rto_seconds=rto if rto >= 0 else None,
        rpo_seconds=rpo if rpo is None or rpo >= 0 else None,
        unknowns=tuple(unknowns),
        notes=("nothing was broken: RTO is the time of restoring and validating, RPO the backup's age",),
    )


_RECOVERY = ("rto_seconds", "detection_seconds", "failover_seconds", "outages", "requests")


def _recovery(
    probes: list[ProbeRecord], writes: list[WriteRecord], fault_ns: int, injected_ns: int
) -> Measures:
    """The figures of requests and writes: both are what users ask, and only both make a recovery.

    :param probes: in the order they were sent in
    :param writes: likewise
    """
    asked: dict[What, list[ProbeRecord]] = {
        "requests": _after(probes, fault_ns),
        "writes": _after([_as_request(one) for one in writes if one.answered_ns is not None], fault_ns),
    }
    sent = sum(one.sent_ns >= injected_ns for one in asked["requests"])
    if sent < CONSECUTIVE:
        count = f"only {sent} requests were" if sent else "no request was"
        return Measures(requests=sent, unknowns=(f"RTO was not measured: {count} sent after the fault",))
    outages = {what: _outages(what, events, fault_ns) for what, events in asked.items()}
    first = [found[0] for found in outages.values() if found]
    if not first:
        later_asked = ([one for one in events if one.sent_ns >= injected_ns] for events in asked.values())
        seen = [events[0].answered_ns for events in later_asked if events]
        return Measures(
            rto_seconds=_seconds(max(seen), fault_ns),
            requests=sent,
            notes=("no request failed: RTO is the time to the first right answer that was asked for later",),
        )
    ends = [one.ended_seconds for one in first if one.ended_seconds is not None]
    rto = max(ends) if len(ends) == len(first) else None
    detection = min(one.began_seconds for one in first)
    later = [one for found in outages.values() for one in found[1:]]
    return Measures(
        rto_seconds=rto,
        detection_seconds=detection,
        failover_seconds=None if rto is None else max(0.0, rto - detection),
        outages=tuple(sorted([*first, *later], key=lambda one: one.began_seconds)),
        requests=sent,
        problems=tuple(
            [_never_over(one) for one in first if one.ended_seconds is None]
            + [_not_over_again(one) for one in later if one.ended_seconds is None]
        ),
        notes=tuple(
            f"{one.failed} {one.what} failed again, from {one.began_seconds:.1f} s to"
            f" {one.ended_seconds:.1f} s after the fault"
            for one in later
            if one.ended_seconds is not None
        ),
    )


def _after(events: list[ProbeRecord], fault_ns: int) -> list[ProbeRecord]:
    """What belongs to the time after the fault: also what was under way when it came, and failed."""
    return [one for one in events if one.sent_ns >= fault_ns or (one.answered_ns >= fault_ns and not one.ok)]


def _as_request(write: WriteRecord) -> ProbeRecord:
    answered = write.sent_ns if write.answered_ns is None else write.answered_ns
    return ProbeRecord(write.number, write.sent_ns, answered, write.outcome == "acknowledged")


def _never_over(outage: Outage) -> str:
    return (
        f"the service did not recover: {outage.failed} {outage.what} failed since"
        f" {outage.began_seconds:.1f} s after the fault, and never were {CONSECUTIVE} in a row answered"
        f" rightly, and for {STABLE_SECONDS:g} s"
    )


def _not_over_again(outage: Outage) -> str:
    return (
        f"{outage.what} failed again {outage.began_seconds:.1f} s after the fault, and had not recovered when"
        " the observation ended"
    )


def _outages(what: What, after: list[ProbeRecord], fault_ns: int) -> list[Outage]:
    """The outages among what belongs to the time after the fault."""
    found: list[Outage] = []
    position = 0
    while (start := _next_failure(after, position)) is not None:
        end = _recovered(after, start)
        failed = [one for one in after[start:end] if not one.ok]
        ended = None if end is None else _seconds(after[end].answered_ns, fault_ns)
        began = _seconds(min(one.answered_ns for one in failed), fault_ns)
        found.append(Outage(what=what, began_seconds=began, ended_seconds=ended, failed=len(failed)))
        if end is None:
            break
        position = end
    return found


def _next_failure(after: list[ProbeRecord], position: int) -> int | None:
    return next((number for number in range(position, len(after)) if not after[number].ok), None)


def _recovered(after: list[ProbeRecord], start: int) -> int | None:
    """Position of the first right answer after the outage that begins with the failure at ``start``."""
    failure: int | None = start
    while failure is not None:
        first = next((number for number in range(failure, len(after)) if after[number].ok), None)
        if first is None:
            return None
        failure = _next_failure(after, first)
        if failure is None:
            return first if len(after) - first >= CONSECUTIVE else None
        stable = after[failure].sent_ns - after[first].sent_ns >= STABLE_SECONDS * _SECOND
        if failure - first >= CONSECUTIVE and stable:
            return first
    return None


def _data(
    writes: list[WriteRecord],
    found: Mapping[str, str] | None,
    injection: tuple[int, int],
    asked_ns: int | None,
) -> Measures:
    """The figures of the canary's writes.

    :param injection: when that of the fault began, and when it had ended
    """
    fault_ns, injected_ns = injection
    injected = _seconds(injected_ns, fault_ns)
    acknowledged = [(one, one.acknowledged_ns) for one in writes if one.acknowledged_ns is not None]
    before = [(one, when) for one, when in acknowledged if when <= injected_ns]
    after = [(one, when) for one, when in acknowledged if when > injected_ns]
    in_flight = tuple(one.id for one in writes if one.outcome == "in_flight")
    unknowns = []
    if not any(fault_ns - when <= FRESH_SECONDS * _SECOND for _, when in before):
        unknowns.append(
            "RPO was not measured: no write was acknowledged in the last"
            f" {FRESH_SECONDS:g} s before the fault; is the canary alive?"
        )
    if found is None:
        unknowns.append("RPO was not measured: the canary's rows could not be read")
    rows = {} if found is None else found
    compared = [(one, when) for one, when in after if asked_ns is None or when < asked_ns]
    lost = () if found is None else _lost(before, rows, fault_ns)
    lost_later = () if found is None else _lost(compared, rows, fault_ns)
    strangers = sorted(set(rows) - {one.id for one in writes})
    return Measures(
        rpo_seconds=None if unknowns else max((injected - one.sent_seconds for one in lost), default=0.0),
        lost=lost,
        lost_later=lost_later,
        acknowledged=len(before),
        acknowledged_later=len(after),
        in_flight=in_flight,
        in_flight_stored=tuple(one for one in in_flight if one in rows),
        problems=_data_problems(lost, lost_later, strangers),
        unknowns=tuple(unknowns),
    )


def _lost(
    acknowledged: list[tuple[WriteRecord, int]], found: Mapping[str, str], fault_ns: int
) -> tuple[LostWrite, ...]:
    return tuple(
        LostWrite(
            id=one.id,
            sent_seconds=_seconds(one.sent_ns, fault_ns),
            acknowledged_seconds=_seconds(when, fault_ns),
            what="altered" if one.id in found else "missing",
        )
        for one, when in acknowledged
        if found.get(one.id) != one.sha256
    )


def _data_problems(
    lost: Iterable[LostWrite], lost_later: Iterable[LostWrite], strangers: list[str]
) -> tuple[str, ...]:
    problems = []
    # What is merely missing is the RPO, which has an objective; other contents have none.
    if altered := [one.id for one in lost if one.what == "altered"]:
        problems.append(f"{len(altered)} acknowledged writes have other contents now: {_named(altered)}")
    if later := [one.id for one in lost_later]:
        problems.append(
            f"{len(later)} writes that were acknowledged after the fault are lost (lost after failover):"
            f" {_named(later)}"
        )
    if strangers:
        problems.append(f"{len(strangers)} rows are there that were never written: {_named(strangers)}")
    return tuple(problems)


def _blind(requests: Sequence[int], writes: Sequence[int], fault_ns: int) -> tuple[str, ...]:
    """What to say where one half of the observer went on and the other did not. That both wait for a while,
    as on a busy machine, says nothing of either.

    :param requests: when they were sent, in order
    :param writes: when they were sent, in order
    """
    found = []
    for what, own, others in (
        ("no request was sent", requests, writes),
        ("nothing was written", writes, requests),
    ):
        seconds, began = _longest_silence(own, others, fault_ns)
        if own and seconds > SILENT_SECONDS:
            found.append(
                f"{what} for {seconds:.1f} s, from {_seconds(began, fault_ns):.1f} s after the fault: what"
                " happened to the service then is not known"
            )
    return tuple(found)


def _longest_silence(own: Sequence[int], others: Sequence[int], fault_ns: int) -> tuple[float, int]:
    """For how long ``others`` went on without any of ``own`` after the fault, at the most, and since when."""
    longest, began = 0.0, fault_ns
    end = max([fault_ns, *own[-1:], *others[-1:]]) + 1
    for start, stop in pairwise([fault_ns, *own[bisect_right(own, fault_ns) :], end]):
        between = others[bisect_right(others, start) : bisect_left(others, stop)]
        went_on = sum(min((later - sooner) / _SECOND, _STOOD_STILL) for sooner, later in pairwise(between))
        if went_on > longest:
            longest, began = went_on, start
    return longest, began


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}"


def _seconds(moment_ns: int, fault_ns: int) -> float:
    return (moment_ns - fault_ns) / _SECOND
