"""The tables, one file a domain, on one MetaData."""

from __future__ import annotations

import importlib
import pkgutil

from sqlalchemy import MetaData

from fastvlm_ops.core.store.tables.columns import metadata


def all_tables() -> MetaData:
    """Import every file of tables, and return the MetaData that they stand on."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return metadata
