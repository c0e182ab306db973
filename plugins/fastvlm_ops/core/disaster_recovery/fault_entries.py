"""The entry of a fault: a file that says what was broken, since when, by whom and until when.

It is written, and forced to the disk, before the fault is injected, and is enough to take it back by a
program that knows nothing else. Every change is made under the lock of the fault, in one step. A
file that is not what was written here is refused: what it may have meant is not guessed.

::

    <drill_dir>/faults/<fault id>.json     the entry
    <drill_dir>/faults/<fault id>.lock     held by whoever changes the entry, injects or takes back
    <drill_dir>/faults/<fault id>.log      what the holder says
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from fastvlm_ops.core.disaster_recovery.fault_types import Fault, Recorded
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError
from fastvlm_ops.core.disaster_recovery.flushing import flush_folder, write_flushed
from fastvlm_ops.core.programs.proc import boot_id
from fastvlm_ops.core.services.instances import ProcessIdentity

FAULT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_LIMIT_BYTES = 1 << 20
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_POLL_SECONDS = 0.01

State = Literal["armed", "injecting", "injected", "undone", "never_injected"]
UndoneBy = Literal["task", "holder", "signal", "time_to_live", "reaper"]


class FaultEntry(Recorded):
    """A fault, and how far it has come.

    :param fault_id: names the file, and the row in the operations database
    :param run_key: ``<dag id>/<run id>`` of the drill
    :param host: name of the machine whose processes and files are hit
    :param namespace: of its process numbers: in another container they mean other processes
    :param boot: id of the boot in which it was armed
    :param fault: what is broken
    :param time_to_live_seconds: from its injection
    :param state: ``injecting`` means: perhaps there, in whole or in part
    :param armed_at: wall clock, as all fields that end so: ISO 8601, UTC
    :param holder: the process that owns it
    :param hit: the processes that were hit, or about to be
    :param fault_at: when its injection began
    :param fault_monotonic_ns: the same, by the machine's monotonic clock
    :param injected_monotonic_ns: when its injection had ended; until then, what is hit may go on
    :param expires_at: when its time to live is over
    :param expires_monotonic_ns: the same, by the machine's monotonic clock
    :param undone_at: when it was known that nothing of it is left, or that it never was there
    :param undone_by: ``holder``: asked by a task; ``task``: by itself, for its holder was gone or silent
    :param undone_how: what was done, for people
    :param problem: what last went wrong
    """

    version: Literal[1] = 1
    fault_id: Annotated[str, Field(pattern=FAULT_ID_PATTERN)]
    run_key: Annotated[str, Field(min_length=1, max_length=500)]
    host: Annotated[str, Field(min_length=1, max_length=255)]
    namespace: str
    boot: str
    fault: Fault
    time_to_live_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
    state: State
    armed_at: str
    holder: ProcessIdentity | None = None
    hit: tuple[ProcessIdentity, ...] = Field(default=(), strict=False)
    fault_at: str | None = None
    fault_monotonic_ns: int | None = None
    injected_monotonic_ns: int | None = None
    expires_at: str | None = None
    expires_monotonic_ns: int | None = None
    undone_at: str | None = None
    undone_by: UndoneBy | None = None
    undone_how: str | None = None
    problem: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing of it is there, and nothing ever will be."""
        return self.state in {"undone", "never_injected"}

    @property
    def of_this_boot(self) -> bool:
        """Whether the machine has run on since it was armed."""
        return self.boot == boot_id()

    @property
    def seconds_left(self) -> float | None:
        """Of its time to live; below 0 once it is over, None before it is injected."""
        if self.expires_monotonic_ns is None or self.expires_at is None:
            return None
        if self.of_this_boot:  # the wall clock can be set
            return (self.expires_monotonic_ns - time.monotonic_ns()) / 1e9
        return (datetime.fromisoformat(self.expires_at) - datetime.now(UTC)).total_seconds()

    def changed(self, **changes: Any) -> FaultEntry:
        """Return it with other values, which are checked."""
        return FaultEntry.model_validate({**dict(self), **changes})


def new_entry(*, fault_id: str, run_key: str, fault: Fault, time_to_live_seconds: float) -> FaultEntry:
    """Return the entry of a fault of this machine that is to be armed.

    :param fault_id: at most 64 letters, digits, '_' and '-'
    :param run_key: ``<dag id>/<run id>`` of the drill
    :param fault: what is broken
    :param time_to_live_seconds: from its injection
    :raises EntryError: one of them cannot be used
    """
    try:
        return FaultEntry(
            fault_id=fault_id,
            run_key=run_key,
            host=this_host(),
            namespace=this_namespace(),
            boot=boot_id(),
            fault=fault,
            time_to_live_seconds=time_to_live_seconds,
            state="armed",
            armed_at=timestamp(),
        )
    except ValidationError as error:
        raise EntryError(f"the fault {fault_id!r} cannot be armed: {_first(error)}") from None


def this_host() -> str:
    """Return the name of this machine, as entries have it."""
    return socket.gethostname()


def this_namespace() -> str:
    """Return the namespace of this process's numbers, as entries have it."""
    return os.readlink("/proc/self/ns/pid")


def timestamp(after: timedelta = timedelta()) -> str:
    """Return the time, as entries have it.

    :param after: from now
    """
    return (datetime.now(UTC) + after).isoformat()


# -- the files ---------------------------------------------------------------------------------------------


def faults_folder(drill_dir: Path) -> Path:
    """Return the folder of the entries."""
    return drill_dir / "faults"


def entry_file(drill_dir: Path, fault_id: str) -> Path:
    """Return the file of an entry."""
    return faults_folder(drill_dir) / f"{fault_id}.json"


def entry_files(drill_dir: Path) -> list[Path]:
    """Return the files of all entries, by name; none where there is no folder yet."""
    return sorted(faults_folder(drill_dir).glob("*.json"))


def read_entry(file: Path) -> FaultEntry:
    """Read an entry.

    :raises EntryError: there is none, or it is not what was written
    """
    document = _read(file)
    entry, digest = document.get("entry"), document.get("sha256")
    if set(document) != {"entry", "sha256"} or not isinstance(entry, dict) or digest != _digest(entry):
        raise _refused(file, "was edited or damaged: its digest does not fit")
    try:
        read = FaultEntry.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        raise _refused(file, f"does not hold an entry of version 1: {_first(error)}") from None
    if read.fault_id != file.stem:
        raise _refused(file, f"holds the entry of {read.fault_id!r}")
    return read


def write_entry(file: Path, entry: FaultEntry) -> None:
    """Write an entry, in one step, and force it and its folder to the disk. Call it under the lock.

    :raises EntryError: it cannot be written
    """
    content = entry.model_dump(mode="json")
    document = json.dumps({"entry": content, "sha256": _digest(content)}, indent=1)
    try:
        write_flushed(file, document)
    except OSError as error:
        raise EntryError(f"the entry {file} cannot be written: {error.strerror}", retryable=True) from error


def remove_entry(file: Path) -> None:
    """Remove an entry that is closed, and its lock; one that is not closed stays.

    :raises EntryError: it cannot be read, or its lock cannot be had
    """
    with locked(file, 0):
        if read_entry(file).is_closed:
            file.unlink()
            file.with_suffix(".lock").unlink()


@contextlib.contextmanager
def locked(file: Path, patience_seconds: float) -> Iterator[None]:
    """Hold the lock of a fault.

    :param file: of its entry
    :param patience_seconds: how long another may hold it
    :raises EntryError: it cannot be had
    """
    lock = file.with_suffix(".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EntryError(f"the lock {lock} cannot be used: {error.strerror}", retryable=True) from error
    try:
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    message = f"the lock {lock} was not to be had within {patience_seconds:g} s"
                    raise LockBusyError(message, retryable=True) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


class LockBusyError(EntryError):
    """Another process holds the lock of a fault."""


def make_folder(drill_dir: Path) -> Path:
    """Make the folder of the entries where it is absent, for its user alone, and return it.

    :raises EntryError: it cannot be made
    """
    folder = faults_folder(drill_dir)
    try:
        drill_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        flush_folder(drill_dir)
    except OSError as error:
        raise EntryError(f"the folder {folder} cannot be made: {error.strerror}", retryable=True) from error
    return folder


def _read(file: Path) -> dict[str, Any]:
    try:
        # Without waiting: a pipe under this name would keep us for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise _refused(file, "is not a file of the user of this process")
            if status.st_mode & _OTHERS_MAY_WRITE:
                raise _refused(file, "can be written to by others than its owner")
            data = stream.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise EntryError(f"there is no entry {file}: the fault was never armed here") from None
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror}") from error
    if len(data) > _LIMIT_BYTES:
        raise _refused(file, f"is larger than {_LIMIT_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _refused(file, "is not JSON: it was cut short or damaged") from None
    if not isinstance(document, dict):
        raise _refused(file, "holds something else")
    return document


def _refused(file: Path, why: str) -> EntryError:
    return EntryError(
        f"the entry {file} {why}. Nothing was done: look at its row in drill_fault (operations database) and"
        f" at {file.with_suffix('.log')}, take the fault back by hand if it is there, and move the file away"
    )


def _digest(entry: dict[str, Any]) -> str:
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
