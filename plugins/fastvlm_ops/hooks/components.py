"""From a component's definition to its source, by the settings and connections of this Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.hooks.airflow_db import AirflowDatabaseHook

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.sources import Source
    from fastvlm_ops.core.config import Components


def source_named(definitions: Components, name: str) -> Source:
    """Return what the engine reads a component from.

    :param definitions: ``components.yaml``
    :param name: of the component
    :raises DefinitionError: there is no such component, or its path cannot be resolved
    :raises OperationsDatabaseError: the connection to Airflow's own database cannot be used
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
    )
