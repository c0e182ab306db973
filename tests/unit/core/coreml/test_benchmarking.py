"""Sessions of a device that does as it is told here: what ends a run, what is waited for, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.config.coreml import SessionRules
from fastvlm_ops.core.coreml.benchmarking import Work, benchmark
from fastvlm_ops.core.coreml.devices.interface import (
    BackendKind,
    Device,
    Failure,
    FailureCode,
    SessionPlan,
    SessionResult,
)
from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.turns import Accepted, Turns
from tests.coreml_made import PHONE, PLAN, session

RULES = SessionRules(count=4, cooldown_seconds=30, max_rerun=3)


@dataclass
class Scripted:
    """A device of this test: each session fails as its place in the script says, and preflights likewise."""

    failures: list[FailureCode | Exception | None] = field(default_factory=list)
    hindrances: list[FailureCode | None] = field(default_factory=list)
    found: Device | Failure = PHONE
    kind: BackendKind = BackendKind.CONNECTED_DEVICE
    plans: list[SessionPlan] = field(default_factory=list)
    cleaned: int = 0
    toolchain: dict[str, str] = field(default_factory=lambda: {"xcode": "16.1"})

    def discover(self) -> Device | Failure:
        return self.found

    def preflight(self, device: Device) -> Failure | None:
        code = self.hindrances.pop(0) if self.hindrances else None
        return None if code is None else Failure(code, "said so")

    def run_session(self, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        assert list(scratch.iterdir()) == []
        self.plans.append(plan)
        code = self.failures.pop(0) if self.failures else None
        if isinstance(code, Exception):
            raise code
        if code is not None:
            return SessionResult(99, Failure(code, "said so"))
        return session(99, placement=PLAN if plan.want_placement else ())

    def clean_up(self, device: Device) -> None:
        self.cleaned += 1


@dataclass
class Turning(Scripted):
    """One that also takes turns."""

    pairs: list[tuple[float, float]] | Failure = field(default_factory=lambda: [(1.0, 2.0)])
    asked: list[dict[str, Any]] = field(default_factory=list)

    def take_turns(self, accepted: Path, candidate: Path, **arguments: Any) -> Any:
        self.asked.append({"accepted": accepted.name, "candidate": candidate.name, **arguments})
        return self.pairs


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[RunRecord, list[float]]]:
    """A function that runs four sessions, and returns what came of it and the pauses."""

    def run(
        backend: Scripted, rules: SessionRules = RULES, accepted: Accepted | None = None, **arguments: Any
    ) -> Any:
        subject = ("iphone-15-pro", "VisionEncoder", "1.0", "d" * 64, tmp_path / "p", "CPU_AND_NE")
        work = Work("d/1", *subject, accepted=accepted)
        (tmp_path / "scratch").mkdir()
        waits: list[float] = []
        record = benchmark(
            backend, work, rules, scratch=tmp_path / "scratch", sleep=waits.append, **arguments
        )
        return record, waits

    return run


def test_all_sessions_of_a_device_in_order(run: Any) -> None:
    backend = Scripted()
    record, waits = run(backend)
    assert [one.index for one in record.good_sessions] == [0, 1, 2, 3]
    assert record.failure is None
    assert waits == [30] * 4
    assert {one.conditions.cooldown_seconds for one in record.sessions} == {30}
    assert record.device == PHONE.as_dict()
    assert "identifier" not in record.device
    assert len(record.epoch) == 16
    assert backend.cleaned == 1
    # The plan is the same for every launch: it is asked for once.
    assert [plan.want_placement for plan in backend.plans] == [True, False, False, False]
    assert {plan.compute_unit.value for plan in backend.plans} == {"CPU_AND_NE"}


def test_a_device_that_is_not_there(run: Any) -> None:
    backend = Scripted(found=Failure(FailureCode.DEVICE_MISSING, "no iPhone"))
    record, waits = run(backend)
    assert record.failure == Failure(FailureCode.DEVICE_MISSING, "no iPhone")
    assert (record.sessions, waits, record.device) == ((), [], {"name": "iphone-15-pro"})


def test_what_no_wait_can_cure_is_said_at_once(run: Any) -> None:
    backend = Scripted(hindrances=[FailureCode.DEVELOPER_MODE_OFF])
    record, waits = run(backend)
    assert record.failure.code is FailureCode.DEVELOPER_MODE_OFF
    assert (record.sessions, waits) == ((), [])
    assert backend.cleaned == 1


def test_a_hot_device_is_waited_for(run: Any) -> None:
    hot = FailureCode.NOT_READY
    record, waits = run(Scripted(hindrances=[hot, hot, hot, None]))
    assert record.failure is None
    assert waits == [30] * 6
    assert [one.conditions.cooldown_seconds for one in record.sessions] == [90, 30, 30, 30]


def test_a_device_that_stays_hot_ends_it_with_what_there_is(run: Any) -> None:
    hot = FailureCode.NOT_READY
    record, waits = run(Scripted(hindrances=[None, None, None, hot, hot, hot]))
    assert record.failure.code is hot
    assert len(record.good_sessions) == 2
    assert waits == [30] * 5


@pytest.mark.parametrize(
    ("failures", "kept", "failure"),
    [
        ([None, FailureCode.APP_CRASHED], [True, False, True, True], None),
        ([None, FailureCode.APP_CRASHED, FailureCode.NO_ANSWER], [True, False, False], "no_answer"),
        ([FailureCode.APP_CRASHED, None, FailureCode.TIMED_OUT], [False, True, False, True], None),
        ([None, FailureCode.DEVICE_DISCONNECTED], [True, False], "device_disconnected"),
        ([FailureCode.UNSUPPORTED_MODEL], [False], "unsupported_model"),
        ([None, ZeroDivisionError("by zero")], [True, False], "internal"),
    ],
)
def test_what_ends_a_run(run: Any, failures: list[Any], kept: list[bool], failure: str | None) -> None:
    backend = Scripted(failures)
    record, _ = run(backend)
    assert [one.failure is None for one in record.sessions] == kept
    assert [one.index for one in record.sessions] == list(range(len(kept)))
    assert (str(record.failure.code) if record.failure else None) == failure
    assert backend.cleaned == 1


def test_a_single_session_that_fails_is_a_failure_of_the_run(run: Any) -> None:
    record, _ = run(Scripted([FailureCode.TIMED_OUT]), SessionRules(count=1))
    assert record.failure is not None
    assert record.failure.code is FailureCode.TIMED_OUT


def test_a_suspicion_is_looked_at_again(run: Any) -> None:
    seen: list[int] = []

    def wanted(first: RunRecord) -> int:
        seen.append(len(first.sessions))
        return 10

    record, _ = run(Scripted(), wanted=wanted)
    assert seen == [4]
    assert record.confirming_from == 4
    assert len(record.sessions) == 7  # no more than max_rerun


def test_nothing_is_added_to_what_was_cut_short(run: Any) -> None:
    record, _ = run(Scripted([None, FailureCode.DEVICE_DISCONNECTED]), wanted=lambda _: 5)
    assert record.confirming_from is None
    assert len(record.sessions) == 2


def test_the_device_is_left_clean_when_the_task_is_stopped(run: Any) -> None:
    class Stopped(BaseException):
        pass

    backend = Scripted()
    with pytest.raises(Stopped):
        run(backend, progress=lambda _: (_ for _ in ()).throw(Stopped()))
    assert backend.cleaned == 1


ACCEPTED = Accepted("0.9", "a" * 64, Path("old"))


def test_the_accepted_version_is_timed_beside_it_where_the_device_does_that(run: Any) -> None:
    backend = Turning()
    record, _ = run(backend, accepted=ACCEPTED)
    assert record.turns == Turns("0.9", "a" * 64, ((1.0, 2.0),))
    (asked,) = backend.asked
    assert (asked["accepted"], asked["candidate"], asked["timeout_seconds"]) == ("old", "p", 600)


def test_turns_that_fail_are_told_and_leave_the_rest(run: Any) -> None:
    said: list[str] = []
    backend = Turning(pairs=Failure(FailureCode.TIMED_OUT, "too long"))
    record, _ = run(backend, accepted=ACCEPTED, progress=said.append)
    assert (record.failure, record.turns) == (None, Turns("0.9", "a" * 64, ()))
    assert "no turns: timed_out: too long" in said


@pytest.mark.parametrize(
    ("backend", "accepted"),
    [
        (Turning(), None),
        (Scripted(), ACCEPTED),
        (Turning(failures=[FailureCode.DEVICE_DISCONNECTED]), ACCEPTED),
    ],
)
def test_no_turns_without_another_version_a_device_for_them_or_sessions(
    run: Any, backend: Scripted, accepted: Accepted | None
) -> None:
    record, _ = run(backend, accepted=accepted)
    assert record.turns is None
    assert getattr(backend, "asked", []) == []
