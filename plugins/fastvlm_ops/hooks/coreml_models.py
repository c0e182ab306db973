"""Where the packages of ``coreml.yaml`` are on this machine."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops import settings
from fastvlm_ops.core.config import CoreMLDefinitions


def models_root(definitions: CoreMLDefinitions) -> Path:
    """Return what relative paths of models start from.

    :param definitions: ``coreml.yaml``
    :raises SettingError: there are relative ones, and ``kit_dir`` is not set
    """
    root = settings.kit_dir()
    if root is not None:
        return root
    relative = [model.path for model in definitions.models if not Path(model.path).is_absolute()]
    if relative:
        raise settings.SettingError(
            "kit_dir", f"is not set, and {relative[0]} in {definitions.file} starts from it"
        )
    return Path("/")
