"""Names that a repository gives and that become names of files or folders where it is restored."""

from __future__ import annotations

from fastvlm_ops.core.backup.errors import CorruptionError

_LONGEST = 200  # a temporary file's name has more around it, and 255 bytes in all


def require_name(name: object, what: str) -> str:
    """Refuse what would lead elsewhere than into the folder that it is used in.

    :param what: that has this name, for the message
    :raises CorruptionError: it is no plain name.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or len(name.encode(errors="replace")) > _LONGEST:
        raise CorruptionError(f"{what} has an impossible name: {name!r}"[:300])
    if not name.isprintable() or "/" in name:
        raise CorruptionError(f"{what} has an unsafe name: {name!r}")
    return name
