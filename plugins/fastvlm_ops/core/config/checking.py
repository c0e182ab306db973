"""Checks that keys of several definition files share."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

CONNECTION_PATTERN = r"^[A-Za-z0-9_.-]{1,200}$"


def check_path(path: str) -> str:
    """Return a path of the kit.

    :param path: of a folder or file, absolute or below kit_dir
    :raises ValueError: it is neither
    """
    if not path.strip() or "\0" in path:
        raise ValueError(f"{path!r} cannot be a path; expected a folder or file, absolute or below kit_dir")
    if path.startswith("~"):
        raise ValueError(f"{path!r}: '~' is not expanded, since workers run as other users; write it in full")
    if not path.startswith("/") and ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} leaves kit_dir; write the absolute path instead")
    return path


def check_connection(connection: str) -> str:
    """Return the id of a connection.

    :param connection: the id
    :raises ValueError: Airflow would not take it for one
    """
    if not re.fullmatch(CONNECTION_PATTERN, connection):
        raise ValueError(
            f"{connection!r} cannot be the id of a connection; expected letters, digits, '_', '.' and '-'"
        )
    return connection
