"""The lease of drills: one at a time, whatever its scenario, and for as long as its fault can be there."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store import leases as store_leases
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.errors import LeaseLostError
from fastvlm_ops.core.store.leases import Lease
from fastvlm_ops.core.store.tables.shared import leases

LEASE = "disaster_recovery"


def lease_holder(store: Store) -> str | None:
    """Return the run key of the drill that has the lease; None where none has.

    :param store: the operations database
    """
    lease = _read(store)
    return lease.holder if lease else None


def take_lease(store: Store, run_key: str, time_to_live: timedelta) -> Lease:
    """Take the lease; a retried task of the same run has it already, and gets it for longer.

    :param store: the operations database
    :param run_key: of the drill
    :param time_to_live: after which another drill can have it
    :raises DrillRefusedError: another drill has it
    """
    held = _read(store)
    if held is not None and held.holder == run_key:
        return store_leases.renew(store, held, time_to_live=time_to_live)
    lease = store_leases.acquire(store, LEASE, holder=run_key, time_to_live=time_to_live)
    if lease is None:
        holder = lease_holder(store) or "another drill"
        raise DrillRefusedError(
            f"{holder} is running: one drill at a time; trigger this one again afterwards"
        )
    return lease


def keep_lease(store: Store, run_key: str, time_to_live: timedelta) -> Lease:
    """Have the lease for longer.

    :param store: the operations database
    :param run_key: of the drill that has it
    :param time_to_live: from now
    :raises DrillRefusedError: it is not this drill's any more: nothing may be broken
    """
    held = _read(store)
    if held is None or held.holder != run_key:
        other = f"{held.holder} has it" if held else "it has run out"
        raise DrillRefusedError(f"the lease {LEASE} is not this drill's any more: {other}; trigger a new run")
    try:
        return store_leases.renew(store, held, time_to_live=time_to_live)
    except LeaseLostError as error:
        raise DrillRefusedError(f"{error}; trigger a new run") from None


def give_lease_back(store: Store, run_key: str) -> bool:
    """Give the lease back; of one that another drill has, nothing is changed.

    :param store: the operations database
    :param run_key: of the drill that had it
    :returns: whether it was still this drill's
    """
    held = _read(store)
    if held is None or held.holder != run_key:
        return False
    return store_leases.release(store, held)


def _read(store: Store) -> Lease | None:
    with store.read() as connection:
        row = connection.execute(select(leases).where(leases.c.name == LEASE)).first()
        if row is None or row.expires_at is None or row.expires_at <= now(connection):
            return None
        return Lease(LEASE, row.holder, row.token, row.expires_at)
