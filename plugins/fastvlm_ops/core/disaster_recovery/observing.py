"""Starts, asks and stops the observer of a drill, and measures by what it wrote down."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.detached import start_detached
from fastvlm_ops.core.disaster_recovery.errors import DrillError, InconclusiveError
from fastvlm_ops.core.disaster_recovery.ledger import (
    LedgerError,
    ProbeRecord,
    WriteRecord,
    read_probes,
    read_writes,
)
from fastvlm_ops.core.disaster_recovery.measuring import Measures, measure
from fastvlm_ops.core.disaster_recovery.observation import (
    OBSERVER_LOG,
    Observation,
    ObserverConfig,
    read_observation,
    record_rows,
    recorded_rows,
)
from fastvlm_ops.core.disaster_recovery.service_requests import read_rows
from fastvlm_ops.core.services.instances import ProcessIdentity

#: The service is steady when everything went well for so long, and there was this much of it.
STEADY_SECONDS = 1.0
_FEWEST = 5
_FRESH_SECONDS = 2.0
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_SECOND = 1_000_000_000


def start_observer(folder: Path, config: ObserverConfig) -> ProcessIdentity:
    """Start the observer of a drill, unless it runs.

    :param folder: of the drill; made where it is absent
    :param config: what it is told
    :returns: the observer, which is nobody's child
    :raises DrillError: it does not start
    """
    if (running := _running(folder)) is not None:
        return running.process
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    asked_ns = time.monotonic_ns()
    start_detached(
        "fastvlm_ops.core.disaster_recovery.observer",
        folder,
        log=folder / OBSERVER_LOG,
        told=config.model_dump_json(),
    )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = read_observation(folder)
        if found is not None and found.started_ns > asked_ns:
            return found.process
        time.sleep(_POLL_SECONDS)
    raise DrillError(f"the observer did not start within {_START_SECONDS:g} s; see {folder / OBSERVER_LOG}")


def is_alive(folder: Path) -> bool:
    """Return whether the observer of a drill runs.

    :param folder: of the drill
    :raises InconclusiveError: what it wrote cannot be read
    """
    return _running(folder) is not None


def wait_for_steady_state(
    folder: Path, seconds: float, *, pause: Callable[[float], None] = time.sleep
) -> None:
    """Wait until requests have been answered rightly, and writes acknowledged, for a second.

    :param folder: of the drill
    :param seconds: how long at most
    :param pause: waits
    :raises InconclusiveError: they were not, or nobody observes
    """
    deadline = time.monotonic() + seconds
    while True:
        problem = unsteady(folder)
        if problem is None:
            return
        if not is_alive(folder):
            raise InconclusiveError(f"the observer of the drill does not run; see {folder / OBSERVER_LOG}")
        if time.monotonic() > deadline:
            raise InconclusiveError(f"there was no steady state within {seconds:g} s: {problem}")
        pause(_POLL_SECONDS)


def unsteady(folder: Path) -> str | None:
    """Return what speaks against a steady state in the last second; None where nothing does.

    :param folder: of the drill
    :raises InconclusiveError: the ledger is broken
    """
    now = time.monotonic_ns()
    try:
        probes, writes = read_probes(folder), read_writes(folder)
    except LedgerError as error:
        raise InconclusiveError(str(error)) from error
    since = now - round((STEADY_SECONDS + _FRESH_SECONDS) * _SECOND)
    requests = _Series(
        "request", [(one.sent_ns, one.ok, one.detail) for one in probes if one.sent_ns > since]
    )
    written = [
        (one.sent_ns, one.outcome == "acknowledged", one.detail)
        for one in writes
        if one.sent_ns > since and one.answered_ns is not None
    ]
    return requests.problem(now) or _Series("write", written).problem(now)


class _Series:
    """What became of the last requests, or writes.

    :param what: they are
    :param events: when each was sent, whether it went well, and what was wrong
    """

    def __init__(self, what: str, events: list[tuple[int, bool, str]]) -> None:
        self._what, self._events = what, events

    def problem(self, now: int) -> str | None:
        """What speaks against a steady state."""
        if not self._events or now - self._events[-1][0] > _FRESH_SECONDS * _SECOND:
            return f"no {self._what} has an outcome"
        last = self._events[-1][0]
        bad = [(sent, detail) for sent, well, detail in self._events if not well]
        if bad and last - bad[-1][0] < STEADY_SECONDS * _SECOND:
            return f"a {self._what} failed: {bad[-1][1]}"
        good = [sent for sent, _, _ in self._events if not bad or sent > bad[-1][0]]
        if len(good) < _FEWEST or last - good[0] < STEADY_SECONDS * _SECOND:
            return f"only {len(good)} {self._what}s went well so far"
        return None


def stop_observer(folder: Path) -> Observation | None:
    """Stop the observer of a drill, where it runs; it waits for the outcome of what is under way.

    Then the canary's rows are recorded once more, where the service gives them: all that was acknowledged is
    compared, and not only what was until a check of the scenario looked.

    :param folder: of the drill
    :returns: how it ended; None where there never was one
    :raises DrillError: it cannot be stopped
    """
    running = _running(folder)
    if running is None:
        return read_observation(folder)
    process = running.process.process
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.signal(number)
        deadline = time.monotonic() + _STOP_SECONDS
        while process.alive and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not process.alive:
            with contextlib.suppress(InconclusiveError):  # then those of before count
                look_at_rows(folder, running.url, running.prefix)
            return read_observation(folder)
    raise DrillError(f"the observer, process {process.pid}, cannot be stopped", retryable=True)


def observed_to_the_end(folder: Path) -> bool:
    """Return whether the observer of a drill ran until it was told to stop.

    :param folder: of the drill
    """
    try:
        found = read_observation(folder)
    except InconclusiveError:
        return False
    return found is not None and found.ended_by == "stopped"


def read_ledger(folder: Path) -> tuple[list[ProbeRecord], list[WriteRecord]]:
    """Return the requests and writes of a drill.

    :param folder: of the drill
    :raises InconclusiveError: they cannot be read
    """
    try:
        return read_probes(folder), read_writes(folder)
    except LedgerError as error:
        raise InconclusiveError(str(error)) from error


def look_at_rows(folder: Path, url: str, prefix: str) -> dict[str, str]:
    """Read the canary's rows from the service, and record them.

    :param folder: of the drill
    :param url: where the service's users reach it
    :param prefix: of the rows' ids
    :returns: id of each → SHA-256 of its payload
    :raises InconclusiveError: the service does not give them
    """
    asked_ns = time.monotonic_ns()
    rows = read_rows(url, prefix)
    record_rows(folder, asked_ns, rows)
    return rows


def measure_drill(folder: Path, fault_ns: int | None, *, injected_ns: int | None = None) -> Measures:
    """Measure a drill by its ledger and the rows that were last recorded.

    :param folder: of the drill
    :param fault_ns: when the injection of the fault began, on the machine's monotonic clock; None where the
        fault was not injected
    :param injected_ns: when it had ended; None where that is not known
    """
    if fault_ns is None:
        return Measures(unknowns=("RTO and RPO were not measured: nothing was broken",))
    try:
        # The rows before the ledger: a row whose write is not in the ledger was not written by the canary.
        rows = recorded_rows(folder)
        probes, writes = read_ledger(folder)
    except InconclusiveError as error:
        return Measures(unknowns=(f"RTO and RPO were not measured: {error}",))
    found = measure(
        probes,
        writes,
        None if rows is None else rows.rows,
        fault_ns,
        injected_ns=injected_ns,
        rows_asked_ns=None if rows is None else rows.asked_ns,
    )
    if observed_to_the_end(folder) or is_alive(folder):
        return found
    died = "the observer did not run to the end of the drill: what happened afterwards is not known"
    return found.model_copy(update={"unknowns": (*found.unknowns, died)})


def _running(folder: Path) -> Observation | None:
    found = read_observation(folder)
    if found is None or found.ended_ns is not None or not found.process.process.alive:
        return None
    return found
