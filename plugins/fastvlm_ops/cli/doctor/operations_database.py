"""Checks of the operations database. Its tables are looked at and never changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from fastvlm_ops import settings
from fastvlm_ops.cli.doctor.findings import Finding, failed, ok, warning
from fastvlm_ops.core.store.engine import Store, create_store_engine
from fastvlm_ops.core.store.errors import SchemaVersionError, StoreError
from fastvlm_ops.core.store.migrate import check_schema, current_version
from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, OperationsDatabaseHook

_CHECK = "operations database"
_MIGRATE = "FASTVLM_OPS_DATABASE_URL=… python -m fastvlm_ops.core.store, with its address"


def examine() -> Iterator[Finding]:
    """The database that the connection names, or the default one."""
    try:
        url, is_default = OperationsDatabaseHook().address()
    except (OperationsDatabaseError, settings.SettingError) as error:
        yield failed(_CHECK, str(error), "edit the connection fastvlm_ops_db, or the setting that is named")
        return
    if is_default:
        remedy = "move the file aside, or add the connection fastvlm_ops_db; see docs/operations-database.md"
        if not Path(url.database or "").exists():
            yield ok(_CHECK, f"{url.database} does not exist yet; the first task makes it")
            return
    else:
        remedy = f"start it, or edit the connection fastvlm_ops_db; where its tables are old: {_MIGRATE}"
    try:
        with Store(create_store_engine(url, create=False)) as store:
            yield _schema(store, is_default=is_default)
    except (StoreError, DatabaseError) as error:
        yield failed(_CHECK, f"{url.render_as_string()}: {str(error).splitlines()[0]}", remedy)


def _schema(store: Store, *, is_default: bool) -> Finding:
    try:
        check_schema(store)
    except SchemaVersionError as error:
        if "this code does not know" in str(error):
            return failed(_CHECK, str(error), "install the newest fastvlm-ops here")
        if is_default:
            return warning(_CHECK, str(error), "nothing: the next task brings it up to date")
        return failed(_CHECK, str(error), _MIGRATE)
    with store.read() as connection:
        return ok(_CHECK, f"{store} answers; its tables are at version {current_version(connection)}")
