"""Addresses of databases: what they may be, and how they are shown."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fastvlm_ops.core.store.errors import StoreUrlError

_POSTGRESQL = "postgresql+psycopg"
_ALIASES = {"postgres": _POSTGRESQL, "postgresql": _POSTGRESQL, "sqlite+pysqlite": "sqlite"}


def checked_url(url: str | URL) -> URL:
    """Return an address with the driver that is used here.

    :param url: ``sqlite:///<file>``, ``postgresql://…``, ``postgres://…`` or ``postgresql+psycopg://…``
    :raises StoreUrlError: it is another database, another driver, or a database in memory
    """
    try:
        made = make_url(url)
    except (ArgumentError, ValueError):
        # The text is not shown: a password may stand in it.
        raise StoreUrlError(
            "the address of the operations database cannot be read; it must look like"
            " sqlite:////srv/ops.db or postgresql://user:password@host:5432/database"
        ) from None
    made = made.set(drivername=_ALIASES.get(made.drivername, made.drivername))
    if made.drivername not in ("sqlite", _POSTGRESQL):
        raise StoreUrlError(
            f"{made.drivername!r} is not supported as the operations database; use sqlite:///<file> or"
            " postgresql://user:password@host/database"
        )
    if made.drivername == "sqlite" and made.database in (None, "", ":memory:"):
        raise StoreUrlError(
            "a SQLite database in memory is lost with its process; name a file: sqlite:////srv/ops.db"
        )
    return made


def shown(url: URL) -> str:
    """Return an address without its password, for messages."""
    return url.set(query={}).render_as_string(hide_password=True)
