"""Hook to Airflow's own database, for the commands of Airflow and PostgreSQL that may use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, connection_url

if TYPE_CHECKING:
    from sqlalchemy import URL


class AirflowDatabaseError(OperationsDatabaseError):
    """The connection to Airflow's own database is not defined, or cannot be used."""


class AirflowDatabaseHook(BaseHook):
    """Knows the address of Airflow's own database, which tasks are not told otherwise.

    :param airflow_db_conn_id: a connection of type ``postgres`` (host, port, login, password, schema =
        database) or ``sqlite`` (host = the file)
    """

    conn_name_attr = "airflow_db_conn_id"
    default_conn_name = "fastvlm_airflow_db"

    def __init__(self, airflow_db_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.airflow_db_conn_id = airflow_db_conn_id

    def get_conn(self) -> URL:
        """Return the address; Airflow's customary name for :meth:`url`."""
        return self.url()

    def url(self) -> URL:
        """Return the address, its password masked in the logs from here on.

        :raises AirflowDatabaseError: the connection is not defined, or names a file that is not there
        :raises OperationsDatabaseError: it is of another type, or a field cannot be used
        """
        try:
            connection = self.get_connection(self.airflow_db_conn_id)
        except AirflowNotFoundException:
            # The shell of who runs it knows the address; it is not written here.
            message = (
                "is not defined. Where Airflow is configured, create it with: airflow connections add"
                f' {self.airflow_db_conn_id} --conn-uri "$(airflow config get-value database'
                ' sql_alchemy_conn)"'
            )
            raise AirflowDatabaseError(self.airflow_db_conn_id, message) from None
        url = connection_url(connection)
        if url.drivername == "sqlite" and not Path(url.database or "").is_file():
            raise AirflowDatabaseError(
                self.airflow_db_conn_id, f"the file {url.database} does not exist on this worker"
            )
        return url
