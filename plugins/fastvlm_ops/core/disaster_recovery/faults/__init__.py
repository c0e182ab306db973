"""Faults: how each kind is injected, taken back, looked at, and put into words.

One module a kind, each with the same four functions. Whoever injects notes the processes that are hit before
they are, and hands them over when the fault is taken back: a leader that has died by then leaves no trace of
what it had started.

Nothing but the very thing that was armed is touched: a number, a path or a mount point that is another's by
now is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from fastvlm_ops.core.disaster_recovery.fault_types import Fault
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError, FaultError
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import ProcessIdentity

__all__ = ["EntryError", "FaultError", "Record", "describe", "inject", "is_left", "revert"]

#: Takes the processes that are going to be hit, all that are known so far; raises unless it has kept them.
Record = Callable[[Sequence[ProcessIdentity]], None]


class _Processes(Protocol):
    def inject(self, fault: Fault, record: Record) -> None: ...

    def revert(self, fault: Fault, hit: Sequence[ProcessIdentity]) -> str: ...

    def is_left(self, fault: Fault, hit: Sequence[ProcessIdentity]) -> str | None: ...

    def describe(self, fault: Fault) -> list[str]: ...


class _Others(Protocol):
    def inject(self, fault: Fault) -> None: ...

    def revert(self, fault: Fault) -> str: ...

    def is_left(self, fault: Fault) -> str | None: ...

    def describe(self, fault: Fault) -> list[str]: ...


def inject(fault: Fault, record: Record = lambda _: None) -> None:
    """Inject a fault, whatever becomes of it then: see ``holding`` for one that is taken back.

    :param fault: what is broken
    :param record: for kinds that hit processes
    :raises FaultError: its target is not what was armed, or it could not be done; it may be there in part
    """
    try:
        if fault.kind in _OF_PROCESSES:
            _of_processes(fault).inject(fault, record)
        else:
            _of_others(fault).inject(fault)
    except (ServiceControlError, OSError) as error:
        raise _explained(fault, "cannot be injected", error) from error


def revert(fault: Fault, hit: Sequence[ProcessIdentity] = ()) -> str:
    """Take a fault back, also one that is there in part or not at all.

    :param fault: what was broken
    :param hit: the processes that were recorded
    :returns: what was done, for people
    :raises FaultError: it could not be taken back
    """
    try:
        if fault.kind in _OF_PROCESSES:
            return _of_processes(fault).revert(fault, hit)
        return _of_others(fault).revert(fault)
    except (ServiceControlError, OSError) as error:
        raise _explained(fault, "cannot be taken back", error) from error


def is_left(fault: Fault, hit: Sequence[ProcessIdentity] = ()) -> str | None:
    """Return what is left of a fault, for people; None where nothing is.

    :param fault: what was broken
    :param hit: the processes that were recorded
    :raises FaultError: it cannot be told
    """
    try:
        if fault.kind in _OF_PROCESSES:
            return _of_processes(fault).is_left(fault, hit)
        return _of_others(fault).is_left(fault)
    except (ServiceControlError, OSError) as error:
        raise _explained(fault, "cannot be looked at", error) from error


def describe(fault: Fault) -> list[str]:
    """Return what is done to inject and to take back a fault, one sentence each, for a dry run."""
    if fault.kind in _OF_PROCESSES:
        return _of_processes(fault).describe(fault)
    return _of_others(fault).describe(fault)


_OF_PROCESSES = frozenset({"process", "database"})


def _of_processes(fault: Fault) -> _Processes:
    return cast("_Processes", import_module(f"{__name__}.{fault.kind}"))


def _of_others(fault: Fault) -> _Others:
    return cast("_Others", import_module(f"{__name__}.{fault.kind}"))


def _explained(fault: Fault, what: str, error: ServiceControlError | OSError) -> FaultError:
    return FaultError(
        f"the fault of kind {fault.kind} {what}: {error}", retryable=getattr(error, "retryable", True)
    )
