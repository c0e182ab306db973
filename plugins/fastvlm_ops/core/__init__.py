"""What the product knows. Pure Python: imports no Airflow, and installs without it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastvlm_ops.core.importing import large_imports


def lazily(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` that imports each of its names when it is first asked for.

    :param package: its full name
    :param modules: its names, and the module of the package that each is in
    :returns: raises AttributeError for any other name
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(package)
        with large_imports():
            value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(found, name, value)
        return value

    return get
