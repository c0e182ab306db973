"""Fires when the watched component has changed since it was last backed up."""

from __future__ import annotations

from typing import Any

from fastvlm_ops import settings
from fastvlm_ops.triggers.watching import UNREADABLE, ChangeTrigger

#: Name of the asset that stands for the watched component.
WATCHED_ASSET = "fastvlm_ops/watched_component"


class ComponentChangeTrigger(ChangeTrigger):
    """Watch a component by names, sizes, times and inodes, and fire once for each burst of changes.

    :param component: its name in ``include/components.yaml``, which is read anew each time
    :param poll_seconds: between two looks
    :param quiet_seconds: for which the component must stand still after a change
    :param remind_seconds: after which a change that no run has recorded is told again
    """

    def __init__(
        self,
        component: str,
        poll_seconds: float = 5,
        quiet_seconds: float = 2,
        remind_seconds: float = 900,
    ) -> None:
        super().__init__(poll_seconds, quiet_seconds, remind_seconds)
        self.component = component

    def subject(self) -> dict[str, Any]:
        """Return which component."""
        return {"component": self.component}

    def name(self) -> str:
        """Return its name."""
        return self.component

    def signature(self) -> str:
        """Return that of the component's files."""
        # Imported here, in a thread, since it is much.
        from fastvlm_ops.core.backup.compare import quick_signature
        from fastvlm_ops.core.backup.errors import SourceError
        from fastvlm_ops.core.config import load_components
        from fastvlm_ops.hooks.components import source_named

        source = source_named(load_components(settings.include_dir()), self.component)
        try:
            return quick_signature(source)
        except SourceError as error:
            return f"{UNREADABLE}{error}"
