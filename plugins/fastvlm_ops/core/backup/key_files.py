"""Key files: secrets that nobody types, on the worker's disk."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_ops.core.backup.errors import KeyFileError

MINIMUM_BYTES = 32  # what is derived from it is not slowed down, so it must not be guessable
_LIMIT_BYTES = 1 << 20
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class KeyFile:
    """The contents of a key file; every byte counts.

    :raises KeyFileError: there are fewer than 32 bytes.
    """

    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.data) < MINIMUM_BYTES:
            raise KeyFileError(
                f"a key file has at least {MINIMUM_BYTES} bytes, not {len(self.data)}; "
                "fastvlm-ops keys add --new-key-file makes one"
            )

    @classmethod
    def generate(cls) -> KeyFile:
        """32 random bytes as text, without a line end: it can be kept in a password manager too."""
        return cls(base64.b64encode(os.urandom(32)))

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """:raises KeyFileError: it is missing or too short, or others can read or write it."""
        data = read_private(path)
        try:
            return cls(data)
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Write a new file that its owner alone can read, flushed to the disk.

        :raises KeyFileError: there is a file already, or none can be made.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise KeyFileError(
                f"{path} is there already, and no key file is replaced; name another"
            ) from None
        except OSError as error:
            raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self.data)
            file.flush()
            os.fsync(file.fileno())


def read_private(path: Path) -> bytes:
    """The bytes of a file that nobody but its owner may read or write.

    :raises KeyFileError: that is not so, or it cannot be read.
    """
    try:
        # Without waiting: a pipe under this name would keep us for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())  # of what is open: a name can be given to another file meanwhile
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{path} is not a file")
            if status.st_mode & _OTHERS:
                raise KeyFileError(
                    f"{path} can be read or written by others than its owner "
                    f"(mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 {path}"
                )
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _LIMIT_BYTES:
        raise KeyFileError(f"{path} is larger than {_LIMIT_BYTES} bytes: that is no key file")
    return data
