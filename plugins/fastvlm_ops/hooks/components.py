"""What ``components.yaml`` means here, by the settings and connections of this Airflow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.core.config import COMPONENTS_FILE, ConfigError, load_components
from fastvlm_ops.hooks.airflow_db import AirflowDatabaseHook
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterHook

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.object_policy import ObjectPolicy
    from fastvlm_ops.core.backup.sources import Source
    from fastvlm_ops.core.config import Components

log = logging.getLogger(__name__)


def source_named(definitions: Components, name: str) -> Source:
    """Return what the engine reads a component from.

    :param definitions: ``components.yaml``
    :param name: of the component
    :raises DefinitionError: there is no such component, or its path cannot be resolved
    :raises OperationsDatabaseError: the connection to its database, or to Airflow's own, cannot be used
    :raises SettingError: a folder that is needed for it is not there
    :raises SourceError: Airflow's database is of a kind that cannot be backed up
    """
    from fastvlm_ops.core.backup.components import source_of

    return source_of(
        definitions,
        name,
        kit_dir=settings.kit_dir(),
        scratch_dir=settings.scratch_dir(),
        airflow_database=lambda conn_id: AirflowDatabaseHook(conn_id).url(),
        cluster=lambda conn_id: PostgreSQLClusterHook(conn_id).url(),
        postgresql_bin_dir=settings.postgresql_bin_dir(),
    )


def object_policy() -> ObjectPolicy:
    """Return what objects are stored with: locked for as long as ``object_lock`` says.

    Nothing is locked where there is no definition file, as on a machine that only restores. Nor where it is
    broken, with a warning: no DAG that backs up or prunes runs then, and a restore must.
    """
    from fastvlm_ops.core.backup.object_policy import ObjectPolicy

    try:
        if not (settings.include_path() / COMPONENTS_FILE).exists():
            return ObjectPolicy()
        lock = load_components(settings.include_path()).object_lock
    except (ConfigError, settings.SettingError) as error:
        log.warning("What is stored now is not locked, whatever object_lock should say: %s", error)
        return ObjectPolicy()
    if lock is None:
        return ObjectPolicy()
    return ObjectPolicy("GOVERNANCE" if lock.mode == "governance" else "COMPLIANCE", lock.days)
