"""From a component's definition to what the engine reads it from."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.core.backup.sources import FolderSource, Source
from fastvlm_ops.core.backup.sqlite_source import SQLiteSource
from fastvlm_ops.core.config import Components, FilesComponent


def source_of(definitions: Components, name: str, *, kit_dir: Path | None, scratch_dir: Path) -> Source:
    """Return the source of a component.

    :param definitions: ``components.yaml``
    :param name: of the component
    :param kit_dir: what relative paths start from; None where it is not set
    :param scratch_dir: for copies of databases
    :raises DefinitionError: there is no such component, or its path cannot be resolved
    """
    component = definitions.component(name)
    path = definitions.path_of(name, kit_dir)
    if isinstance(component, FilesComponent):
        return FolderSource(path, exclude=component.exclude, on_change=component.on_change)
    return SQLiteSource(path, scratch_dir=scratch_dir)
