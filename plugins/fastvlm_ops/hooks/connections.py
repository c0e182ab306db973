"""What the hooks share: the error of a connection that cannot be used, and the check of its extra."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ConnectionSettingError(Exception):
    """A connection is missing, lacks a field, or has one that cannot be used."""

    retryable = False

    def __init__(self, conn_id: str, message: str) -> None:
        super().__init__(f"Connection {conn_id!r}: {message}")


def unknown_field(found: Iterable[str], known: Sequence[str]) -> str | None:
    """Say which field of an extra is not known; None where all are.

    :param found: names of the fields that the extra has
    :param known: names of those that are read
    """
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            return f"extra has the unknown field {name!r}{meant} Known: {', '.join(known)}"
    return None
