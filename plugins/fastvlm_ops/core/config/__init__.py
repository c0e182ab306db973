"""Models and readers of the files in ``include/``, the only files that an operator edits."""

from fastvlm_ops.core.config.capacity import CAPACITY_FILE, RESOURCES, Capacity, Resource, load_capacity
from fastvlm_ops.core.config.components import (
    COMPONENTS_FILE,
    AirflowDatabaseComponent,
    AirflowObjectsComponent,
    AnyComponent,
    Component,
    Components,
    FilesComponent,
    Retention,
    SQLiteComponent,
    load_components,
    load_watched_components,
)
from fastvlm_ops.core.config.errors import ConfigError, DefinitionError, Problem
from fastvlm_ops.core.config.hashing import include_hash

__all__ = [
    "CAPACITY_FILE",
    "COMPONENTS_FILE",
    "RESOURCES",
    "AirflowDatabaseComponent",
    "AirflowObjectsComponent",
    "AnyComponent",
    "Capacity",
    "Component",
    "Components",
    "ConfigError",
    "DefinitionError",
    "FilesComponent",
    "Problem",
    "Resource",
    "Retention",
    "SQLiteComponent",
    "include_hash",
    "load_capacity",
    "load_components",
    "load_watched_components",
]
