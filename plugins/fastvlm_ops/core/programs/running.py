"""Runs a program to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_TAIL_LINES = 15
running: set[subprocess.Popen[Any]] = set()


class Output(NamedTuple):
    """What a program wrote to its standard output, and to its standard error."""

    text: str
    errors: str


class ProgramError(Exception):
    """A program failed. The message does not show its output, which may hold secrets.

    :param program: its name
    :param what: how it ended
    :param output: what it wrote, of both streams
    """

    retryable = True

    def __init__(self, program: str, what: str, output: str = "") -> None:
        super().__init__(f"{program} {what}")
        self.program = program
        self.output = output

    def tail(self) -> str:
        """Return the end of its output, for callers that know that nothing secret stands in it."""
        return "\n".join(self.output.strip().splitlines()[-_TAIL_LINES:])


class ProgramTimeoutError(ProgramError):
    """A program did not end in time, and was killed with all that it had started."""


def run(
    arguments: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str],
    timeout_seconds: float,
    folder: Path | None = None,
) -> Output:
    """Run a program and return what it wrote.

    It leads a session of its own, which is killed on a time-out and on whatever else ends the wait for it.
    What it creates is readable by its user alone.

    :param arguments: the program and its arguments, nothing secret among them: all users can see them
    :param name: for messages
    :param environment: all of it
    :param timeout_seconds: after which it is killed
    :param folder: its working folder; this process's where None
    :raises ProgramTimeoutError: it did not end in time
    :raises ProgramError: it cannot be started, or ended with a status other than 0
    """
    try:
        child = subprocess.Popen(
            arguments,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise ProgramError(name, f"cannot be started: {error.strerror}") from error
    running.add(child)
    try:
        output, errors = child.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        output, errors = _kill(child)
        what = f"did not end within {timeout_seconds:.0f} s and was killed"
        raise ProgramTimeoutError(name, what, output + errors) from None
    except BaseException:
        _kill(child)
        raise
    finally:
        running.discard(child)
    require_success(child.returncode, name, output + errors)
    return Output(output, errors)


def require_success(status: int, name: str, output: str) -> None:
    """:raises ProgramError: a program ended with a status other than 0"""
    if status < 0:
        raise ProgramError(name, f"was killed by signal {signal.Signals(-status).name}", output)
    if status:
        raise ProgramError(name, f"ended with status {status}", output)


def kill_running() -> None:
    """Kill every program that runs, with all it started; the calls that wait for them then raise."""
    for child in list(running):
        kill_session(child)


def _kill(child: subprocess.Popen[str]) -> tuple[str, str]:
    kill_session(child)
    return child.communicate()


def kill_session(child: subprocess.Popen[Any]) -> None:
    """Kill a program with all it started; nothing where it has ended."""
    if child.poll() is None:  # else its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
