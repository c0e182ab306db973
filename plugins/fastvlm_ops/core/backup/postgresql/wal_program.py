"""pg_receivewal as a child that dies with its parent."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastvlm_ops.core.backup.errors import DumpError
from fastvlm_ops.core.backup.postgresql.lsn import format_lsn
from fastvlm_ops.core.backup.postgresql.programs import Programs

PROGRAM = "pg_receivewal"
_TAIL_LINES = 8
_STOP_SECONDS = 5.0


class ReceivingProgram:
    """A running pg_receivewal. To be started by the main thread: the kernel ends it with the one that did.

    Finished segments are flushed by it before they get their names. Without ``--synchronous`` it tells the
    server at the end of each segment, not after every transaction, that it has them: until then the slot
    keeps them there, and only finished segments count anyway, so that flushing each transaction would buy
    nothing and cost the disk. ``--no-loop``: why it ended is for us to know.

    :param programs: of which version
    :param folder: that it writes to
    :param slot: replication slot
    :param environment: says where the server is, and the password
    :param lock: descriptor that it keeps open as long as it lives
    :param until_lsn: where it ends by itself; None for never
    :param tell: takes each line that it writes
    :raises SourceError: it is not installed
    :raises DumpError: it cannot be started
    """

    def __init__(
        self,
        programs: Programs,
        *,
        folder: Path,
        slot: str,
        environment: Mapping[str, str],
        lock: int,
        until_lsn: int | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        arguments = [
            *_dies_with_parent(),
            programs.path(PROGRAM),
            f"--directory={folder}",
            f"--slot={slot}",
            "--no-loop",
            "--no-password",
            "--compress=0",  # the bucket's objects are compressed anyway; 14 does not know "none"
            "--status-interval=10",
            "--verbose",
        ]
        if until_lsn is not None:
            arguments.append(f"--endpos={format_lsn(until_lsn)}")
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._tell = tell
        try:
            self._child = _start(arguments, environment, lock)
        except OSError as error:
            raise DumpError(f"{PROGRAM} cannot be started: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read, name=PROGRAM, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._child.poll()
        if code is not None:
            self._reader.join(1)
        return code

    @property
    def said(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._lines)

    def stop(self) -> None:
        """End it: what it has begun stays as ``.partial``, from which the next one goes on."""
        for number in (signal.SIGINT, signal.SIGKILL):
            if self._child.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_STOP_SECONDS)
        self._reader.join(1)

    def _read(self) -> None:
        assert self._child.stderr is not None  # noqa: S101 - it is a pipe
        with self._child.stderr as stream:
            for line in stream:
                text = line.rstrip().removeprefix(f"{PROGRAM}: ")
                self._lines.append(text)
                self._tell(text)


def _start(arguments: Sequence[str], environment: Mapping[str, str], lock: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        env={**environment, "LC_ALL": "C"},  # what it says is looked at
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=(lock,),
        umask=0o077,
        # A Ctrl-C in a terminal is for the parent, which then ends it in its own time.
        start_new_session=True,
    )


def _dies_with_parent() -> list[str]:
    """Where the kernel cannot, as on a Mac, the lock keeps a second one from starting beside it."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL"]
