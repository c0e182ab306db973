"""What a command costs: wall time, CPU time, and the most memory it held.

This file also runs by itself, with the standard library only, between the benchmark and the command that is
measured: Linux counts the memory of the process that starts another one into the peak of the new one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOG_END_LINES = 15


class MeasuredCommandError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True)
class Cost:
    """What one run of a command took.

    :param wall_seconds: from its start to its end
    :param cpu_seconds: user and system time of all its threads and processes
    :param memory_bytes: largest resident set of any of its processes
    :param sent_bytes: size of the objects that were stored, new ones and those that replace others
    """

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    sent_bytes: int = 0


def measure(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    timeout_seconds: int = 900,
) -> Cost:
    """Run a command to its end.

    :param command: program and arguments
    :param environment: the whole of it
    :param folder: that it runs in
    :param log: file that its output goes to
    :raises MeasuredCommandError: it failed or took too long; the message ends with the end of its log
    """
    import subprocess  # not above: the part that runs by itself stays small without it

    report = log.with_suffix(".json")
    runner = [sys.executable, "-I", "-S", __file__, report, str(timeout_seconds), *command]
    with log.open("wb") as output:
        subprocess.run(
            [str(argument) for argument in runner],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )
    result = json.loads(report.read_text())
    if result["exit_code"] != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_END_LINES:])
        raise MeasuredCommandError(f"{command[0]} ended with {result['exit_code']}; its last lines:\n{end}")
    return Cost(result["wall_seconds"], result["cpu_seconds"], result["memory_bytes"])


def _run(report: str, timeout_seconds: str, *command: str) -> None:
    started = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(int(timeout_seconds))
    _, status, usage = os.wait4(child, 0)
    result = {
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(result))


if __name__ == "__main__":
    _run(*sys.argv[1:])
