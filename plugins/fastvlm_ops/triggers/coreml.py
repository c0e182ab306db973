"""Fires when there is a new version of a Core ML model."""

from __future__ import annotations

from typing import Any

from fastvlm_ops import settings
from fastvlm_ops.triggers.watching import UNREADABLE, ChangeTrigger

#: Name of the asset that stands for the newest packages of the models.
PACKAGES_ASSET = "fastvlm_ops/coreml_packages"


class ModelChangeTrigger(ChangeTrigger):
    """Watch the newest package of each model of ``include/coreml.yaml``, which is read anew each time.

    :param poll_seconds: between two looks
    :param quiet_seconds: for which the packages must stand still after a change: they are large to copy
    :param remind_seconds: after which a change that no run has recorded is told again
    """

    def __init__(
        self, poll_seconds: float = 15, quiet_seconds: float = 5, remind_seconds: float = 900
    ) -> None:
        super().__init__(poll_seconds, quiet_seconds, remind_seconds)

    def subject(self) -> dict[str, Any]:
        """Return nothing: the models are those of the file."""
        return {}

    def name(self) -> str:
        """Return what is watched."""
        return "the packages of coreml.yaml"

    def signature(self) -> str:
        """Return that of the newest packages."""
        # Imported here, in a thread, since it is much.
        from fastvlm_ops.core.config import load_coreml
        from fastvlm_ops.core.coreml.errors import PackageRefusedError
        from fastvlm_ops.core.coreml.watching import packages_signature
        from fastvlm_ops.hooks.coreml_models import models_root

        definitions = load_coreml(settings.include_dir())
        try:
            return packages_signature(definitions, models_root(definitions))
        except (OSError, PackageRefusedError) as error:
            return f"{UNREADABLE}{error}"
