"""Leases: one holder at a time, for a limited time, with a fencing token that only grows.

A lease that has expired can be acquired by another, whatever its holder believes. So whoever writes under a
lease calls :func:`require` in the transaction that writes: until that transaction ends, nobody acquires the
lease, and under an old token nothing is written. What is outside the database gets ``Lease.token``, and has
to refuse a token lower than one that it has seen. For whose clock counts see ``core.store.clock``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.engine import Store
from fastvlm_ops.core.store.errors import LeaseLostError
from fastvlm_ops.core.store.tables.shared import leases


@dataclass(frozen=True)
class Lease:
    """A lease that was acquired.

    :param name: what is leased
    :param holder: who has it, for people
    :param token: higher than that of every earlier holder
    :param expires_at: until when, by the clock of the database, in UTC
    """

    name: str
    holder: str
    token: int
    expires_at: datetime


def acquire(store: Store, name: str, *, holder: str, time_to_live: timedelta) -> Lease | None:
    """Acquire a lease; None where somebody has it, be it the same holder.

    :param store: the operations database; a transaction of its own is made and committed
    :param name: what is leased
    :param holder: who wants it, for people: ``<dag id>/<run id>/<task id>``
    :param time_to_live: after which others can have it unless it is renewed
    """
    _check_duration(time_to_live)
    with store.write() as connection:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        blank = dialect.insert(leases).values(name=name, token=0)
        connection.execute(blank.on_conflict_do_nothing(index_elements=["name"]))
        row = _locked(connection, name)
        moment = now(connection)
        if row is None or (row.expires_at is not None and row.expires_at > moment):
            return None
        lease = Lease(name, holder, row.token + 1, moment + time_to_live)
        connection.execute(
            update(leases)
            .where(leases.c.name == name)
            .values(token=lease.token, holder=holder, acquired_at=moment, expires_at=lease.expires_at)
        )
    return lease


def renew(store: Store, lease: Lease, *, time_to_live: timedelta) -> Lease:
    """Have a lease for longer; returns it with its new end.

    :param store: the operations database
    :param lease: as it was acquired or renewed last
    :param time_to_live: from now
    :raises LeaseLostError: it is not held any more
    """
    _check_duration(time_to_live)
    with store.write() as connection:
        require(connection, lease)
        renewed = Lease(lease.name, lease.holder, lease.token, now(connection) + time_to_live)
        connection.execute(
            update(leases).where(leases.c.name == lease.name).values(expires_at=renewed.expires_at)
        )
    return renewed


def release(store: Store, lease: Lease) -> bool:
    """Give a lease back. Of one that was lost already, nothing is changed.

    :param store: the operations database
    :param lease: as it was acquired
    :returns: whether it was still this holder's
    """
    with store.write() as connection:
        released = connection.execute(
            update(leases)
            .where(
                leases.c.name == lease.name,
                leases.c.token == lease.token,
                leases.c.expires_at.is_not(None),
            )
            .values(holder=None, acquired_at=None, expires_at=None)
        )
    return released.rowcount == 1


def require(connection: Connection, lease: Lease) -> None:
    """Check that a lease is held, and keep it from changing hands until the transaction ends.

    :param connection: of the transaction that writes under the lease
    :param lease: as it was acquired
    :raises LeaseLostError: it is not held any more: nothing may be written
    """
    row = _locked(connection, lease.name)
    moment = now(connection)
    if row is None or row.token < lease.token:
        raise LeaseLostError(
            f"the database does not know lease {lease.name!r} with token {lease.token}: it is another"
            " database than the lease was acquired in, or was restored to an earlier state"
        )
    if row.token > lease.token:
        raise LeaseLostError(
            f"lease {lease.name!r}, token {lease.token}, was lost to {row.holder or 'a later holder'!r},"
            f" token {row.token}"
        )
    if row.expires_at is None:
        raise LeaseLostError(f"lease {lease.name!r}, token {lease.token}, was released")
    if row.expires_at <= moment:
        raise LeaseLostError(
            f"lease {lease.name!r}, token {lease.token}, expired at {row.expires_at.isoformat()}; acquire it"
            " again, and renew it more often than its time to live"
        )


def _locked(connection: Connection, name: str) -> Row[Any] | None:
    # SQLite ignores FOR UPDATE and needs none: a writing transaction has the whole database.
    return connection.execute(select(leases).where(leases.c.name == name).with_for_update()).first()


def _check_duration(time_to_live: timedelta) -> None:
    if time_to_live <= timedelta():
        raise ValueError(f"a lease's time to live must be positive, not {time_to_live}")
