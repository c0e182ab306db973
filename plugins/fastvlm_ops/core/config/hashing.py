"""The fingerprint of ``include/``, stamped into every result."""

from __future__ import annotations

import hashlib
from pathlib import Path


def include_hash(include_dir: Path) -> str:
    """Return the SHA-256 over names and contents of all files below a folder.

    Two workers with the same files give the same value, whatever the files' times and order. Hidden files
    are left out: editors and mounted volumes put theirs there.

    :param include_dir: the folder
    :returns: 64 hex digits
    :raises OSError: a file cannot be read
    """
    digest = hashlib.sha256()
    for path in sorted(include_dir.rglob("*")):
        relative = path.relative_to(include_dir)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        content = path.read_bytes()
        # Lengths keep a moved boundary between name and content from giving the same hash.
        digest.update(f"{relative.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
