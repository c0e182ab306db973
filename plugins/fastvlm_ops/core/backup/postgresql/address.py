"""Addresses of PostgreSQL databases: for psycopg, for PostgreSQL's programs, and for people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import URL

CONNECT_SECONDS = 10
# libpq's variables for what may stand in an address besides where and who.
_OPTIONS = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "application_name": "PGAPPNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def libpq_environment(database: URL) -> dict[str, str]:
    """Return an environment in which PostgreSQL's programs use a database, without arguments.

    :param database: its address; the host may be the folder of a Unix socket
    """
    given = {
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": database.username,
        "PGPASSWORD": database.password,
        "PGDATABASE": database.database,
        "PGCONNECT_TIMEOUT": database.query.get("connect_timeout", CONNECT_SECONDS),
        **{_OPTIONS[name]: value for name, value in database.query.items() if name in _OPTIONS},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**inherited, **{name: str(value) for name, value in given.items() if value is not None}}


def connect_parameters(database: URL) -> dict[str, Any]:
    """Return what ``psycopg.connect`` is to be called with.

    :param database: its address; the host may be the folder of a Unix socket
    """
    given = {
        "host": database.host,
        "port": database.port,
        "user": database.username,
        "password": database.password,
        "dbname": database.database,
        "connect_timeout": database.query.get("connect_timeout", CONNECT_SECONDS),
        **{name: value for name, value in database.query.items() if name in _OPTIONS},
    }
    return {name: value for name, value in given.items() if value is not None}


def shown(database: URL) -> Path:
    """What stands for an address in messages and manifests: where, but not who, let alone a password."""
    return Path(f"{database.host}:{database.port or 5432}") / (database.database or "")
