"""Lines for a person and for a log."""

from __future__ import annotations

import io
import time

import pytest

from fastvlm_ops.local import console
from fastvlm_ops.local.console import Console, size, table


def test_lines_carry_seconds_and_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_QUIET_SECONDS", 0.2)
    stream = io.StringIO()
    with Console(stream) as shown:
        shown.say("starting")
        deadline = time.monotonic() + 10
        while "… starting" not in stream.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        shown.write("the end")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[   0.0 s] starting"
    assert lines[-1] == "the end"


def test_table() -> None:
    assert table([("step", "seconds"), ("backup", "1.5"), ("restore", "12.0")]) == (
        "step     seconds\n----------------\nbackup       1.5\nrestore     12.0"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text
