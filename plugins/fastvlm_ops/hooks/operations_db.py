"""Hook to the operations database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from fastvlm_ops import settings

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from sqlalchemy import URL

    from fastvlm_ops.core.store import Store

# The last as in the address of Airflow's own database.
_POSTGRESQL = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
# Of libpq, those that say how to connect. What else Airflow's own hooks keep in extra is not for us.
_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "target_session_attrs")


class OperationsDatabaseError(Exception):
    """The connection to a database cannot be used."""

    retryable = False

    def __init__(self, conn_id: str, message: str) -> None:
        super().__init__(f"Connection {conn_id!r}: {message}")


class OperationsDatabaseHook(BaseHook):
    """Opens the operations database.

    :param conn_id: a connection of type ``postgres`` (host, port, login, password, schema = database) or
        ``sqlite`` (host = the file). Where it is not defined, the database is SQLite at
        ``[fastvlm_ops] database_path``, and is made and kept up to date by whoever opens it.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "fastvlm_ops_db"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def get_conn(self) -> Store:
        """Return the store; Airflow's customary name for :meth:`open_store`."""
        return self.open_store()

    def open_store(self) -> Store:
        """Open the database. The caller closes it.

        Tables of a database that has a connection are brought up to date by a person
        (``python -m fastvlm_ops.core.store``), for other machines may run another version.

        :raises OperationsDatabaseError: the connection cannot be used
        :raises SettingError: there is no connection, and ``database_path`` cannot be used
        :raises StoreError: the database does not answer, or its tables are older or newer than this code
        """
        from fastvlm_ops.core.store import open_store

        url, ours = self.address()
        return open_store(url, migrate_first=ours)

    def migrate(self) -> None:
        """Bring the tables up to date.

        :raises OperationsDatabaseError: the connection cannot be used
        :raises SettingError: there is no connection, and ``database_path`` cannot be used
        :raises StoreError: the database does not answer, or its tables are newer than this code
        """
        from fastvlm_ops.core.store import migrate

        migrate(self.address()[0])

    def test_connection(self) -> tuple[bool, str]:
        """Check that the database answers, and that its tables are what this code expects.

        :returns: whether all is well, and one sentence that says what is or what is not
        """
        from fastvlm_ops.core.store.errors import StoreError

        try:
            store = self.open_store()
        except (OperationsDatabaseError, settings.SettingError, StoreError) as error:
            return False, str(error)
        with store:
            return True, f"The operations database {store} answers and is up to date."

    def address(self) -> tuple[URL, bool]:
        """Return the database's address, and whether it is the default one, which who opens it keeps up to
        date.

        :raises OperationsDatabaseError: the connection cannot be used
        :raises SettingError: there is no connection, and ``database_path`` cannot be used
        """
        try:
            connection = self.get_connection(self.conn_id)
        except AirflowNotFoundException:
            if self.conn_id != self.default_conn_name:  # who names another means that one
                message = "is not defined; create it with the type postgres, or sqlite"
                raise OperationsDatabaseError(self.conn_id, message) from None
            from sqlalchemy import URL

            return URL.create("sqlite", database=str(settings.database_path())), True
        return connection_url(connection), False


def connection_url(connection: Connection) -> URL:
    """Return the address that a connection means, its password masked in the logs from here on.

    :param connection: of type ``postgres`` or ``sqlite``
    :raises OperationsDatabaseError: a field is missing or cannot be used
    """
    from sqlalchemy import URL

    if connection.conn_type == "sqlite":
        return URL.create("sqlite", database=_sqlite_file(connection))
    if connection.conn_type not in _POSTGRESQL:
        raise OperationsDatabaseError(
            connection.conn_id, f"is of type {connection.conn_type!r}; it must be postgres, or sqlite"
        )
    for field, value in (("host", connection.host), ("schema (the database's name)", connection.schema)):
        if not value:
            raise OperationsDatabaseError(connection.conn_id, f"the field {field} is empty")
    if connection.password:
        mask_secret(connection.password)
    extra = connection.extra_dejson
    return URL.create(
        "postgresql+psycopg",
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={name: str(extra[name]) for name in _OPTIONS if extra.get(name)},
    )


def _sqlite_file(connection: Connection) -> str:
    # A form has the path as host; in sqlite:////srv/ops.db it is what Airflow takes for the schema.
    path = connection.host or connection.schema or ""
    if not path.startswith("/"):
        raise OperationsDatabaseError(
            connection.conn_id, f"the file (field host) is {path!r}, which is not an absolute path"
        )
    return path
