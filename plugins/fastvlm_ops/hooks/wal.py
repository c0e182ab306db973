"""A component's WAL, by the definitions, settings and connections of this Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.core.config import DefinitionError
from fastvlm_ops.core.config.components import PostgreSQLComponent
from fastvlm_ops.core.config.errors import Problem
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterHook

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings
    from fastvlm_ops.core.backup.postgresql.wal_watch import WalRules
    from fastvlm_ops.core.config import Components

_OLDEST_PROGRAMS = 14


def received_component(definitions: Components, name: str) -> tuple[PostgreSQLComponent, str]:
    """Return a component whose WAL is received, and its replication slot.

    :param definitions: ``components.yaml``
    :param name: of the component
    :raises DefinitionError: there is no such component, or its WAL is not received
    """
    component = definitions.component(name)
    key = f"components[{definitions.names.index(name)}]"
    if not isinstance(component, PostgreSQLComponent):
        message = f"{name!r} is of kind {component.kind}; only components of kind postgresql have WAL"
        raise DefinitionError(definitions.file, [Problem(f"{key}.kind", message)])
    if component.slot is None:
        message = f"{name!r} has no slot, so that its WAL is not received; name one, as in fastvlm_ops"
        raise DefinitionError(definitions.file, [Problem(f"{key}.slot", message)])
    return component, component.slot


def wal_rules(component: PostgreSQLComponent, slot: str) -> WalRules:
    """Return what the watcher goes by.

    :param component: as :func:`received_component` returns it
    :param slot: its replication slot
    """
    from fastvlm_ops.core.backup.postgresql.wal_watch import WalRules

    return WalRules(slot, component.wal_max_lag_seconds, component.switch_wal_after_seconds)


def receiver_settings(component: PostgreSQLComponent, slot: str) -> ReceiverSettings:
    """Return what the receiver works with.

    :param component: as :func:`received_component` returns it
    :param slot: its replication slot
    :raises OperationsDatabaseError: the connection cannot be used
    :raises SettingError: a setting cannot be used
    :raises SourceError: PostgreSQL's programs are not installed
    """
    from fastvlm_ops.core.backup.postgresql.programs import find_programs
    from fastvlm_ops.core.backup.postgresql.wal_program import PROGRAM
    from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings

    return ReceiverSettings(
        component=component.name,
        url=PostgreSQLClusterHook(component.connection).url(),
        slot=slot,
        spool_folder=settings.wal_spool_dir() / component.name,
        spool_limit_bytes=int(settings.wal_spool_max_gib() * (1 << 30)),
        programs=find_programs(_OLDEST_PROGRAMS, folder=settings.postgresql_bin_dir(), needed=(PROGRAM,)),
    )
