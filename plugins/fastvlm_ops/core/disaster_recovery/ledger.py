"""What the observer has written down: each request and each write, on the machine's monotonic clock.

Files are only ever added to, a line at a time, so that what a killed observer leaves is all there but for a
last line cut short. A write has two lines: one before it is sent, and one with what became of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROBES_FILE = "probes.csv"
WRITES_FILE = "writes.csv"
PROBE_COLUMNS = ("number", "sent_ns", "answered_ns", "ok", "status", "detail")
WRITE_COLUMNS = ("number", "id", "sha256", "sent_ns", "outcome", "answered_ns", "detail")

WriteOutcome = Literal["acknowledged", "failed", "in_flight"]
_OUTCOMES: dict[str, WriteOutcome] = {
    "acknowledged": "acknowledged",
    "failed": "failed",
    "in_flight": "in_flight",
}


class LedgerError(Exception):
    """A ledger cannot be read, or holds what the observer does not write."""

    retryable = False


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """One request of the prober.

    :param number: in the order in which they were sent
    :param sent_ns: when it was begun
    :param answered_ns: when it was known what became of it: the whole answer, or the time-out
    :param ok: whether the answer was the right one
    :param status: of the answer; None where there was none
    :param detail: what was wrong, for people
    """

    number: int
    sent_ns: int
    answered_ns: int
    ok: bool
    status: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """One write of the canary, which is never tried twice.

    :param id: of its row
    :param sha256: of the payload
    :param sent_ns: when it was begun
    :param outcome: ``acknowledged``: the service said that it is stored; ``failed``: it said that it is not,
        or it was never reached; ``in_flight``: nobody said, and either may be true
    :param answered_ns: when the outcome was known; None while it is not
    :param detail: what was wrong, for people
    """

    number: int
    id: str
    sha256: str
    sent_ns: int
    outcome: WriteOutcome
    answered_ns: int | None = None
    detail: str = ""

    @property
    def acknowledged_ns(self) -> int | None:
        """When it was acknowledged; None where it was not."""
        return self.answered_ns if self.outcome == "acknowledged" else None


def probe_row(probe: ProbeRecord) -> tuple[str, ...]:
    """Return a request as a line of its file."""
    status = "" if probe.status is None else str(probe.status)
    numbers = (str(probe.number), str(probe.sent_ns), str(probe.answered_ns))
    return (*numbers, "1" if probe.ok else "0", status, _one_line(probe.detail))


def write_row(write: WriteRecord) -> tuple[str, ...]:
    """Return a write, as far as it is known, as a line of its file."""
    answered = "" if write.answered_ns is None else str(write.answered_ns)
    return (
        str(write.number),
        write.id,
        write.sha256,
        str(write.sent_ns),
        write.outcome,
        answered,
        _one_line(write.detail),
    )


def read_probes(folder: Path) -> list[ProbeRecord]:
    """Return the requests of a drill, in the order in which they were sent.

    :param folder: of the drill
    :raises LedgerError: there is no such file, or it is broken
    """
    found = []
    for where, row in _rows(folder / PROBES_FILE, PROBE_COLUMNS):
        try:
            number, sent, answered = (int(row[name]) for name in PROBE_COLUMNS[:3])
            ok = {"0": False, "1": True}[row["ok"]]
            status = int(row["status"]) if row["status"] else None
        except (KeyError, ValueError) as error:
            raise LedgerError(f"{where} is no request of the prober ({error})") from error
        found.append(ProbeRecord(number, sent, answered, ok, status, row["detail"]))
    return sorted(found, key=lambda probe: (probe.sent_ns, probe.number))


def read_writes(folder: Path) -> list[WriteRecord]:
    """Return the writes of a drill, each with the last that is known of it, in the order they were sent in.

    :param folder: of the drill
    :raises LedgerError: there is no such file, or it is broken
    """
    found: dict[str, WriteRecord] = {}
    for where, row in _rows(folder / WRITES_FILE, WRITE_COLUMNS):
        try:
            write = WriteRecord(
                number=int(row["number"]),
                id=row["id"],
                sha256=row["sha256"],
                sent_ns=int(row["sent_ns"]),
                outcome=_OUTCOMES[row["outcome"]],
                answered_ns=int(row["answered_ns"]) if row["answered_ns"] else None,
                detail=row["detail"],
            )
        except (KeyError, ValueError) as error:
            raise LedgerError(f"{where} is no write of the canary ({error})") from error
        if write.outcome == "acknowledged" and write.answered_ns is None:
            raise LedgerError(f"{where} is acknowledged and does not say when")
        before = found.get(write.id)
        if before and (before.outcome != "in_flight" or before.sha256 != write.sha256):
            raise LedgerError(f"{where} contradicts an earlier line about {write.id}")
        found[write.id] = write
    return sorted(found.values(), key=lambda write: (write.sent_ns, write.number))


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where a row stands, for messages, and the row."""
    try:
        content = file.read_bytes()
        # What follows the last end of a line was cut short when the observer was killed.
        text = content[: content.rfind(b"\n") + 1].decode()
        head, *rest = list(csv.reader(text.split("\n")[:-1])) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LedgerError(f"the ledger {file.name} cannot be read: {error}") from error
    if head != list(columns):
        raise LedgerError(f"the ledger {file.name} begins with {head}, expected {list(columns)}")
    for number, row in enumerate(rest, 2):
        where = f"line {number} of {file.name}"
        if len(row) != len(columns):
            raise LedgerError(f"{where} has {len(row)} columns, expected {len(columns)}")
        yield where, dict(zip(columns, row, strict=True))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
