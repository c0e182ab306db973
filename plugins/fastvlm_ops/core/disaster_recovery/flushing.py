"""Files that are on the disk when the call returns, as they are meant to be or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_flushed(path: Path, text: str) -> None:
    """Write a file that its user alone can read, in one step, and force it and its name to the disk.

    :param path: what is there is replaced
    :raises OSError: it cannot be written; what was there stays
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def flush_folder(folder: Path) -> None:
    """Force the names in a folder to the disk.

    :raises OSError: it cannot be done
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
