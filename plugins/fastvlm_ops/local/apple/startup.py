"""What Python runs when it starts with the stand-in: coremltools finds the stand-in's Core ML then."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_LIBRARY = "coremltools.libcoremlpython"
_DEVICES = "coremltools.models.ml_program.experimental.remote_device"
_UTILITIES = "coremltools.models.utils"


class _Finder(importlib.abc.MetaPathFinder):
    """Offers the library that coremltools has on macOS only, and tells it that this is macOS."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find what is stood in for, or what has to be told."""
        if name == _LIBRARY:
            return importlib.util.spec_from_loader(name, _Library())
        if name not in (_DEVICES, _UTILITIES):
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        if found is not None and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            found.loader = _Told(found.loader.name, found.loader.path)
        return found


class _Library(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Give the stand-in's module in place of the library."""
        from fastvlm_ops.local.apple import core_ml

        return core_ml

    def exec_module(self, module: ModuleType) -> None:
        """It was run when it was imported."""


class _Told(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then change the one thing in it that is not so here."""
        super().exec_module(module)
        if module.__name__ == _UTILITIES:
            module._is_macos = lambda: True  # type: ignore[attr-defined]
        else:
            from fastvlm_ops.local.apple.project import project_folder

            module._ModelRunnerAppBuilder._get_project_path = staticmethod(project_folder)


def install() -> None:
    """See to it, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
