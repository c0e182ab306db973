"""What to improve, as a drill has shown it: derived from what was found, never written by hand."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord

Urgency = Literal["now", "soon", "consider"]
_ORDER: tuple[Urgency, ...] = ("now", "soon", "consider")
_LITTLE_ROOM, _MUCH_ROOM = 0.8, 0.1  # of an objective
_MOST_OF_IT, _SLOW_SECONDS = 0.5, 2.0
_SLOWER, _SLOWER_SECONDS, _FEWEST = 1.5, 1.0, 3
_NOT_BY_THE_DRILL = {
    "time_to_live": "its time to live ended",
    "reaper": "the reaper found it",
    "signal": "its holder was told to end",
}


class Improvement(BaseModel):
    """One thing to improve.

    :param urgency: ``now``: until then, recovery is not proven; ``soon``: before the next drill
    :param what: what was found, in a sentence
    :param remedy: what to do about it
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    urgency: Urgency
    what: str
    remedy: str


def find_improvements(record: DrillRecord, problems: Sequence[str] = ()) -> tuple[Improvement, ...]:
    """Return what to improve, most urgent first.

    :param record: of a drill with its verdict
    :param problems: why something could not be measured
    """
    if record.plan.dry_run:
        return ()
    found = [
        *_of_fault(record),
        *_of_checks(record),
        *_of_problems(problems),
        *_of_rto(record),
        *_of_rpo(record),
        *_of_history(record),
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: _ORDER.index(one.urgency)))


def _of_fault(record: DrillRecord) -> Iterator[Improvement]:
    if record.fault is None:
        return
    if record.is_fault_left:
        why = record.fault["problem"] or "undo_fault has not taken it back"
        yield Improvement(
            urgency="now",
            what=words.sentence(f"The fault may still be there: {why}"),
            remedy="Take it back as docs/runbooks/disaster_recovery.md tells; then see why it stayed.",
        )
    elif (by := record.fault["undone_by"]) in _NOT_BY_THE_DRILL:
        yield Improvement(
            urgency="soon",
            what=f"The drill did not take its fault back itself: {_NOT_BY_THE_DRILL[by]}.",
            remedy="See why undo_fault came late: a stopped scheduler, a paused DAG, a time to live that is"
            " too short.",
        )


def _of_checks(record: DrillRecord) -> Iterator[Improvement]:
    for name, row in record.drill.steps.items():
        odd = [one for one in row.result.checks if one.get("status") not in ("passed", "dry_run")]
        for check in odd:
            told = str(check.get("detail") or "no detail")
            failed = check.get("status") == "failed"
            yield Improvement(
                urgency="now",
                what=words.sentence(f"{words.step(str(check.get('name', name)))}: {told}"),
                remedy="Mend what differs, then drill again."
                if failed
                else "Make it possible to tell, then drill again: what is not known has not passed.",
            )
        if not odd and row.result.status in ("failed", "inconclusive", "aborted", "refused"):
            for problem in row.result.problems or (row.result.summary,):
                yield Improvement(
                    urgency="now",
                    what=words.sentence(f"{words.step(name)}: {problem}"),
                    remedy="See to it, then drill again.",
                )


def _of_problems(problems: Sequence[str]) -> Iterator[Improvement]:
    for problem in problems:
        yield Improvement(
            urgency="now",
            what=words.sentence(problem),
            remedy="See to the observer on the worker, then drill again.",
        )


def _of_rto(record: DrillRecord) -> Iterator[Improvement]:
    rto, objective = record.drill.figures.get("rto_seconds"), record.drill.rto_objective_seconds
    if rto is None:
        return
    if rto > _LITTLE_ROOM * objective:
        part, remedy = _longest_part(record)
        over = rto > objective
        yield Improvement(
            urgency="now" if over else "soon",
            what=f"Recovery took {words.seconds(rto)} of {words.seconds(objective)}"
            + (", which is too long" if over else ", which leaves little room")
            + (f"; {part}." if part else "."),
            remedy=remedy,
        )
    detection = record.drill.figures.get("detection_seconds")
    failover = record.drill.figures.get("failover_seconds")
    if detection and failover and detection > _SLOW_SECONDS and detection > _MOST_OF_IT * rto:
        yield Improvement(
            urgency="consider",
            what=f"It took {words.seconds(detection)} of {words.seconds(rto)} until users noticed anything.",
            remedy="See what hid the fault for so long, as a cache: it hides a real one too.",
        )


def _longest_part(record: DrillRecord) -> tuple[str, str]:
    rto = record.drill.figures.get("rto_seconds") or 0.0
    restore = record.step("restore_service")
    taken = (restore.finished_at - restore.started_at).total_seconds() if restore else 0.0
    if taken > _MOST_OF_IT * rto:
        return (
            f"restoring took {words.seconds(taken)}",
            "Make restoring faster: nearer or smaller backups, or a spare that is ready.",
        )
    return "", "Make the failover faster: shorter intervals and time-outs of health checks, a warmer spare."


def _of_rpo(record: DrillRecord) -> Iterator[Improvement]:
    figures, objective = record.drill.figures, record.drill.rpo_objective_seconds
    rpo, lost = figures.get("rpo_seconds"), figures.get("lost_writes")
    if rpo is not None and rpo > objective:
        yield Improvement(
            urgency="now",
            what=f"{words.seconds(rpo)} of data were lost, and at most {words.seconds(objective)} may be.",
            remedy="Replicate synchronously, or back up more often.",
        )
    elif lost:
        yield Improvement(
            urgency="consider",
            what=f"{words.number(lost, 'acknowledged write')} of the last {words.seconds(rpo)} were lost,"
            " within the objective.",
            remedy="If no write may be lost: replicate synchronously, and set rpo_seconds to 0.",
        )


def _of_history(record: DrillRecord) -> Iterator[Improvement]:
    rto, objective = record.drill.figures.get("rto_seconds"), record.drill.rto_objective_seconds
    before = [
        one.rto_seconds for one in record.earlier if one.rto_seconds is not None and one.verdict == "PASS"
    ]
    if rto is None or len(before) < _FEWEST:
        return
    usual = statistics.median(before)
    if rto > _SLOWER * usual and rto - usual > _SLOWER_SECONDS:
        yield Improvement(
            urgency="soon",
            what=f"Recovery took {words.seconds(rto)}, where it took {words.seconds(usual)} in the median of"
            f" {len(before)} drills before.",
            remedy="See what has changed since the last drill.",
        )
    if max([rto, *before]) < _MUCH_ROOM * objective:
        yield Improvement(
            urgency="consider",
            what=f"The last {len(before) + 1} drills all recovered within"
            f" {words.seconds(max([rto, *before]))}, where {words.seconds(objective)} are allowed.",
            remedy="Lower rto_seconds, so that a recovery that becomes slow is noticed.",
        )
