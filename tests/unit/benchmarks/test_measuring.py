"""A command is measured, and not what started it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Cost, MeasuredCommandError, measure

MIB = 1 << 20


def run(code: str, folder: Path, **options: int) -> Cost:
    command = [sys.executable, "-I", "-c", code]
    return measure(command, environment=os.environ, folder=folder, log=folder / "log", **options)


def test_cpu_and_memory_are_the_commands_own(tmp_path: Path) -> None:
    ballast = b"x" * (150 * MIB)  # would count as the command's if it were started from here
    idle = run("pass", tmp_path)
    busy = run(f"x = b'x' * {64 * MIB}\nfor i in range(3_000_000): pass", tmp_path)
    assert idle.memory_bytes < len(ballast) / 2
    assert 60 * MIB < busy.memory_bytes - idle.memory_bytes < 70 * MIB
    assert idle.cpu_seconds < busy.cpu_seconds
    assert busy.wall_seconds > 0


def test_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(MeasuredCommandError, match=r"ended with 3; its last lines:\nit went wrong"):
        run("import sys; print('it went wrong'); sys.exit(3)", tmp_path)


def test_command_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(MeasuredCommandError, match="ended with -9"):
        run("import time; time.sleep(60)", tmp_path, timeout_seconds=1)
