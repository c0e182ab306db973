"""A computation that never ends is ended, and nothing else is."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from fastvlm_ops.core.capacity.budget import ProcessorTime, TimeSpentError


def hang(seconds: float = 60) -> None:
    """Keep the processor busy, and swallow whatever is an Exception."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        try:
            sum(range(1000))
        except Exception:  # noqa: S112
            continue


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[list[int]]:
    """What another part of the program has installed before."""
    seen: list[int] = []
    before = signal.signal(signal.SIGVTALRM, lambda number, _: seen.append(number))
    yield seen
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def test_what_hangs_is_ended() -> None:
    began = time.process_time()
    with pytest.raises(TimeSpentError, match=r"not done after 0\.1 s"), ProcessorTime(0.1):
        hang()
    assert time.process_time() - began < 5


def test_what_ends_in_time_is_left_alone_and_so_is_what_comes_after(own_handler: list[int]) -> None:
    handler = signal.getsignal(signal.SIGVTALRM)
    with ProcessorTime(0.2):
        pass
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    hang(0.4)
    assert own_handler == []


def test_an_error_inside_passes_and_nothing_stays_behind() -> None:
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(KeyError), ProcessorTime(5):
        raise KeyError
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_the_timer_that_airflow_uses_is_not_touched() -> None:
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with ProcessorTime(5):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_waiting_costs_nothing() -> None:
    with ProcessorTime(0.05):
        time.sleep(0.2)


def test_elsewhere_than_in_the_main_thread_nothing_is_limited() -> None:
    done = []

    def work() -> None:
        with ProcessorTime(0.01):
            hang(0.1)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
