"""Runs a program whose output is read while it is written, however much there is of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from fastvlm_ops.core.programs.running import (
    ProgramError,
    ProgramTimeoutError,
    kill_session,
    require_success,
    running,
)

_PIPE_BYTES = 1 << 20  # what Linux gives without privileges; its default of 64 KiB costs a switch each
_ERROR_LINES = 1000
_ERROR_LINE_BYTES = 4096


class ProgramStream:
    """A program that runs, and its output.

    :param child: the program
    :param name: for messages
    :param idle_seconds: how long it may write nothing
    :param secrets: what is struck out of what it says
    """

    def __init__(
        self, child: subprocess.Popen[bytes], name: str, idle_seconds: float, secrets: Sequence[str]
    ) -> None:
        assert child.stdout is not None  # noqa: S101 - both are pipes
        assert child.stderr is not None  # noqa: S101
        self.name = name
        self._child = child
        self._idle_seconds = idle_seconds
        self._secrets = [secret for secret in secrets if secret]
        self._output = child.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._lines: deque[bytes] = deque(maxlen=_ERROR_LINES)
        self._listener = threading.Thread(target=self._listen, args=(child.stderr,), daemon=True)
        self._listener.start()

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer with what there is of the output; returns the count, 0 at the end.

        :raises ProgramTimeoutError: it wrote nothing for ``idle_seconds``, and was killed
        """
        if not self._poll.poll(self._idle_seconds * 1000):
            raise self._timed_out(f"wrote nothing for {self._idle_seconds:.0f} s")
        return os.readv(self._output, [buffer])

    def finish(self) -> str:
        """Wait until it has ended, its output read; returns what it wrote to its standard error.

        :raises ProgramTimeoutError: it did not end within ``idle_seconds``, and was killed
        :raises ProgramError: it ended with a status other than 0
        """
        try:
            self._child.wait(self._idle_seconds)
        except subprocess.TimeoutExpired:
            raise self._timed_out(f"did not end within {self._idle_seconds:.0f} s") from None
        self._listener.join(self._idle_seconds)
        require_success(self._child.returncode, self.name, self.errors)
        return self.errors

    @property
    def errors(self) -> str:
        """The end of what it has written to its standard error, without the secrets."""
        text = b"".join(self._lines).decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _timed_out(self, what: str) -> ProgramTimeoutError:
        kill_session(self._child)
        return ProgramTimeoutError(self.name, f"{what} and was killed", self.errors)

    def _listen(self, pipe: IO[bytes]) -> None:
        for line in iter(lambda: pipe.readline(_ERROR_LINE_BYTES), b""):
            self._lines.append(line)


@contextlib.contextmanager
def stream(
    arguments: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str],
    idle_seconds: float,
    secrets: Sequence[str] = (),
    folder: Path | None = None,
) -> Iterator[ProgramStream]:
    """Run a program and give its output as it comes.

    It leads a session of its own, which is killed when the block is left, in whatever way.
    What it creates is readable by its user alone.

    :param arguments: the program and its arguments, nothing secret among them: all users can see them
    :param name: for messages
    :param environment: all of it
    :param idle_seconds: how long it may write nothing, or take to end, before it is killed
    :param secrets: what is struck out of what it says
    :param folder: its working folder; this process's where None
    :raises ProgramError: it cannot be started
    """
    try:
        child = subprocess.Popen(
            arguments,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise ProgramError(name, f"cannot be started: {error.strerror}") from error
    running.add(child)
    try:
        with child:  # closes the pipes, and waits
            try:
                _widen(child)
                yield ProgramStream(child, name, idle_seconds, secrets)
            finally:
                kill_session(child)
    finally:
        running.discard(child)


def _widen(child: subprocess.Popen[bytes]) -> None:
    if hasattr(fcntl, "F_SETPIPE_SZ") and child.stdout is not None:
        with contextlib.suppress(OSError):  # the user's pipes have used up what they may
            fcntl.fcntl(child.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
