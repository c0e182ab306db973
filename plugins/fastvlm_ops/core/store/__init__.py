"""The operations database: what tasks find out, and a person or another task needs later."""

from __future__ import annotations

from fastvlm_ops.core.store.engine import Store, open_store
from fastvlm_ops.core.store.errors import SchemaVersionError, StoreError
from fastvlm_ops.core.store.migrate import migrate

__all__ = ["SchemaVersionError", "Store", "StoreError", "migrate", "open_store"]
