"""Runs one model on one device: session by session, whatever the device does meanwhile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.devices.interface import (
    ComputeUnit,
    Device,
    DeviceBackend,
    Failure,
    FailureCode,
    SessionPlan,
    SessionResult,
    TakesTurns,
)
from fastvlm_ops.core.coreml.epochs import Epoch
from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.turns import BLOCKS, Accepted, Turns, iterations_for
from fastvlm_ops.core.coreml.verdicts import Metric

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import SessionRules
    from fastvlm_ops.core.coreml.golden import Golden

#: After these, a further session would only tell the same.
_ENDS = frozenset(
    {
        FailureCode.NO_TOOLCHAIN,
        FailureCode.DEVICE_MISSING,
        FailureCode.DEVICE_DISCONNECTED,
        FailureCode.DEVELOPER_MODE_OFF,
        FailureCode.NOT_READY,
        FailureCode.SIGNING_FAILED,
        FailureCode.BUILD_FAILED,
        FailureCode.INSTALL_FAILED,
        FailureCode.UNSUPPORTED_MODEL,
        FailureCode.INTERNAL,
    }
)
_FAILED_IN_A_ROW = 2
#: A device that is hot or low may recover: so many cooldowns are waited for it.
_PATIENCE = 3


@dataclass(frozen=True)
class Work:
    """What is run.

    :param run_key: ``<dag id>/<run id>``
    :param device: its name in ``coreml.yaml``
    :param model: likewise
    :param version: of the package
    :param digest: of its files
    :param package: where it is
    :param compute_unit: that Core ML may use
    :param golden: inputs that it gets, and outputs that its own are compared with; None for neither
    :param inspection: an :class:`Inspection` as JSON
    :param accepted: the version in the baseline, where it is another one that is still there
    """

    run_key: str
    device: str
    model: str
    version: str
    digest: str
    package: Path
    compute_unit: str
    golden: Golden | None = None
    inspection: dict[str, Any] | None = None
    accepted: Accepted | None = None

    def record(self) -> RunRecord:
        """Return what is known before anything was run."""
        return RunRecord(
            run_key=self.run_key,
            device={"name": self.device},
            model=self.model,
            version=self.version,
            digest=self.digest,
            compute_unit=self.compute_unit,
            epoch="",
            hardware_class="",
            inspection=self.inspection,
            started_at=datetime.now(UTC).isoformat(),
        )


def benchmark(
    backend: DeviceBackend,
    work: Work,
    rules: SessionRules,
    *,
    scratch: Path,
    wanted: Callable[[RunRecord], int] = lambda _: 0,
    progress: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> RunRecord:
    """Run a model, and return what there is: all sessions, those until it had to end, or why there are none.

    :param backend: of the device
    :param work: what is run
    :param rules: how
    :param scratch: an empty folder
    :param wanted: takes what the first look has measured, and says how many sessions shall be added
    :param progress: called with what a person may want to know
    :param sleep: waits, in seconds
    """
    run = _Run(backend, work, rules, scratch, progress, sleep)
    found = backend.discover()
    if isinstance(found, Failure):
        progress(f"{work.device}: {found.code}: {found.detail}")
        return replace(work.record(), failure=found)
    try:
        return run.measure(found, wanted)
    finally:
        backend.clean_up(found)


class _Run:
    """One run, while it is under way."""

    def __init__(
        self,
        backend: DeviceBackend,
        work: Work,
        rules: SessionRules,
        scratch: Path,
        progress: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._backend = backend
        self._work = work
        self._rules = rules
        self._scratch = scratch
        self._progress = progress
        self._sleep = sleep
        self._sessions: list[SessionResult] = []
        self._failure: Failure | None = None
        self._outputs: Path | None = None

    def measure(self, device: Device, wanted: Callable[[RunRecord], int]) -> RunRecord:
        rules, backend = self._rules, self._backend
        record = replace(
            self._work.record(),
            device=device.as_dict(),
            hardware_class=str(device.hardware_class),
            toolchain=backend.toolchain,
            epoch=Epoch.of(device.as_dict(), backend.toolchain, self._work.compute_unit).key,
        )
        hindrance = backend.preflight(device)
        if hindrance is not None and hindrance.code is not FailureCode.NOT_READY:
            self._end(hindrance)
            return replace(record, failure=hindrance)
        self._run_sessions(device, rules.count)
        first_look = replace(record, sessions=tuple(self._sessions))
        more = 0 if self._failure else min(wanted(first_look), rules.max_rerun)
        if more > 0:
            self._progress(f"{more} sessions more, since the first {len(self._sessions)} are not enough")
            record = replace(record, confirming_from=len(self._sessions))
            self._run_sessions(device, more)
        if self._failure is None and all(one.failure for one in self._sessions):
            self._failure = self._sessions[-1].failure
        return replace(
            record,
            sessions=tuple(replace(one, outputs=None) for one in self._sessions),
            failure=self._failure,
            parity=self._parity(),
            turns=self._turns(first_look),
        )

    def _run_sessions(self, device: Device, count: int) -> None:
        """Run so many sessions, unless something ends it."""
        for _ in range(count):
            waited, hindrance = self._cool_down(device)
            if hindrance is not None:
                self._end(hindrance)
                return
            session = self._run_session(device, waited)
            self._sessions.append(session)
            self._say(session)
            if session.failure is not None and self._is_the_end(session.failure):
                self._end(session.failure)
                return

    def _cool_down(self, device: Device) -> tuple[float, Failure | None]:
        """Wait until the device is fit; return how long that was, and why it still is not."""
        cooldown = self._rules.cooldown_seconds
        waited, hindrance = 0.0, None
        for _ in range(_PATIENCE):
            self._sleep(cooldown)
            waited += cooldown
            hindrance = self._backend.preflight(device)
            if hindrance is None or hindrance.code is not FailureCode.NOT_READY:
                break
            self._progress(f"not ready: {hindrance.detail}")
        return waited, hindrance

    def _run_session(self, device: Device, waited: float) -> SessionResult:
        index = len(self._sessions)
        scratch = self._scratch / f"session-{index}"
        scratch.mkdir()
        try:
            result = self._backend.run_session(device, self._plan(), scratch)
        except Exception as error:  # a defect of the backend: what was measured before it is still true
            detail = f"{type(error).__name__}: {error}"
            result = SessionResult(index, Failure(FailureCode.INTERNAL, detail), started_at=_now())
        result = replace(
            result.at(index),
            conditions=replace(result.conditions, cooldown_seconds=waited),
            started_at=result.started_at or _now(),
        )
        if result.failure is None and result.outputs is not None:
            self._outputs = result.outputs
        else:
            shutil.rmtree(scratch, ignore_errors=True)
        return result

    def _plan(self) -> SessionPlan:
        """What does not change from session to session is asked for until there is one answer."""
        work, rules = self._work, self._rules
        return SessionPlan(
            package=work.package,
            compute_unit=ComputeUnit(work.compute_unit),
            inputs=work.golden.inputs if work.golden else None,
            warm_up=rules.warm_up,
            iterations=rules.iterations,
            warm_loads=rules.warm_loads,
            timeout_seconds=rules.timeout_seconds,
            answer_timeout_seconds=rules.answer_timeout_seconds,
            want_outputs=work.golden is not None and self._outputs is None,
            want_placement=not any(one.placement for one in self._sessions),
        )

    def _is_the_end(self, failure: Failure) -> bool:
        last = self._sessions[-_FAILED_IN_A_ROW:]
        in_a_row = len(last) == _FAILED_IN_A_ROW and all(one.failure for one in last)
        return failure.code in _ENDS or in_a_row

    def _end(self, failure: Failure) -> None:
        self._failure = failure
        self._progress(f"ends after {len(self._sessions)} sessions: {failure.code}: {failure.detail}")

    def _parity(self) -> dict[str, Any] | None:
        """How far the outputs are from the golden ones; None where there are none of either."""
        if self._work.golden is None or self._outputs is None:
            return None
        from fastvlm_ops.core.coreml.arrays import ArraysError, read_arrays
        from fastvlm_ops.core.coreml.parity import compare_outputs

        try:
            found = read_arrays(self._outputs)
        except ArraysError as error:
            self._progress(f"the outputs count as missing: {error}")
            found = {}
        return compare_outputs(self._work.golden.read_outputs(), found).as_dict()

    def _turns(self, measured: RunRecord) -> Turns | None:
        """Time it against the accepted version, where the device does that and sessions came through."""
        accepted, typical = self._work.accepted, measured.values(Metric.LATENCY_P50)
        if accepted is None or self._failure is not None or not typical:
            return None
        if not isinstance(self._backend, TakesTurns):
            return None
        self._progress(f"in turns with the accepted version {accepted.version}")
        pairs = self._backend.take_turns(
            accepted.package,
            self._work.package,
            blocks=BLOCKS,
            iterations=iterations_for(median(typical)),
            timeout_seconds=self._rules.timeout_seconds,
        )
        if isinstance(pairs, Failure):
            self._progress(f"no turns: {pairs.code}: {pairs.detail}")
            pairs = []
        return Turns(accepted.version, accepted.digest, tuple(pairs))

    def _say(self, session: SessionResult) -> None:
        number = f"session {session.index + 1}"
        if session.failure is not None:
            self._progress(f"{number}: {session.failure.code}: {session.failure.detail}")
            return
        middle = sorted(session.samples_ms)[len(session.samples_ms) // 2] if session.samples_ms else None
        said = "no predictions" if middle is None else f"{middle:.3f} ms in the middle"
        self._progress(f"{number}: {said}, {len(session.samples_ms)} predictions")


def _now() -> str:
    return datetime.now(UTC).isoformat()
