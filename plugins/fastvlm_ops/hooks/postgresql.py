"""Hook to a PostgreSQL cluster that is backed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, connection_url

if TYPE_CHECKING:
    from sqlalchemy import URL


class PostgreSQLClusterError(OperationsDatabaseError):
    """The connection to a cluster is not defined, or is none to PostgreSQL."""


class PostgreSQLClusterHook(BaseHook):
    """Knows the address of a cluster that is backed up.

    :param postgresql_conn_id: a connection of type ``postgres``: host, port, login, password, schema = any of
        the cluster's databases; the login needs the right to replicate
    """

    conn_name_attr = "postgresql_conn_id"
    default_conn_name = "fastvlm_postgres"

    def __init__(self, postgresql_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.postgresql_conn_id = postgresql_conn_id

    def get_conn(self) -> URL:
        """Return the address; Airflow's customary name for :meth:`url`."""
        return self.url()

    def url(self) -> URL:
        """Return the address, its password masked in the logs from here on.

        :raises PostgreSQLClusterError: the connection is not defined, or is to SQLite
        :raises OperationsDatabaseError: it is of another type, or a field cannot be used
        """
        try:
            connection = self.get_connection(self.postgresql_conn_id)
        except AirflowNotFoundException:
            message = (
                f"is not defined. Create it with: airflow connections add {self.postgresql_conn_id}"
                " --conn-type postgres --conn-host … --conn-port 5432 --conn-login … --conn-password …"
                " --conn-schema postgres"
            )
            raise PostgreSQLClusterError(self.postgresql_conn_id, message) from None
        url = connection_url(connection)
        if url.drivername == "sqlite":
            raise PostgreSQLClusterError(
                self.postgresql_conn_id,
                "is of type 'sqlite'; it must be postgres for a component of kind postgresql",
            )
        return url
