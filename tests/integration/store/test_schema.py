"""What stands in the database is what the code expects, or is refused with what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import make_url, text

from fastvlm_ops.core.store import SchemaVersionError, Store, StoreError, migrate, open_store
from fastvlm_ops.core.store.engine import create_store_engine
from fastvlm_ops.core.store.errors import StoreUnavailableError
from fastvlm_ops.core.store.migrate import head_version
from fastvlm_ops.core.store.tables import all_tables
from fastvlm_ops.local.postgres import PostgreSQL

pytestmark = pytest.mark.integration


def test_the_migrations_make_the_tables_of_the_code(store: Store) -> None:
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, all_tables()) == []
        assert len(all_tables().tables) >= 5


def test_a_database_without_tables_is_refused_until_it_is_migrated(database_url: str) -> None:
    with Store(create_store_engine(database_url, create=True)) as blank, blank.write() as connection:
        connection.execute(text("SELECT 1"))
    with pytest.raises(
        SchemaVersionError, match=r"holds no tables yet, .* python -m fastvlm_ops\.core\.store"
    ):
        open_store(database_url)
    environment = {**os.environ, "FASTVLM_OPS_DATABASE_URL": database_url}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "fastvlm_ops.core.store"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert f"is at version {head_version()}" in done.stdout
    open_store(database_url).close()


@pytest.mark.parametrize(
    ("version", "message"),
    [("0001", "is at version 0001, and this code needs"), ("9999", "version 9999, which this code does not")],
)
def test_older_and_newer_tables_are_refused(store: Store, store_url: str, version: str, message: str) -> None:
    if version == head_version():
        pytest.skip("this version is the newest")
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    with pytest.raises(SchemaVersionError, match=message):
        open_store(store_url)
    if version == "9999":
        with pytest.raises(SchemaVersionError, match="Install the newest fastvlm-ops"):
            migrate(store_url)


def test_a_failure_in_a_migration_leaves_nothing(database_url: str) -> None:
    with Store(create_store_engine(database_url, create=True)) as blank, blank.write() as connection:
        connection.execute(text("CREATE TABLE shared_message (id INTEGER)"))  # in the way of the migration
    with pytest.raises(Exception, match="shared_message"):
        migrate(database_url)
    with Store(create_store_engine(database_url, create=True)) as store, store.write() as connection:
        connection.execute(text("DROP TABLE shared_message"))
    migrate(database_url)  # would find its own tables in the way, had it left any
    open_store(database_url).close()


def test_no_password_in_errors(postgres: PostgreSQL) -> None:
    url = make_url(postgres.url()).set(password="sesame-open")
    with pytest.raises(
        StoreUnavailableError, match=r"does not let us in: .*password authentication"
    ) as caught:
        open_store(url)
    assert caught.value.retryable is True
    assert "sesame-open" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    with pytest.raises(StoreUnavailableError) as caught:
        open_store(url.set(port=1))
    assert "sesame-open" not in str(caught.value)


def test_a_lost_server_is_found_again(store: Store, postgres: PostgreSQL) -> None:
    if store.dialect != "postgresql":
        pytest.skip("PostgreSQL only")
    with store.read() as connection:
        connection.execute(text("SELECT 1"))
    with Store(create_store_engine(postgres.url(), create=False)) as admin, admin.write() as connection:
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        connection.execute(text(terminate), {"name": store.engine.url.database})
    with store.read() as connection:  # over a new connection
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_forked_child_uses_connections_of_its_own(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("CREATE TABLE test_fork (who INTEGER)"))
    child = os.fork()
    if child == 0:
        try:
            with store.write() as connection:
                connection.execute(text("INSERT INTO test_fork VALUES (1)"))
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with store.write() as connection:
        connection.execute(text("INSERT INTO test_fork VALUES (2)"))
        assert connection.execute(text("SELECT count(*) FROM test_fork")).scalar_one() == 2


def test_sqlite_is_set_up_to_keep_what_it_committed(store: Store) -> None:
    if store.dialect != "sqlite":
        pytest.skip("SQLite only")
    with store.write() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_a_migrated_file_that_is_gone_is_not_made_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("gone") / "ops.db"
    with pytest.raises(SchemaVersionError, match="there is no operations database at"):
        open_store(f"sqlite:///{file}")
    assert not file.exists()
    with pytest.raises(StoreError, match=r"the folder .* does not exist"):
        migrate(f"sqlite:///{file.parent / 'nowhere' / 'ops.db'}")
