"""From a component's definition to what the engine reads it from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.core.backup.airflow_sources import AirflowObjectsSource, airflow_database_source
from fastvlm_ops.core.backup.postgresql.base_backup import PostgreSQLClusterSource
from fastvlm_ops.core.backup.sources import FolderSource, Source
from fastvlm_ops.core.backup.sqlite_source import SQLiteSource
from fastvlm_ops.core.config import (
    AirflowDatabaseComponent,
    AirflowObjectsComponent,
    Components,
    FilesComponent,
    PostgreSQLComponent,
)

if TYPE_CHECKING:
    from sqlalchemy import URL


def source_of(
    definitions: Components,
    name: str,
    *,
    kit_dir: Path | None,
    scratch_dir: Path,
    airflow_database: Callable[[str], URL],
    cluster: Callable[[str], URL],
    postgresql_bin_dir: Path | None,
) -> Source:
    """Return the source of a component.

    :param definitions: ``components.yaml``
    :param name: of the component
    :param kit_dir: what relative paths start from; None where it is not set
    :param scratch_dir: for copies of databases
    :param airflow_database: address of Airflow's own database, by the id of the connection to it
    :param cluster: address of a cluster of PostgreSQL, by the id of the connection to it
    :param postgresql_bin_dir: with PostgreSQL's programs; None for where packages put them
    :raises DefinitionError: there is no such component, or its path cannot be resolved
    :raises SourceError: Airflow's database is of a kind that cannot be backed up
    """
    component = definitions.component(name)
    if isinstance(component, AirflowDatabaseComponent):
        return airflow_database_source(airflow_database(component.connection), scratch_dir)
    if isinstance(component, AirflowObjectsComponent):
        return AirflowObjectsSource(airflow_database(component.connection), scratch_dir)
    if isinstance(component, PostgreSQLComponent):
        return PostgreSQLClusterSource(
            cluster(component.connection),
            programs_folder=postgresql_bin_dir,
            on_damaged_pages=component.on_damaged_pages,
        )
    path = definitions.path_of(name, kit_dir)
    if isinstance(component, FilesComponent):
        return FolderSource(path, exclude=component.exclude, on_change=component.on_change)
    return SQLiteSource(path, scratch_dir=scratch_dir)
