"""Models and readers of the files in ``include/``, the only files that an operator edits."""

from fastvlm_ops.core.config.backup_costs import Prices, StorageClasses
from fastvlm_ops.core.config.backup_policy import ObjectLock, Pruning, Retention
from fastvlm_ops.core.config.backup_replica import REPLICA_CONNECTION, Replica
from fastvlm_ops.core.config.capacity import CAPACITY_FILE, RESOURCES, Capacity, Resource, load_capacity
from fastvlm_ops.core.config.components import (
    COMPONENTS_FILE,
    AirflowDatabaseComponent,
    AirflowObjectsComponent,
    AnyComponent,
    Component,
    Components,
    FilesComponent,
    PostgreSQLComponent,
    SQLiteComponent,
    load_components,
    load_watched_components,
)
from fastvlm_ops.core.config.coreml import (
    COREML_FILE,
    CompareRules,
    ConditionRules,
    CoreMLDefinitions,
    DeviceDefinition,
    ModelDefinition,
    SessionRules,
    load_coreml,
)
from fastvlm_ops.core.config.errors import ConfigError, DefinitionError, Problem
from fastvlm_ops.core.config.hashing import include_hash

__all__ = [
    "CAPACITY_FILE",
    "COMPONENTS_FILE",
    "COREML_FILE",
    "REPLICA_CONNECTION",
    "RESOURCES",
    "AirflowDatabaseComponent",
    "AirflowObjectsComponent",
    "AnyComponent",
    "Capacity",
    "CompareRules",
    "Component",
    "Components",
    "ConditionRules",
    "ConfigError",
    "CoreMLDefinitions",
    "DefinitionError",
    "DeviceDefinition",
    "FilesComponent",
    "ModelDefinition",
    "ObjectLock",
    "PostgreSQLComponent",
    "Prices",
    "Problem",
    "Pruning",
    "Replica",
    "Resource",
    "Retention",
    "SQLiteComponent",
    "SessionRules",
    "StorageClasses",
    "include_hash",
    "load_capacity",
    "load_components",
    "load_coreml",
    "load_watched_components",
]
