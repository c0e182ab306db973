"""A small file system of its own is filled, or made read-only. Taken back: the filler is removed, or it is
mounted as it was.

A file, named after the fault, is written into the file system first. For ``full`` it is the filler; for
``read_only`` it proves later that what is mounted there is what was hit: the number of a device can be
another's by then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fastvlm_ops.core.disaster_recovery.fault_types import DiskFault
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.mounts import Mount, mount_of
from fastvlm_ops.core.programs.running import ProgramError, run

#: What may be filled at most: a drill must not write for minutes, nor take a machine's memory.
MAX_BYTES = 64 << 20
_MOUNT_SECONDS = 10
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def disk_fault(place: Path, how: Literal["full", "read_only"]) -> DiskFault:
    """Return the fault for a place, with what its file system is now.

    :param place: absolute, without links
    :param how: what is to happen to it
    :raises FaultError: it may not be hit
    """
    mount = _require_own(place, how)
    return DiskFault(how=how, mount=str(place), device=os.stat(place).st_dev, options=mount.options)


def inject(fault: DiskFault) -> None:
    """Fill the file system, or make it read-only.

    :param fault: what is broken
    :raises FaultError: it is not the one that was armed, or may not be hit, or cannot be
    """
    mount = _require_own(Path(fault.mount), fault.how)
    with _opened(fault) as folder:
        if os.fstat(folder).st_dev != fault.device or mount.options != fault.options:
            raise FaultError(
                f"what is mounted at {fault.mount} is not what was there when the plan was made: device"
                f" {os.fstat(folder).st_dev} with {mount.options}, expected {fault.device} with"
                f" {fault.options}; make a new plan"
            )
        try:
            file = os.open(_name(fault), _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            raise FaultError(
                f"{fault.mount}/{_name(fault)} is left of an earlier drill; take that back first"
            ) from None
        try:
            if fault.how == "full":
                _fill(file, fault.mount)
            os.fsync(file)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(file)
        os.fsync(folder)
    if fault.how == "read_only":
        writable = set(fault.options.split(",")) - {"rw"}
        _remount(fault, ",".join(["ro", *sorted(writable)]))


def revert(fault: DiskFault) -> str:
    """Remove the filler, or mount the file system as it was. What is not the one that was hit is left alone.

    :param fault: what was broken
    :returns: what was done
    :raises FaultError: it could not be taken back
    """
    mount = mount_of(Path(fault.mount))
    if mount is None:
        return f"nothing is mounted at {fault.mount} any more: nothing had to be done"
    with _opened(fault) as folder:
        if _size(fault, folder) is None:
            return f"what is mounted at {fault.mount} has nothing of this fault: nothing had to be done"
        device = os.fstat(folder).st_dev
    done = "the filler was removed"
    if fault.how == "read_only":
        done = "it was writable"
        if mount.is_read_only:
            if device != fault.device:
                raise FaultError(
                    f"{fault.mount} is read-only, as device {device}, which was {fault.device}: whether by"
                    f" this fault is not known; by hand: mount -o remount,{fault.options} {fault.mount}"
                )
            _remount(fault, fault.options)
            done = f"it was mounted with {fault.options} again"
    with _opened(fault) as folder:
        os.unlink(_name(fault), dir_fd=folder)
        os.fsync(folder)
    return f"{fault.mount}: {done}"


def is_left(fault: DiskFault) -> str | None:
    """Return what is left of the fault.

    :param fault: what was broken
    """
    mount = mount_of(Path(fault.mount))
    if mount is None:
        return None
    with _opened(fault) as folder:
        size = _size(fault, folder)
    if size is None:
        return None
    if fault.how == "read_only" and mount.is_read_only:
        return f"{fault.mount} is mounted read-only"
    return f"{_name(fault)} of {size} bytes is in {fault.mount}"


def describe(fault: DiskFault) -> list[str]:
    """Return what is done to inject it and to take it back.

    :param fault: what is broken
    """
    file = f"{fault.mount}/{_name(fault)}"
    if fault.how == "full":
        return [f"fill {fault.mount} (device {fault.device}) by the file {file}", f"remove {file}"]
    return [
        f"write {file}, and mount {fault.mount} (device {fault.device}) read-only",
        f"mount {fault.mount} with {fault.options}, and remove {file}",
    ]


def _require_own(place: Path, how: str) -> Mount:
    """Return the file system of a place, which has to be one that may be hit.

    :raises FaultError: it may not; the message says why
    """
    mount = mount_of(place)
    if mount is None or place == Path("/"):
        raise FaultError(f"{place} is no file system of its own: what others use would be hit too")
    if not mount.is_whole or mount.elsewhere:
        others = ", ".join(map(str, mount.elsewhere)) or "a part of which is mounted here"
        raise FaultError(
            f"the file system at {place} is mounted elsewhere too ({others}), and would be hit there"
        )
    if mount.is_read_only:
        raise FaultError(f"{place} is read-only already; mount it writable first")
    size = os.statvfs(place).f_blocks * os.statvfs(place).f_frsize
    if how == "full" and size > MAX_BYTES:
        raise FaultError(
            f"the file system at {place} has {size >> 20} MiB; at most {MAX_BYTES >> 20} MiB are filled"
        )
    return mount


def _name(fault: DiskFault) -> str:
    """Return the name of the fault's file, which is the same whoever asks."""
    return f".fastvlm-ops-fault-{hashlib.sha256(fault.model_dump_json().encode()).hexdigest()[:24]}"


@contextlib.contextmanager
def _opened(fault: DiskFault) -> Iterator[int]:
    """Open the folder, so that all that is done in it is done in one file system."""
    folder = os.open(fault.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _size(fault: DiskFault, folder: int) -> int | None:
    """Return the size of the fault's file; None where it is not there."""
    try:
        found = os.stat(_name(fault), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FaultError(f"{fault.mount}/{_name(fault)} is no file: it is left alone; remove it by hand")
    return found.st_size


def _fill(file: int, mount: str) -> None:
    """Write until nothing more fits."""
    block = os.urandom(1 << 20)  # which no file system makes smaller
    written = 0
    for size in (len(block), 4096, 1):
        with contextlib.suppress(_FullError):
            while written <= MAX_BYTES:
                written += _write(file, block[:size])
    if written > MAX_BYTES:
        raise FaultError(
            f"{mount} is not full after {MAX_BYTES >> 20} MiB; it has grown since it was looked at"
        )


class _FullError(Exception):
    pass


def _write(file: int, block: bytes) -> int:
    try:
        return os.write(file, block)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _FullError from error
        raise


def _remount(fault: DiskFault, options: str) -> None:
    """Change the options that the file system is mounted with, and see that they are.

    :raises FaultError: they could not be changed
    """
    # All of them, and none from /etc/fstab: those that are not named are lost.
    command = ["mount", "--options-mode", "ignore", "-o", f"remount,{options}", fault.mount]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        run(command, name="mount", environment=environment, timeout_seconds=_MOUNT_SECONDS)
    except ProgramError as error:
        raise FaultError(
            f"{fault.mount} cannot be mounted with {options}: {error.tail() or error}; mounting takes root,"
            " and read-only that no file is open for writing",
            retryable=True,
        ) from error
    mount = mount_of(Path(fault.mount))
    if mount is None or set(mount.options.split(",")) != set(options.split(",")):
        raise FaultError(
            f"{fault.mount} is mounted with {mount.options if mount else 'nothing'}, expected {options};"
            f" mount it by hand: mount -o remount,{options} {fault.mount}"
        )
