"""What happened in a drill, in seconds from its fault: small enough for a row, and all that pictures need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fastvlm_ops.core.disaster_recovery.drills import StepRow
from fastvlm_ops.core.disaster_recovery.ledger import ProbeRecord, WriteRecord
from fastvlm_ops.core.disaster_recovery.measuring import Measures, What
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord

Outcome = Literal["acknowledged", "in_flight", "failed", "lost"]
#: Of several that stand at one place of a picture, the last of these is seen.
OUTCOMES: tuple[Outcome, ...] = ("acknowledged", "in_flight", "failed", "lost")

_MOST_REQUESTS, _MOST_WRITES = 1200, 600


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(_Part):
    """A request of the prober.

    :param at: when it was sent
    :param latency_ms: until it was answered; None where it was not
    :param ok: whether it was answered rightly
    """

    at: float
    latency_ms: float | None
    ok: bool


class Write(_Part):
    """A write of the canary; ``lost``: it was acknowledged, and is missing."""

    at: float
    outcome: Outcome


class Span(_Part):
    """A step, from its start to its end."""

    step: str
    status: str
    start: float
    end: float


class Outage(_Part):
    """A time in which requests or writes failed.

    :param what: failed
    :param start: when the first of them was sent
    :param known: when it was known that one had failed: a time-out can end after users are served again
    :param end: the first right answer; None where requests never succeeded again
    """

    what: What = "requests"
    start: float
    known: float
    end: float | None
    failed: int


class Command(_Part):
    """What was done to the target."""

    step: str
    at: float
    what: str


class Timeline(_Part):
    """A drill.

    :param has_fault: whether zero is the fault; else it is the start of the first step
    :param undone: when nothing was left of the fault; None where that is not known, or there was none
    :param recovered: first validated request after the fault; None where there was none
    """

    has_fault: bool
    spans: tuple[Span, ...]
    commands: tuple[Command, ...] = ()
    requests: tuple[Request, ...] = ()
    writes: tuple[Write, ...] = ()
    outages: tuple[Outage, ...] = ()
    undone: float | None = None
    recovered: float | None = None

    @property
    def start(self) -> float:
        """Where its picture begins: an approval may have taken hours, and says nothing."""
        begins = [span.start for span in self.spans if span.step != "guard"]
        return min([*begins, *(one.at for one in self.requests[:1])], default=0.0)

    @property
    def end(self) -> float:
        """Where its picture ends."""
        ends = [*(span.end for span in self.spans), *(one.at for one in self.requests[-1:])]
        return max([*ends, self.start + 1.0])

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads: rows as short lists, since there are many."""
        plain = self.model_dump(mode="json", exclude={"requests", "writes"})
        requests = [[one.at, one.latency_ms, int(one.ok)] for one in self.requests]
        return {**plain, "requests": requests, "writes": [[one.at, one.outcome] for one in self.writes]}

    @classmethod
    def from_json(cls, value: Any) -> Timeline | None:
        """Return a timeline; None where the value is none.

        :param value: of :meth:`as_json`
        """
        try:
            requests = [{"at": at, "latency_ms": ms, "ok": bool(ok)} for at, ms, ok in value["requests"]]
            writes = [{"at": at, "outcome": outcome} for at, outcome in value["writes"]]
            return cls.model_validate({**value, "requests": requests, "writes": writes})
        except (KeyError, TypeError, ValueError):
            return None


def make_timeline(
    record: DrillRecord,
    probes: Iterable[ProbeRecord] = (),
    writes: Iterable[WriteRecord] = (),
    *,
    measures: Measures | None = None,
    fault_ns: int | None = None,
) -> Timeline:
    """Return what happened in a drill.

    :param record: of the drill
    :param probes: requests of the prober
    :param writes: of the canary
    :param measures: what was measured; None where nothing was
    :param fault_ns: when the fault was injected, on the observer's clock; None where it was not: nobody can
        say then when a request was
    """
    probes, writes = list(probes), list(writes)
    has_fault = record.drill.fault_at is not None
    found = measures or Measures()
    lost = {one.id for one in (*found.lost, *found.lost_later)}
    return Timeline(
        has_fault=has_fault,
        spans=tuple(_span(record, name, row) for name, row in record.drill.steps.items()),
        commands=tuple(Command(step=step, at=at, what=what) for step, at, what in record.commands()),
        requests=tuple(_fewer_requests([_request(one, fault_ns) for one in probes])) if fault_ns else (),
        writes=tuple(_fewer_writes([_write(one, fault_ns, lost) for one in writes])) if fault_ns else (),
        outages=tuple(_outages(found, probes, writes, fault_ns)) if fault_ns else (),
        undone=record.undone_after_seconds,
        recovered=found.rto_seconds if has_fault else None,
    )


def _span(record: DrillRecord, name: str, row: StepRow) -> Span:
    start, end = (
        round((moment - record.zero).total_seconds(), 3) for moment in (row.started_at, row.finished_at)
    )
    return Span(step=name, status=row.result.status, start=start, end=end)


def _outages(
    measures: Measures, probes: Sequence[ProbeRecord], writes: Sequence[WriteRecord], fault_ns: int
) -> Iterator[Outage]:
    failed: dict[What, list[float]] = {
        "requests": [(one.sent_ns - fault_ns) / 1e9 for one in probes if not one.ok],
        "writes": [(one.sent_ns - fault_ns) / 1e9 for one in writes if one.outcome != "acknowledged"],
    }
    before: dict[What, float] = {}
    for one in measures.outages:
        end = float("inf") if one.ended_seconds is None else one.ended_seconds
        sent = [at for at in failed[one.what] if before.get(one.what, float("-inf")) < at < end]
        start = round(max(min([*sent, one.began_seconds]), 0.0), 3)
        known = one.began_seconds
        yield Outage(what=one.what, start=start, known=known, end=one.ended_seconds, failed=one.failed)
        before[one.what] = end


def _request(probe: ProbeRecord, fault_ns: int) -> Request:
    at, latency = (probe.sent_ns - fault_ns) / 1e9, (probe.answered_ns - probe.sent_ns) / 1e6
    return Request(at=round(at, 3), latency_ms=round(latency, 2), ok=probe.ok)


def _write(write: WriteRecord, fault_ns: int, lost: set[str]) -> Write:
    at = round((write.sent_ns - fault_ns) / 1e9, 3)
    return Write(at=at, outcome="lost" if write.id in lost else write.outcome)


def _groups(rows: Sequence[Any], most: int) -> Iterable[list[Any]]:
    """Rows that stand at one place of a picture."""
    if len(rows) <= most:
        yield from ([row] for row in rows)
        return
    first, width = rows[0].at, (rows[-1].at - rows[0].at) / most or 1.0
    group: list[Any] = []
    place = 0
    for row in rows:
        here = int((row.at - first) / width)
        if group and here != place:
            yield group
            group = []
        place = here
        group.append(row)
    if group:
        yield group


def _fewer_requests(rows: list[Request]) -> Iterable[Request]:
    for group in _groups(sorted(rows, key=lambda one: one.at), _MOST_REQUESTS):
        failed = [one for one in group if not one.ok]
        yield max(failed or group, key=lambda one: one.latency_ms or 0.0)


def _fewer_writes(rows: list[Write]) -> Iterable[Write]:
    for group in _groups(sorted(rows, key=lambda one: one.at), _MOST_WRITES):
        yield max(group, key=lambda one: OUTCOMES.index(one.outcome))
