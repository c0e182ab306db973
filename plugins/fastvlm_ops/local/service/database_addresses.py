"""Where the two servers of a pair of databases are reached, which stays the same whichever is the primary."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.disaster_recovery.postgresql.state import DatabaseState, read_state
from fastvlm_ops.local.ports import HOST, free_ports

NAMES = ("database-1", "database-2")
_USER = "fastvlm"


class PairAddresses:
    """Names, ports and addresses of a pair of databases.

    :param database: name of the service's database
    :param password: of the superuser; made up where None
    """

    def __init__(self, database: str, password: str | None) -> None:
        if not database.isidentifier():
            raise ValueError(f"{database!r} cannot name a database")
        self.database = database
        self.user = _USER
        self.password = password or secrets.token_urlsafe(24)
        self._ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Of its instances."""
        return NAMES

    def port(self, name: str) -> int:
        """Return the port of an instance, which stays the same."""
        return self._ports[known(name)]

    def address(self, name: str) -> str:
        """Return host and port of an instance."""
        return f"{HOST}:{self.port(name)}"

    def dsn(self, name: str) -> str:
        """Return the address of the service's database on an instance, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.address(name)}/{self.database}"

    def client_dsn(self) -> str:
        """Return an address for clients, with the password: of whichever instance takes writes."""
        hosts = ",".join(self.address(name) for name in NAMES)
        return (
            f"postgresql://{self.user}:{self.password}@{hosts}/{self.database}"
            "?target_session_attrs=read-write&connect_timeout=2"
        )

    def maintenance_dsn(self, name: str) -> str:
        """Return the address of the database that every server has, with the password."""
        return self.dsn(name).removesuffix(self.database) + "postgres"

    def read(self, name: str, *, seconds: float = 2) -> DatabaseState:
        """Ask an instance what it is."""
        return read_state(name, self.maintenance_dsn(name), seconds=seconds)


def write_facts(file: Path, facts: dict[str, Any]) -> None:
    """Write down what has to be known of a pair later, in one step.

    :param file: which is replaced
    :param facts: without secrets
    """
    fresh = file.with_suffix(".new")
    with fresh.open("w") as output:
        json.dump(facts, output, indent=1)
        output.flush()
        os.fsync(output.fileno())
    fresh.replace(file)


def known(name: str) -> str:
    """Return the name of an instance.

    :raises DatabaseError: there is none of that name
    """
    if name not in NAMES:
        raise DatabaseError(f"there is no database {name!r}; there are {' and '.join(NAMES)}")
    return name


def other_of(name: str) -> str:
    """Return the name of the other instance.

    :raises DatabaseError: there is none of that name
    """
    return NAMES[1 - NAMES.index(known(name))]
