"""Models and readers of the files in ``include/``, the only files that an operator edits."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fastvlm_ops.core.config.components import (
    COMPONENTS_FILE,
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
from fastvlm_ops.core.config.pools import POOLS, Pool
from fastvlm_ops.core.config.reading import DefinitionFile

#: Every definition file, by its path below ``include/``, and what reads it from there.
CHECKED_FILES: Mapping[str, Callable[[Path], DefinitionFile]] = {COMPONENTS_FILE: load_components}

__all__ = [
    "CHECKED_FILES",
    "COMPONENTS_FILE",
    "POOLS",
    "Component",
    "Components",
    "ConfigError",
    "DefinitionError",
    "FilesComponent",
    "Pool",
    "Problem",
    "Retention",
    "SQLiteComponent",
    "include_hash",
    "load_components",
    "load_watched_components",
]
