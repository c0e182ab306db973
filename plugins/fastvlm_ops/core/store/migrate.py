"""Bringing the tables up to date, and telling whether they are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text

from fastvlm_ops.core.store.engine import Store, create_store_engine
from fastvlm_ops.core.store.errors import SchemaVersionError

MIGRATIONS = Path(__file__).parent / "migrations"
REMEDY = (
    "Bring it up to date: python -m fastvlm_ops.core.store, with its address in the environment variable"
    " FASTVLM_OPS_DATABASE_URL"
)
_ADVISORY_LOCK = 0x666173746F7073  # any number that nobody else takes in this database


def migrate(url: str | URL) -> None:
    """Bring the tables up to date; nothing where they are. There is no way back but a backup.

    One transaction, and one process at a time: another that migrates waits and then finds it done; one that
    is killed has changed nothing.

    :param url: of the database; a SQLite file is made where there is none
    :raises StoreUrlError: the address cannot be used
    :raises StoreUnavailableError: the database does not answer
    :raises SchemaVersionError: the tables are newer than this code
    """
    with Store(create_store_engine(url, create=True)) as store:
        with store.read() as connection:
            if current_version(connection) == head_version():
                return  # without the lock: each page and each task that opens the database comes here
        _upgrade(store)


def _upgrade(store: Store) -> None:
    with store.write() as connection:
        if store.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if _is_newer(connection):
            raise _newer(store, connection)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_schema(store: Store) -> None:
    """Check that the tables are what this code expects.

    :raises SchemaVersionError: they are older or newer
    :raises StoreUnavailableError: the database does not answer
    """
    with store.read() as connection:
        current = current_version(connection)
        if current == head_version():
            return
        if _is_newer(connection):
            raise _newer(store, connection)
    state = "holds no tables yet" if current is None else f"is at version {current}"
    raise SchemaVersionError(
        f"the operations database {store} {state}, and this code needs {head_version()}. {REMEDY}"
    )


def current_version(connection: Connection) -> str | None:
    """Return the version that the tables are at; None where there are none."""
    return MigrationContext.configure(connection).get_current_revision()


@lru_cache(maxsize=1)
def head_version() -> str:
    """Return the version that this code expects."""
    head = _scripts().get_current_head()
    if head is None:
        raise SchemaVersionError(f"the package lacks its migrations ({MIGRATIONS}); install it again")
    return head


@lru_cache(maxsize=1)
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))


def _is_newer(connection: Connection) -> bool:
    current = current_version(connection)
    return current is not None and current not in {script.revision for script in _scripts().walk_revisions()}


def _newer(store: Store, connection: Connection) -> SchemaVersionError:
    return SchemaVersionError(
        f"the operations database {store} is at version {current_version(connection)}, which this code does"
        f" not know (it knows up to {head_version()}). Install the newest fastvlm-ops on this machine"
    )
